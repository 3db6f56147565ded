package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func credentials(t testing.TB, data string, helpers ...string) Credentials {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return Credentials{File: file, Helpers: helpers}
}

func TestCredentials(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths":{"nobody.example":{"auth":"YTpi"}}}`) // which is nobody's business
	for helper, script := range map[string]string{
		"good":  `read -r s; echo "{\"Username\":\"<token>\",\"Secret\":\"of $s\"}"`,
		"none":  `echo credentials not found in native keychain; exit 1`,
		"bad":   `echo '{"Secret": hidden'`,
		"fails": `echo hidden; echo hidden >&2; exit 3`,
		"large": `exec head -c 2000000 /dev/zero`,
	} {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+helper), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c := credentials(t, `{
		"auths": {
			"https://index.docker.io/v1/": {"auth": "aHViOm9uZQ=="},
			"ghcr.io": {"username": "cat", "password": "two"},
			"GHCR.io/acme": {"username": "acme", "password": "three"},
			"ghcr.io/empty": {}
		},
		"credHelpers": {"a.example": "good", "b.example": "none", "c.example": "bad", "d.example": "fails", "e.example": "large", "f.example": "unlisted", "g.example": "../x"},
		"unknown": [1]
	}`, "good", "none", "bad", "fails", "large", "../x")
	for repository, want := range map[string]string{
		"nginx":                    "hub one  ",
		"docker.io/acme/web":       "hub one  ",
		"ghcr.io/other/web":        "cat two  ",
		"ghcr.io/empty":            "cat two  ",
		"ghcr.io/acme/web/deep":    "acme three  ",
		"nobody.example/web":       "   ",
		"a.example/web":            "  of a.example ",
		"b.example/web":            "   ",
		"c.example/web":            "not what a credential helper says",
		"d.example/web":            "exit status 3",
		"e.example/web":            "docker-credential-large get: ",
		"f.example/web":            "add unlisted to registry.helpers",
		"g.example/web":            "names a credential helper that can't be one",
		"ghcr.io.evil.example/web": "   ",
	} {
		repo, err := name.NewRepository(repository)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		auth, err := c.ResolveContext(t.Context(), repo)
		if err == nil {
			var a *authn.AuthConfig
			if a, err = auth.Authorization(); err == nil {
				got = strings.Join([]string{a.Username, a.Password, a.IdentityToken, a.RegistryToken}, " ")
			}
		}
		if err != nil {
			got = err.Error()
		}
		if strings.Contains(got, "hidden") || got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: %q, want %q", repository, got, want)
		}
	}
	for data, want := range map[string]string{
		`{"auths": {"a": {"auth": "hidden*"}}}`: "is not a config.json",
		`[`:                                     "is not a config.json",
		`{"credsStore": "desktop"}`:             "add desktop to registry.helpers",
		strings.Repeat(" ", maxCredentials+1):   "has more than",
	} {
		if err := credentials(t, data).Check(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%.40s: %v, want %s", data, err, want)
		}
	}
	if err := (Credentials{}).Check(); err != nil {
		t.Error(err)
	}
	if err := (Credentials{File: filepath.Join(bin, "none")}).Check(); err == nil {
		t.Error("a file that is not there is fine")
	}
}

func FuzzCredentialKey(f *testing.F) {
	for _, s := range []string{"https://index.docker.io/v1/", "ghcr.io/acme", "", "http://", "a/v1/v2", "[::1]:5000/v2/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		credentialKey(s)
		repo, err := name.NewRepository(s)
		if err != nil {
			return
		}
		host := strings.ToLower(repo.RegistryStr())
		for _, written := range []string{host, "https://" + host + "/v1/", "http://" + host + "/v2", host + "/"} {
			if key := credentialKey(written); key != host && !strings.HasSuffix(host, "docker.io") {
				t.Fatalf("%q is the key %q, and the host is %q", written, key, host)
			}
		}
	})
}
