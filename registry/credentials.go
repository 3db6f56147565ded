package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

const (
	maxCredentials = 1 << 20 // bytes, of a file and of what a helper says
	helperTime     = 20 * time.Second
)

// Credentials are the names and passwords of a file in the form of Docker's
// config.json. The zero value has none.
type Credentials struct {
	File string
	// Helpers are the credential helpers that may be started, as the file names
	// them: ecr-login for docker-credential-ecr-login.
	Helpers []string
}

// credentialFile is what counts of a config.json. A password is in auth, as
// authn.AuthConfig decodes it.
type credentialFile struct {
	Auths       map[string]authn.AuthConfig `json:"auths"`
	CredHelpers map[string]string           `json:"credHelpers"`
	CredsStore  string                      `json:"credsStore"`
}

// Check says what is wrong with the file.
func (c Credentials) Check() error {
	f, err := c.read()
	if err != nil {
		return err
	}
	helpers := []string{f.CredsStore}
	for _, h := range f.CredHelpers {
		helpers = append(helpers, h)
	}
	for _, h := range helpers {
		if err := c.allows(h); h != "" && err != nil {
			return err
		}
	}
	return nil
}

func (c Credentials) read() (f credentialFile, err error) {
	if c.File == "" {
		return f, nil
	}
	file, err := os.Open(c.File)
	if err != nil {
		return f, fmt.Errorf("read credentials of registries: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxCredentials+1))
	switch {
	case err != nil:
		return f, fmt.Errorf("read credentials of registries: %w", err)
	case len(data) > maxCredentials:
		return f, fmt.Errorf("read credentials of registries: %s has more than %d bytes", c.File, maxCredentials)
	}
	if json.Unmarshal(data, &f) != nil { // the error could tell a part of a password
		return f, fmt.Errorf("read credentials of registries: %s is not a config.json as `docker login` writes it", c.File)
	}
	return f, nil
}

var helperForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

func (c Credentials) allows(helper string) error {
	switch {
	case !helperForm.MatchString(helper):
		return fmt.Errorf("%s names a credential helper that can't be one", c.File)
	case !slices.Contains(c.Helpers, helper):
		return fmt.Errorf("%s wants docker-credential-%s started, which is not allowed; add %s to registry.helpers in the daemon's configuration, or put the credentials into the file", c.File, helper, helper)
	}
	return nil
}

// Resolve implements authn.Keychain.
func (c Credentials) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return c.ResolveContext(context.Background(), target)
}

// ResolveContext returns what the file has for a repository: what is nearest to
// it, as in host/folder before host.
func (c Credentials) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	f, err := c.read()
	if err != nil {
		return nil, err
	}
	for key := target.String(); key != ""; {
		for written, helper := range f.CredHelpers {
			if credentialKey(written) == key {
				return c.ask(ctx, helper, written)
			}
		}
		for written, auth := range f.Auths {
			if credentialKey(written) == key && auth != (authn.AuthConfig{}) {
				return authn.FromConfig(auth), nil
			}
		}
		key = key[:max(0, strings.LastIndexByte(key, '/'))]
	}
	if f.CredsStore == "" {
		return authn.Anonymous, nil
	}
	server := target.RegistryStr()
	if server == name.DefaultRegistry {
		server = authn.DefaultAuthKey // as `docker login` has stored it
	}
	return c.ask(ctx, f.CredsStore, server)
}

// credentialKey brings a key of the file into the form of a repository's name:
// https://index.docker.io/v1/ is index.docker.io.
func credentialKey(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s = strings.TrimRight(s, "/")
	for _, version := range []string{"/v1", "/v2"} {
		s = strings.TrimSuffix(s, version)
	}
	host, rest, _ := strings.Cut(s, "/")
	if host = strings.ToLower(host); host == "docker.io" || host == "registry-1.docker.io" {
		host = name.DefaultRegistry
	}
	if rest == "" {
		return host
	}
	return host + "/" + rest
}

// ask has a helper tell what it knows of a server.
func (c Credentials) ask(ctx context.Context, helper, server string) (authn.Authenticator, error) {
	if err := c.allows(helper); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(server)
	out := &capped{most: maxCredentials}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		if strings.Contains(out.buffer.String(), "credentials not found") { // as the protocol has it
			return authn.Anonymous, nil
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer in %s", helperTime)
		}
		return nil, fmt.Errorf("docker-credential-%s get: %w", helper, err)
	}
	var said struct{ Username, Secret string }
	if json.Unmarshal(out.buffer.Bytes(), &said) != nil || said.Secret == "" {
		return nil, fmt.Errorf("docker-credential-%s get: its answer is not what a credential helper says", helper)
	}
	if said.Username == "<token>" {
		return authn.FromConfig(authn.AuthConfig{IdentityToken: said.Secret}), nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: said.Username, Password: said.Secret}), nil
}

// capped keeps what is written, and refuses what is too much. The buffer is no
// part of it, for that would read without asking.
type capped struct {
	buffer bytes.Buffer
	most   int
}

func (c *capped) Write(p []byte) (int, error) {
	if c.buffer.Len()+len(p) > c.most {
		return 0, errors.New("too much output")
	}
	return c.buffer.Write(p)
}
