package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/registry"
)

// counted counts requests by their result.
type counted struct {
	mu sync.Mutex
	n  map[registry.Result]int
}

func (c *counted) count(_ string, r registry.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[registry.Result]int{}
	}
	c.n[r]++
}

func (c *counted) of(r registry.Result) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[r]
}

func TestRealRegistry(t *testing.T) {
	t.Parallel()
	r := devtest.Registry(t, devtest.RegistryOptions{User: "pinion", Password: "s3cret-word"})
	repository := r.Host + "/acme/web"
	digests := map[string]string{}
	for _, tag := range []string{"1.2.9", "1.2.10"} {
		digests[tag] = r.Push(t, "acme/web:"+tag, map[string]string{"tag": tag})
	}
	file := filepath.Join(t.TempDir(), "config.json")
	write := func(password string) {
		t.Helper()
		data, err := json.Marshal(map[string]any{"auths": map[string]any{"http://" + r.Host + "/v1/": map[string]any{"username": "pinion", "password": password}}})
		if err == nil {
			err = os.WriteFile(file, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var n counted
	c := registry.New(registry.Options{Allow: outbound.Any(), Credentials: registry.Credentials{File: file}, Count: n.count})
	t.Cleanup(c.Close)

	write("wrong-word")
	_, err := c.Tags(t.Context(), repository)
	if err == nil || !strings.Contains(err.Error(), "401 Unauthorized") || !strings.Contains(err.Error(), "registry.credentialsFile") || strings.Contains(err.Error(), "-word") {
		t.Errorf("with a wrong password: %v", err)
	}
	write("s3cret-word")
	tags, err := c.Tags(t.Context(), repository)
	if slices.Sort(tags); err != nil || !slices.Equal(tags, []string{"1.2.10", "1.2.9"}) {
		t.Fatalf("the tags are %q, %v", tags, err)
	}
	before := n.of(registry.Unchanged)
	for range 2 {
		d, err := c.Head(t.Context(), repository, "1.2.10")
		if err != nil || d.Digest != digests["1.2.10"] || !strings.Contains(d.MediaType, "manifest") {
			t.Errorf("1.2.10 is %+v, %v; want %s", d, err, digests["1.2.10"])
		}
	}
	if n.of(registry.Unchanged) != before+1 {
		t.Errorf("asked again, the registry was not asked by the entity tag: %v", n.n)
	}
	m, err := c.Manifest(t.Context(), repository, digests["1.2.9"])
	if err != nil || m.Digest != digests["1.2.9"] {
		t.Fatalf("the manifest is %+v, %v", m, err)
	}
	parsed, err := v1.ParseManifest(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	config := parsed.Config.Digest.String()
	data, err := c.Blob(t.Context(), repository, config, 1<<20)
	if err != nil || !strings.Contains(string(data), `"tag":"1.2.9"`) {
		t.Errorf("the configuration is %s, %v", data, err)
	}
	if _, err := c.Blob(t.Context(), repository, config, 10); err == nil || !strings.Contains(err.Error(), "more than 10 bytes") {
		t.Errorf("a blob that is too large: %v", err)
	}
	if all, err := c.Referrers(t.Context(), repository, digests["1.2.9"]); err != nil || len(all) != 0 {
		t.Errorf("what refers to it is %v, %v", all, err)
	}
	for what, err := range map[string]error{"tag": second(c.Head(t.Context(), repository, "9.9.9")), "repository": second(c.Tags(t.Context(), r.Host+"/acme/none"))} {
		if !registry.NotFound(err) {
			t.Errorf("a %s that is not there: %v", what, err)
		}
	}
	// The file counts when the registry asks anew, not before.
	write("wrong-word")
	if _, err := c.Tags(t.Context(), repository); err != nil {
		t.Errorf("the password that is still right was forgotten: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// fake is a registry that does as the test says.
func fake(t testing.TB, handle func(w http.ResponseWriter, r *http.Request)) (repository string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		handle(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://") + "/acme/web"
}

func TestRegistriesThatLie(t *testing.T) {
	t.Parallel()
	const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	tags := func(c *registry.Client, repository string) error { return second(c.Tags(t.Context(), repository)) }
	manifest := func(c *registry.Client, repository string) error {
		return second(c.Manifest(t.Context(), repository, digest))
	}
	blob := func(c *registry.Client, repository string) error {
		return second(c.Blob(t.Context(), repository, digest, 1<<20))
	}
	for name, x := range map[string]struct {
		handle func(w http.ResponseWriter, r *http.Request)
		ask    func(c *registry.Client, repository string) error
		want   string
	}{
		"endless pages": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", fmt.Sprintf(`</v2/acme/web/tags/list?last=%s>; rel="next"`, r.URL.Query().Get("last")+"a"))
			fmt.Fprint(w, `{"tags":["1.2.3"]}`)
		}, tags, "more than 200 pages"},
		"pages that lead back": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `</v2/acme/web/tags/list?last=a>; rel="next"`)
			fmt.Fprint(w, `{"tags":["1.2.3"]}`)
		}, tags, "pages that lead back"},
		"a page elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<http://localhost:1/v2/acme/web/tags/list?last=a>; rel="next"`)
			fmt.Fprint(w, `{"tags":["1.2.3"]}`)
		}, tags, "does not match"},
		"a page without end": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"tags":["`)
			for range 6 << 10 {
				if _, err := w.Write(bytes.Repeat([]byte("a"), 1<<10)); err != nil {
					return
				}
			}
		}, tags, "more than 4194304 bytes"},
		"no JSON": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }, tags, "not that of a registry"},
		"a redirect loop": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, tags, "more than 5 redirects"},
		"a redirect to the metadata address": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusTemporaryRedirect)
		}, blob, "169.254.169.254"},
		"a redirect to plain HTTP": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.example/blob?signature=hidden", http.StatusTemporaryRedirect)
		}, blob, "plain HTTP is not spoken to elsewhere.example"},
		"a redirect to a host that is not listed": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/blob?signature=hidden", http.StatusTemporaryRedirect)
		}, blob, "elsewhere.example is not asked"},
		"a manifest of another digest": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Content-Digest", digest)
			fmt.Fprint(w, `{}`)
		}, manifest, "does not match requested digest"},
		"a manifest of the first version": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
			w.Header().Set("Docker-Content-Digest", digest)
			fmt.Fprint(w, `{}`)
		}, manifest, "which does not match"},
		"a blob of another digest": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{}`) }, blob, "verif"},
		"a giant manifest": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "104857600")
			w.Write([]byte("{"))
		}, manifest, "the answer has 104857600 bytes"},
		"too many requests": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		}, tags, "asked too often"},
		"an error of many lines": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{"code": "DENIED", "message": "no\nmore\x1b[2J" + strings.Repeat("x", 1000)}}})
		}, tags, "403 Forbidden: no more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository := fake(t, x.handle)
			host, _, _ := strings.Cut(repository, "/")
			allow, err := outbound.ParseAllow([]string{host, "169.254.169.254"})
			if err != nil {
				t.Fatal(err)
			}
			c := registry.New(registry.Options{Allow: allow, Rate: 1000})
			t.Cleanup(c.Close)
			err = x.ask(c, repository)
			if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "hidden") || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 700 {
				t.Errorf("%v; want %s", err, x.want)
			}
		})
	}
}

// Where a registry says that tokens are to be had is asked only if it may be.
func TestTokensThatAreElsewhere(t *testing.T) {
	t.Parallel()
	for realm, want := range map[string]string{
		"http://169.254.169.254/latest/token": "169.254.169.254",
		"http://elsewhere.example/token":      "plain HTTP is not spoken to elsewhere.example",
		"https://elsewhere.example/token":     "elsewhere.example is not asked",
		"https://127.0.0.2:1/token":           "127.0.0.2",
		"http://127.0.0.1.elsewhere.example/": "elsewhere.example",
		"file:///etc/passwd":                  "",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s?key=hidden",service="test"`, realm))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		t.Cleanup(s.Close)
		host := strings.TrimPrefix(s.URL, "http://")
		allow, err := outbound.ParseAllow([]string{"127.0.0.1", "169.254.169.254"})
		if err != nil {
			t.Fatal(err)
		}
		c := registry.New(registry.Options{Allow: allow, Rate: 1000})
		t.Cleanup(c.Close)
		if _, err := c.Tags(t.Context(), host+"/acme/web"); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", realm, err)
		}
	}
}

