package desired_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/desired"
)

const (
	environmentHead = "apiVersion: pinion.dev/v1\nkind: Environment\n"
	serviceHead     = "apiVersion: pinion.dev/v1\nkind: Service\n"
)

// tree returns the files of a case.
func tree(t testing.TB, name string) fstest.MapFS {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	files := make(fstest.MapFS)
	for _, f := range txtar.Parse(data).Files {
		files[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	return files
}

// counted counts what is opened of a tree.
type counted struct {
	desired.Tree
	opened, listed []string
}

func (c *counted) Open(name string) (fs.File, error) {
	c.opened = append(c.opened, name)
	return c.Tree.Open(name)
}

func (c *counted) ReadDir(name string) ([]fs.DirEntry, error) {
	c.listed = append(c.listed, name)
	return fs.ReadDir(c.Tree, name)
}

func TestReadTakesOver(t *testing.T) {
	files := tree(t, "shop")
	step := func(previous *desired.Repository, opened, listed []string) *desired.Repository {
		t.Helper()
		c := &counted{Tree: desired.Hashed(files)}
		r, err := desired.Read(c, previous)
		if err != nil {
			t.Fatal(err)
		}
		if opened != nil && !slices.Equal(c.opened, opened) {
			t.Errorf("opened %q, want %q", c.opened, opened)
		}
		if listed != nil && !slices.Equal(c.listed, listed) {
			t.Errorf("listed %q, want %q", c.listed, listed)
		}
		fresh := read(t, files)
		if diff := cmp.Diff(deployments(fresh), deployments(r)); diff != "" {
			t.Errorf("not as read afresh: -fresh +got\n%s", diff)
		}
		if diff := cmp.Diff(fresh.Problems, r.Problems); diff != "" {
			t.Errorf("not as read afresh: -fresh +got\n%s", diff)
		}
		for _, what := range []struct{ fresh, got any }{
			{fresh.Environments, r.Environments}, {fresh.Services, r.Services}, {fresh.Pipelines, r.Pipelines}, {fresh.Policies, r.Policies}, {fresh.Holds, r.Holds},
		} {
			if diff := cmp.Diff(what.fresh, what.got); diff != "" {
				t.Errorf("not as read afresh: -fresh +got\n%s", diff)
			}
		}
		return r
	}
	first := step(nil, nil, nil)
	same := step(first, []string{}, []string{"."})

	edit := func(name, from, to string) {
		t.Helper()
		text := string(files[name].Data)
		if !strings.Contains(text, from) {
			t.Fatalf("%s has no %q", name, from)
		}
		files[name] = &fstest.MapFile{Data: []byte(strings.Replace(text, from, to, 1))}
	}
	edit("services/web/main.jsonnet", "{}", "[]")
	manifest := step(same, []string{}, []string{".", "services", "services/web"})
	edit("environments/dev.yaml", "web:1.4.3", "web:1.4.4")
	pinned := step(manifest, []string{"environments/dev.yaml"}, []string{".", "environments"})
	edit("services/web/service.yaml", "dependsOn: [db, api]", "dependsOn: [bd]")
	dangling := step(pinned, []string{"services/web/service.yaml"}, nil)
	edit("policies/job.yaml", "smoke-job.yaml", "nope.yaml")
	broken := step(dangling, []string{"policies/job.yaml"}, nil)
	if first.Pipelines["default"].Stages[1].Problems != nil || broken.Pipelines["default"].Stages[1].Problems == nil {
		t.Error("a stage's problems are those of another commit")
	}
	if first.Environments["staging"] != broken.Environments["staging"] {
		t.Error("an unchanged environment was built again")
	}
	files["Environments/x.yaml"] = &fstest.MapFile{Data: []byte("x\n")}
	step(broken, []string{}, []string{"."})
	delete(files, "Environments/x.yaml")
	delete(files, "services/db/service.yaml")
	step(broken, []string{}, nil)
	delete(files, "environments/dev.yaml")
	delete(files, "environments/staging.yaml")
	delete(files, "environments/README.md")
	step(broken, []string{}, nil)
}

// Whatever a commit holds, reading it after another one gives the same as
// reading it alone.
func TestReadAfterAnything(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	var cases []string
	matches, _ := filepath.Glob("testdata/*.txtar")
	for _, m := range matches {
		cases = append(cases, strings.TrimSuffix(filepath.Base(m), ".txtar"))
	}
	var previous *desired.Repository
	for range 200 {
		files := tree(t, cases[random.Intn(len(cases))])
		for name, f := range tree(t, cases[random.Intn(len(cases))]) {
			if random.Intn(2) == 0 {
				files[name] = f
			}
		}
		got, err := desired.Read(desired.Hashed(files), previous)
		if err != nil {
			t.Fatal(err)
		}
		fresh := read(t, files)
		if !reflect.DeepEqual(got.Problems, fresh.Problems) {
			t.Fatal(cmp.Diff(fresh.Problems, got.Problems))
		}
		if deployments(got) != deployments(fresh) {
			t.Fatal(cmp.Diff(deployments(fresh), deployments(got)))
		}
		previous = got
	}
}

// One bad file never makes the rest vanish, and never takes away what was there.
func TestOneBadFile(t *testing.T) {
	whole := tree(t, "shop")
	all := read(t, whole).Deployments()
	for name := range whole {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for _, bad := range []string{"", "a: [\n", "apiVersion: pinion.dev/v1\n", "unknown: key\n" + string(whole[name].Data), string(whole[name].Data) + "\nx: y\n"} {
			files := tree(t, "shop")
			files[name] = &fstest.MapFile{Data: []byte(bad)}
			r := read(t, files)
			// It is there, or its file is the bad one; it is never gone.
			for _, d := range all {
				env, svc := d.Environment.Name, d.Service.Name
				if gone, why := r.Gone(env, svc); gone {
					t.Errorf("%s is %q: %s is gone from %s: %s", name, bad, svc, env, why)
				}
				_, ok := r.Deployment(env, svc)
				its := name == d.Environment.File || name == d.Service.File
				if ok == its {
					t.Errorf("%s is %q: %s in %s: %v", name, bad, svc, env, ok)
				}
			}
			if name != "policies/smoke-job.yaml" && len(r.Problems) == 0 {
				t.Errorf("%s is %q: no problem", name, bad)
			}
		}
	}
}

func TestReadBytes(t *testing.T) {
	good := environmentHead + "namespace: shop\n"
	for _, c := range []struct{ name, data, want string }{
		{"crlf", strings.ReplaceAll(good, "\n", "\r\n"), ""},
		{"byte order mark", "\ufeff" + good, ""},
		{"byte order mark and a fault", "\ufeffnothing: x\n" + good, `environments/dev.yaml:1:1: the key "nothing" is not known; known are apiVersion, kind, cluster, namespace, serviceAccount, parameters, pins, drift, ignore, suspend, notify, manifests`},
		{"nul", good + "cluster: a\x00b\n", "environments/dev.yaml:4:11: the file holds a NUL byte: it is not text; save it as UTF-8"},
		{"latin-1", good + "# \xe9t\xe9\n", "environments/dev.yaml:4:3: the byte 0xe9 is not UTF-8; save the file as UTF-8"},
		{"utf-16", "\xff\xfea\x00", "environments/dev.yaml:1:1: the file is UTF-16, not UTF-8; save it as UTF-8"},
		{"control", good + "cluster: a\x01b\n", "environments/dev.yaml:4:11: not valid YAML: control characters are not allowed"},
		{"columns count characters", good + "parameters: {ž: [日本, .nan]}\n", `environments/dev.yaml:4:22: parameters.ž[1]: .nan is not a number that JSON knows; quote it: ".nan"`},
		{"as large as may be", good + "#" + strings.Repeat("x", 1<<20-len(good)-1), ""},
		{"too large", good + "#" + strings.Repeat("x", 1<<20-len(good)), "environments/dev.yaml: the file has 1048577 bytes, more than 1048576; move what does not belong here to files of the manifests"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := read(t, fstest.MapFS{"environments/dev.yaml": {Data: []byte(c.data)}})
			got := ""
			for _, p := range r.Problems {
				got += p.Error()
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if (r.Environments["dev"] != nil) != (c.want == "") || len(r.Broken(desired.KindEnvironment, "dev")) == 0 != (c.want == "") {
				t.Error("it is not broken as it should be")
			}
		})
	}
}

// unread is a file that says it is large and can't be read.
type unread struct{ fs.File }

func (u unread) Read([]byte) (int, error) { return 0, errDisk }

type unreadTree struct{ desired.Tree }

func (u unreadTree) Open(name string) (fs.File, error) {
	f, err := u.Tree.Open(name)
	return unread{f}, err
}

func (u unreadTree) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(u.Tree, name) }

func TestLargeIsNotRead(t *testing.T) {
	files := fstest.MapFS{"environments/dev.yaml": {Data: make([]byte, 1<<20+1)}}
	r, err := desired.Read(unreadTree{desired.Hashed(files)}, nil)
	if err != nil || len(r.Problems) != 1 || len(r.Broken(desired.KindEnvironment, "dev")) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// Of a pin that is there twice, neither counts.
func TestPinnedTwice(t *testing.T) {
	r := read(t, fstest.MapFS{
		"environments/dev.yaml":     {Data: []byte(environmentHead + "namespace: a\npins:\n  web: {image: \"web:1\"}\n  web: {image: \"web:2\"}\n")},
		"services/web/service.yaml": {Data: []byte(serviceHead)},
	})
	d, ok := r.Deployment("dev", "web")
	if !ok || len(d.Pins) != 0 || len(d.Problems) != 1 || len(d.Environment.Pins) != 0 {
		t.Errorf("got %+v", d)
	}
}

// An alias bomb is refused before anything is expanded, and so is a file of
// nothing but faults.
func TestReadHostile(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'z'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 10))
	}
	var keys strings.Builder
	keys.WriteString(environmentHead + "namespace: shop\n")
	for i := range 50_000 {
		fmt.Fprintf(&keys, "key%d: x\n", i)
	}
	for name, data := range map[string]string{
		"bomb":   bomb,
		"keys":   keys.String(),
		"braces": strings.Repeat("[", 500_000),
		"nested": strings.Repeat("{a: ", 20_000),
		"dashes": strings.Repeat("- ", 200_000),
		"quotes": strings.Repeat("? ", 200_000),
	} {
		r := read(t, fstest.MapFS{"environments/dev.yaml": {Data: []byte(data)}})
		if n := len(r.Problems); n == 0 || n > 50 {
			t.Errorf("%s: %d problems", name, n)
		}
	}
}

