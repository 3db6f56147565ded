package devtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"
)

// RegistryServer is a running container registry, CNCF Distribution as Debian
// has it.
type RegistryServer struct {
	// Host is its address as an image's reference has it. It speaks plain HTTP.
	Host string

	process
	login  remote.Option
	tokens *tokens // nil: it asks for none
}

// RegistryOptions say what a registry is to be like.
type RegistryOptions struct {
	// User and Password are asked for; "": anybody may do anything.
	User, Password string
	// Readers may pull: then everybody needs a token, which a server beside it
	// gives out, as it is with Docker Hub, GitHub, GitLab, Harbor and Quay.
	Readers []Reader
	// Notify is an address that is told what is pushed, with this header.
	Notify, Authorization string
}

// Registry starts an empty registry for one test, which ends with it.
func Registry(t testing.TB, o RegistryOptions) *RegistryServer {
	t.Helper()
	r, err := StartRegistry(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	return r
}

// Kill ends it, and who gives out its tokens.
func (r *RegistryServer) Kill() {
	r.process.Kill()
	if r.tokens != nil {
		r.tokens.Close()
	}
}

// Tokens is how many it has given out.
func (r *RegistryServer) Tokens() int { return int(r.tokens.given.Load()) }

// StartRegistry starts an empty registry that keeps its data in dir, until it is
// killed.
func StartRegistry(dir string, o RegistryOptions) (*RegistryServer, error) {
	binary, err := locate("docker-registry", "PINION_REGISTRY", "registry")
	if err != nil {
		return nil, err
	}
	r := &RegistryServer{login: remote.WithAuth(authn.Anonymous)}
	if o.User != "" {
		r.login = remote.WithAuth(&authn.Basic{Username: o.User, Password: o.Password})
	}
	if len(o.Readers) > 0 {
		if r.tokens, err = newTokens(Reader{Name: o.User, Password: o.Password}, o.Readers); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, "tokens.pem"), r.tokens.bundle(), 0o600); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(dir, "config.yml")
	err = r.launch(dir, func(address string) (*exec.Cmd, error) {
		r.Host = address
		config := map[string]any{
			"version": "0.1",
			"log":     map[string]any{"level": "error"},
			"storage": map[string]any{"filesystem": map[string]any{"rootdirectory": filepath.Join(dir, "data")}, "delete": map[string]any{"enabled": true}},
			"http":    map[string]any{"addr": address, "secret": "of a test", "headers": map[string]any{folder: []string{dir}}},
		}
		switch {
		case r.tokens != nil:
			config["auth"] = map[string]any{"token": map[string]any{"realm": r.tokens.realm(), "service": tokenService, "issuer": tokenIssuer, "rootcertbundle": filepath.Join(dir, "tokens.pem")}}
		case o.User != "":
			hash, err := bcrypt.GenerateFromPassword([]byte(o.Password), bcrypt.MinCost)
			if err != nil {
				return nil, err
			}
			users := filepath.Join(dir, "users")
			if err := os.WriteFile(users, fmt.Appendf(nil, "%s:%s\n", o.User, hash), 0o600); err != nil {
				return nil, err
			}
			config["auth"] = map[string]any{"htpasswd": map[string]any{"realm": "test", "path": users}}
		}
		if o.Notify != "" {
			config["notifications"] = map[string]any{"endpoints": []any{map[string]any{
				"name": "test", "url": o.Notify, "headers": map[string]any{"Authorization": []string{o.Authorization}},
				"timeout": "5s", "threshold": 5, "backoff": "1s",
			}}}
		}
		data, err := json.Marshal(config) // which is YAML, too
		if err != nil {
			return nil, err
		}
		return exec.Command(binary, "serve", file), os.WriteFile(file, data, 0o600)
	}, func(ctx context.Context) error { return r.answers(ctx, dir) })
	if err != nil {
		r.Kill()
		return nil, err
	}
	return r, nil
}

// folder is a header by which one tells ours from another test's.
const folder = "X-Test-Folder"

// answers complains until ours answers at the address.
func (r *RegistryServer) answers(ctx context.Context, dir string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Host+"/v2/", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if got := response.Header.Get(folder); got != dir {
		return fmt.Errorf("the registry at %s has its data in %q, ours in %s: %s", r.Host, got, dir, response.Status)
	}
	return nil
}

// Push puts a new image with these labels under a name such as acme/web:1.2.3,
// and returns its digest. No two have the same.
func (r *RegistryServer) Push(t testing.TB, tag string, labels map[string]string) string {
	t.Helper()
	image := Image(t, labels)
	return r.Put(t, tag, image)
}

// Image makes an image with these labels, and something in it.
func Image(t testing.TB, labels map[string]string) v1.Image {
	t.Helper()
	layer, err := random.Layer(100, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		image, err = mutate.Config(image, v1.Config{Labels: labels})
	}
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// Put puts an image, or an index, under a name.
func (r *RegistryServer) Put(t testing.TB, tag string, what remote.Taggable) string {
	t.Helper()
	ref, err := name.ParseReference(r.Host + "/" + tag)
	if err != nil {
		t.Fatal(err)
	}
	var digest v1.Hash
	switch x := what.(type) {
	case v1.Image:
		if digest, err = x.Digest(); err == nil {
			err = remote.Write(ref, x, r.login)
		}
	case v1.ImageIndex:
		if digest, err = x.Digest(); err == nil {
			err = remote.WriteIndex(ref, x, r.login)
		}
	default:
		err = fmt.Errorf("%T is neither", what)
	}
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}
