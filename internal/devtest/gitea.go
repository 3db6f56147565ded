package devtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// GiteaServer is a running Gitea. It sends nothing to anybody but the loopback
// interface.
type GiteaServer struct {
	URL   string
	Admin string // the access token of an administrator

	process
}

const giteaPassword = "of-a-test-1"

// Gitea starts an empty Gitea for one test, and its subtests, which ends with
// it. If the test fails, it has what the server said.
func Gitea(t testing.TB) *GiteaServer {
	t.Helper()
	binary, err := findGitea()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "app.ini")
	g := &GiteaServer{}
	gitea := func(args ...string) *exec.Cmd {
		cmd := exec.Command(binary, append([]string{"--config", config, "--work-path", dir}, args...)...)
		// It takes settings from the environment, too, and git its own.
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GITEA_") || strings.HasPrefix(v, "GIT_") })
		cmd.Dir = dir
		return cmd
	}
	t.Cleanup(func() {
		g.Kill()
		if said, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && t.Failed() {
			t.Logf("Gitea said:\n%s", said)
		}
		// A git that it had begun may still write.
		for end := time.Now().Add(ready); os.RemoveAll(dir) != nil && time.Now().Before(end); {
		}
	})
	if err := g.launch(dir, func(address string) (*exec.Cmd, error) {
		g.URL = "http://" + address
		return gitea("web"), os.WriteFile(config, []byte(giteaConfig(dir, address)), 0o600)
	}, func(ctx context.Context) error { return g.answers(ctx, dir) }); err != nil {
		t.Fatal(err)
	}
	out, err := gitea("admin", "user", "create", "--admin", "--username", "keeper", "--email", "keeper@localhost", "--password", giteaPassword,
		"--must-change-password=false", "--access-token", "--access-token-name", "test", "--access-token-scopes", "all").CombinedOutput()
	token := regexp.MustCompile(`\b[0-9a-f]{40}\b`).Find(out)
	if err != nil || token == nil {
		t.Fatalf("gitea admin user create: %v: %s", err, out)
	}
	g.Admin = string(token)
	g.Ask(t, g.Admin, http.MethodPost, "/orgs", map[string]any{"username": "shop"}, nil)
	return g
}

func giteaConfig(dir, address string) string {
	host, port, _ := strings.Cut(address, ":")
	return fmt.Sprintf(`APP_NAME = %[1]s
RUN_MODE = prod
WORK_PATH = %[1]s
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[server]
PROTOCOL = http
HTTP_ADDR = %[2]s
HTTP_PORT = %[3]s
ROOT_URL = http://%[2]s:%[3]s/
LOCAL_ROOT_URL = http://%[2]s:%[3]s/
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
PATH = %[1]s/gitea.db
SQLITE_JOURNAL_MODE = WAL
[security]
INSTALL_LOCK = true
SECRET_KEY = of a test
ALLOWED_HOST_LIST = loopback
[service]
DISABLE_REGISTRATION = true
[indexer]
ISSUE_INDEXER_TYPE = db
[actions]
ENABLED = false
[packages]
ENABLED = false
[cron.update_checker]
ENABLED = false
[log]
MODE = console
LEVEL = Info
`, dir, host, port)
}

// answers complains until ours answers at the address, which is known by its
// name.
func (g *GiteaServer) answers(ctx context.Context, dir string) error {
	status, answer, err := g.send(ctx, "", http.MethodGet, g.URL+"/api/healthz", nil)
	if err != nil {
		return err
	}
	var health struct{ Status, Description string }
	if err := json.Unmarshal(answer, &health); err != nil || health.Status != "pass" || health.Description != dir {
		return fmt.Errorf("the Gitea at %s answers %d: %.300s", g.URL, status, answer)
	}
	return nil
}

// User makes an account, and returns an access token of its own with these
// scopes.
func (g *GiteaServer) User(t testing.TB, login string, scopes ...string) (token string) {
	t.Helper()
	g.Ask(t, g.Admin, http.MethodPost, "/admin/users", map[string]any{"username": login, "email": login + "@shop.example", "password": giteaPassword, "must_change_password": false}, nil)
	return g.Token(t, login, scopes...)
}

// Token makes another access token of an account.
func (g *GiteaServer) Token(t testing.TB, login string, scopes ...string) string {
	t.Helper()
	var made struct{ SHA1 string }
	g.Ask(t, login+":"+giteaPassword, http.MethodPost, "/users/"+login+"/tokens", map[string]any{"name": strings.Join(scopes, " "), "scopes": scopes}, &made)
	return made.SHA1
}

// Repository makes a repository of the organisation shop, and returns its name,
// as shop/deploy. It is empty, or has a first commit on main; the users may
// write to it.
func (g *GiteaServer) Repository(t testing.TB, name string, empty bool, users ...string) string {
	t.Helper()
	g.Ask(t, g.Admin, http.MethodPost, "/orgs/shop/repos", map[string]any{"name": name, "auto_init": !empty, "default_branch": "main"}, nil)
	for _, user := range users {
		g.Ask(t, g.Admin, http.MethodPut, "/repos/shop/"+name+"/collaborators/"+user, map[string]any{"permission": "write"}, nil)
	}
	return "shop/" + name
}

// Remote is the address of a repository for git, for who has the token.
func (g *GiteaServer) Remote(repository, token string) string {
	return strings.Replace(g.URL, "://", "://token:"+token+"@", 1) + "/" + repository + ".git"
}

// Ask sends a request to the API with an access token, or with a name and a
// password between which there is a colon.
func (g *GiteaServer) Ask(t testing.TB, token, method, path string, body, into any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	status, answer, err := g.send(ctx, token, method, g.URL+"/api/v1"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if status/100 != 2 {
		t.Fatalf("%s %s: %d: %s", method, path, status, answer)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, answer)
		}
	}
}

func (g *GiteaServer) send(ctx context.Context, token, method, address string, body any) (status int, answer []byte, err error) {
	data, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(data))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if user, password, ok := strings.Cut(token, ":"); ok {
		r.SetBasicAuth(user, password)
	} else if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// findGitea returns the binary: $PINION_GITEA, that of the PATH, or bin/gitea
// beside the product's go.mod.
func findGitea() (string, error) {
	if path := os.Getenv("PINION_GITEA"); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("PINION_GITEA: %w", err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("gitea"); err == nil {
		return path, nil
	}
	root, err := module()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "gitea")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("bin/gitea is not there; build it with: make gitea; " +
			"or install Gitea 1.27 or later so that it is on the PATH, or set PINION_GITEA to the binary")
	}
	return path, nil
}