// modes is a tree with entries that are neither files nor folders.
type modes struct {
	desired.Tree
	of map[string]fs.FileMode
}

type modeEntry struct {
	fs.DirEntry
	mode fs.FileMode
}

func (e modeEntry) Type() fs.FileMode { return e.mode }
func (e modeEntry) IsDir() bool       { return e.mode.IsDir() }

func (m modes) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(m.Tree, name)
	for i, e := range entries {
		if mode, ok := m.of[strings.TrimPrefix(name+"/"+e.Name(), "./")]; ok {
			entries[i] = modeEntry{e, mode}
		}
	}
	return entries, err
}

func (m modes) Open(name string) (fs.File, error) {
	if _, ok := m.of[name]; ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("this must not be opened")}
	}
	return m.Tree.Open(name)
}

func TestLinksAndSubmodules(t *testing.T) {
	files := fstest.MapFS{
		"environments/dev.yaml":  {Data: []byte(environmentHead + "namespace: shop\n")},
		"environments/prod.yaml": {Data: []byte("dev.yaml")},
		"environments/link":      {Data: []byte("x")},
		"services/api/x":         {Data: []byte("x")},
		"services/web/service.yaml": {
			Data: []byte("../../x"),
		},
		"services/lib": {Data: []byte("x")},
		"pipelines":    {Data: []byte("../x")},
	}
	r, err := desired.Read(modes{desired.Hashed(files), map[string]fs.FileMode{
		"environments/prod.yaml":    fs.ModeSymlink,
		"environments/link":         fs.ModeSymlink,
		"services/api":              fs.ModeDir | fs.ModeIrregular,
		"services/web/service.yaml": fs.ModeSymlink,
		"services/lib":              fs.ModeSymlink,
		"pipelines":                 fs.ModeSymlink,
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range r.Problems {
		got = append(got, p.Error())
	}
	want := []string{
		"environments/link: this is a symbolic link, not a file; put a file itself here",
		"environments/prod.yaml: this is a symbolic link, not a file; put a file itself here",
		"pipelines: this is a symbolic link, not a folder; put the files themselves here",
		"services/api: this is a submodule, not a folder; put a folder itself here",
		"services/lib: this is a symbolic link, not a folder; put a folder itself here",
		"services/web/service.yaml: this is a symbolic link, not a file; put the file itself here",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, at := range []struct{ env, svc string }{{"prod", "x"}, {"dev", "api"}, {"dev", "web"}, {"dev", "lib"}} {
		if gone, why := r.Gone(desired.EnvironmentName(at.env), desired.ServiceName(at.svc)); gone {
			t.Errorf("%s is gone from %s: %s", at.svc, at.env, why)
		}
	}
	if r.Environments["dev"] == nil {
		t.Error("the sound environment is not there")
	}
}

// unreadable is a tree that fails at one place.
type unreadable struct {
	desired.Tree
	at string
}

var errDisk = errors.New("disk on fire")

func (u unreadable) Open(name string) (fs.File, error) {
	if name == u.at {
		return nil, errDisk
	}
	return u.Tree.Open(name)
}

func (u unreadable) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == u.at {
		return nil, errDisk
	}
	return fs.ReadDir(u.Tree, name)
}

func (u unreadable) ID(name string) (string, error) {
	if name == u.at {
		return "", errDisk
	}
	return u.Tree.ID(name)
}

// What could not be read is an error, and never "not there".
func TestUnreadable(t *testing.T) {
	files := tree(t, "shop")
	for _, at := range []string{".", "environments", "environments/dev.yaml", "services", "services/web", "services/web/service.yaml", "policies/job.yaml", "policies/smoke-job.yaml"} {
		if r, err := desired.Read(unreadable{desired.Hashed(files), at}, nil); !errors.Is(err, errDisk) || r != nil {
			t.Errorf("%s: got %v and the error %v", at, r, err)
		}
	}
	for _, at := range []string{"services/web", "services/web/service.yaml"} {
		if _, _, err := desired.ReadService(unreadable{desired.Hashed(files), at}, "web"); !errors.Is(err, errDisk) {
			t.Errorf("%s: got the error %v", at, err)
		}
	}
}

func TestReadService(t *testing.T) {
	files := tree(t, "shop")
	c := &counted{Tree: desired.Hashed(files)}
	s, problems, err := desired.ReadService(c, "web")
	if err != nil || len(problems) > 0 || s == nil || s.FolderIn("dev") != "services/web/overlays/dev" || len(c.opened) != 1 {
		t.Errorf("got %+v, %v, %v; opened %q", s, problems, err, c.opened)
	}
	if diff := cmp.Diff(read(t, files).Services["web"], s); diff != "" {
		t.Errorf("not as Read reads it\n%s", diff)
	}
	for _, name := range []desired.ServiceName{"nope", "../x", "", "Web"} {
		s, problems, err := desired.ReadService(desired.Hashed(files), name)
		if err != nil || s != nil || len(problems) != 1 {
			t.Errorf("%s: got %+v, %v, %v", name, s, problems, err)
		}
	}
	files["services/file"] = &fstest.MapFile{Data: []byte("x\n")}
	for _, odd := range []fstest.MapFS{files, {"services": {Data: []byte("x")}}, {}} {
		if s, problems, err := desired.ReadService(desired.Hashed(odd), "file"); err != nil || s != nil || len(problems) != 1 {
			t.Errorf("a file in place of a folder: got %+v, %v, %v", s, problems, err)
		}
	}
	files["services/web/service.yaml"] = &fstest.MapFile{Data: []byte(serviceHead + "x: y\n")}
	s, problems, err = desired.ReadService(desired.Hashed(files), "web")
	if err != nil || s != nil || len(problems) != 1 || problems[0].Line != 3 {
		t.Errorf("broken: got %+v, %v, %v", s, problems, err)
	}
}

func TestReadEnvironment(t *testing.T) {
	files := tree(t, "shop")
	e, problems, err := desired.ReadEnvironment(desired.Hashed(files), "dev")
	if err != nil || len(problems) > 0 || e == nil {
		t.Errorf("got %+v, %v, %v", e, problems, err)
	}
	if diff := cmp.Diff(read(t, files).Environments["dev"], e); diff != "" {
		t.Errorf("not as Read reads it\n%s", diff)
	}
	if _, _, err := desired.ReadEnvironment(unreadable{desired.Hashed(files), "environments/dev.yaml"}, "dev"); !errors.Is(err, errDisk) {
		t.Errorf("unreadable: the error %v", err)
	}
	for _, odd := range []fstest.MapFS{{}, {"environments/dev.yaml/x": {Data: []byte("x")}}, {"environments/dev.yaml": {Data: []byte("x: y\n")}}} {
		if e, problems, err := desired.ReadEnvironment(desired.Hashed(odd), "dev"); err != nil || e != nil || len(problems) == 0 {
			t.Errorf("%v: got %+v, %v, %v", odd, e, problems, err)
		}
	}
}

// The IDs are those that git gives.
func TestHashedAsGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git")
	}
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", ".")
	for name, data := range map[string]string{"a.txt": "a", "a/b/c.yaml": "c\r\n", "a0": "", "a.d/x": "x", "bin/run": "#!/bin/sh\n"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Chmod(filepath.Join(dir, "bin/run"), 0o755),
		os.Symlink("../a", filepath.Join(dir, "bin/link")),
		os.MkdirAll(filepath.Join(dir, "empty/er"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	git("-c", "core.autocrlf=false", "add", "-A")
	root := git("write-tree")
	h := desired.Hashed(os.DirFS(dir))
	if id, err := h.ID("."); err != nil || id != root {
		t.Errorf("the root: got %s, %v; git has %s", id, err, root)
	}
	for _, name := range []string{"a.txt", "a", "a/b/c.yaml", "a0", "bin", "bin/run", "bin/link"} {
		want := git("rev-parse", root+":"+name)
		if id, err := h.ID(name); err != nil || id != want {
			t.Errorf("%s: got %s, %v; git has %s", name, id, err, want)
		}
	}
	for _, name := range []string{"nope", ".git", ".git/HEAD", "empty", "a/nope/x", "bin/link/b"} {
		if id, err := h.ID(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %q, %v", name, id, err)
		}
	}
	for _, name := range []string{"bin/link", "bin/link/b/c.yaml", ".git/HEAD", "../x"} {
		if f, err := h.Open(name); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	if entries, err := fs.ReadDir(h, "."); err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == ".git" }) {
		t.Errorf("got %v, %v", entries, err)
	}
}