// A host that wants to be left alone is not asked before its time, whatever the
// question is, and others go on.
func TestBusyHostIsLeftAlone(t *testing.T) {
	t.Parallel()
	asked := 0
	repository := fake(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	other := fake(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"tags":["1.2.3"]}`) })
	c := registry.New(registry.Options{Allow: outbound.Any()})
	t.Cleanup(c.Close)
	for _, err := range []error{second(c.Tags(t.Context(), repository)), second(c.Head(t.Context(), repository, "1.2.3"))} {
		busy, ok := errors.AsType[*registry.BusyError](err)
		if !ok || time.Until(busy.Until) < time.Minute || time.Until(busy.Until) > 2*time.Minute {
			t.Errorf("it is %v", err)
		}
	}
	if asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
	if tags, err := c.Tags(t.Context(), other); err != nil || len(tags) != 1 {
		t.Errorf("another one: %v, %v", tags, err)
	}
}

// Basic credentials are exchanged for a token, and neither is told to anybody
// else, nor in an error.
func TestTokens(t *testing.T) {
	t.Parallel()
	var elsewhere []http.Header
	blobs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { elsewhere = append(elsewhere, r.Header) }))
	t.Cleanup(blobs.Close)
	var host string
	var mu sync.Mutex
	valid := "first"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/token":
			if user, password, _ := r.BasicAuth(); user != "pinion" || password != "s3cret-word" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(w, `{"token":%q}`, valid)
		case r.Header.Get("Authorization") != "Bearer "+valid:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, host))
			w.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, strings.Replace(blobs.URL, "127.0.0.1", "localhost", 1), http.StatusTemporaryRedirect)
		default:
			fmt.Fprint(w, `{"tags":["1.2.3"]}`)
		}
	}))
	t.Cleanup(s.Close)
	host = strings.TrimPrefix(s.URL, "http://")
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"auths":{%q:{"auth":"cGluaW9uOnMzY3JldC13b3Jk"}}}`, host), 0o600); err != nil {
		t.Fatal(err)
	}
	c := registry.New(registry.Options{Allow: outbound.Any(), Credentials: registry.Credentials{File: file}})
	t.Cleanup(c.Close)
	for _, token := range []string{"first", "second"} {
		mu.Lock()
		valid = token
		mu.Unlock()
		if tags, err := c.Tags(t.Context(), host+"/acme/web"); err != nil || len(tags) != 1 {
			t.Errorf("with the %s token: %v, %v", token, tags, err)
		}
	}
	c.Blob(t.Context(), host+"/acme/web", "sha256:"+strings.Repeat("a", 64), 100)
	if len(elsewhere) == 0 {
		t.Error("the redirect was not followed")
	}
	for _, h := range elsewhere {
		if h.Get("Authorization") != "" {
			t.Errorf("another host was told %q", h.Get("Authorization"))
		}
	}
}

func TestPlainHTTPOnlyWhereListed(t *testing.T) {
	t.Parallel()
	for _, repository := range []string{"registry.invalid:5000/acme/web", "10.255.255.1:1/acme/web"} {
		c := registry.New(registry.Options{Allow: outbound.Allow{}})
		if _, err := c.Tags(t.Context(), repository); err == nil || !strings.Contains(err.Error(), "outbound.allow") && !strings.Contains(err.Error(), "plain HTTP") {
			t.Errorf("%s: %v", repository, err)
		}
		c.Close()
	}
}
