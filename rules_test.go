// Package pinion_test holds the rules of the tree that a compiler does not
// check: who may import whom, where the clock and the outside world may be
// touched, and what each package has to say of itself.
package pinion_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pinion-cd/pinion"

// mayImport says, for each package of the product, which others it may import.
// The rows are in the order of the flow: a package imports only what stands
// above it, and nobody imports a command.
var mayImport = map[string][]string{
	"artifact":           {},
	"artifact/signature": {},
	"desired":            {"artifact", "artifact/signature"},
	"render/sops":        {},
	"render":             {"desired", "render/sops"},
	"outbound":           {},
	"render/worker":      {"desired", "outbound", "render", "render/sops"},
	"ledger":             {"desired"},
	"expression":         {"desired"},
	"policy":             {"artifact", "desired", "expression", "ledger"},
	"audit":              {"artifact", "desired", "ledger", "policy"},
	"forge":              {"desired", "ledger", "policy"},
	"forge/rest":         {"forge"},
	"gitstate":           {"desired"},
	"registry":           {"outbound"},
	"registry/agenda":    {},
	"registry/watch":     {"artifact", "artifact/signature", "desired", "registry", "registry/agenda"},
	"notify":             {"desired", "ledger"},
	"notify/deliver":     {"desired", "ledger", "gitstate", "outbound", "notify"},
	"reconcile/health":   {"desired", "expression"},
	"reconcile/cluster":  {"desired", "render", "reconcile/health"},
	"reconcile/check":    {"desired", "ledger", "policy", "render", "outbound", "reconcile/cluster"},
	"reconcile/trigger":  {"desired", "ledger", "notify", "outbound"},
	"reconcile":          {"artifact", "desired", "render", "render/worker", "ledger", "policy", "gitstate", "notify", "reconcile/health", "reconcile/cluster", "reconcile/check", "reconcile/trigger"},
	"trace":              {"ledger", "reconcile"},
	"dora":               {"desired", "ledger"},
	"history":            {"artifact", "desired", "dora", "ledger", "policy", "gitstate", "reconcile"},
	"proposal":           {"desired", "ledger", "policy", "gitstate", "reconcile", "history"},
	"api":                {"artifact", "desired", "ledger", "policy", "gitstate", "reconcile", "history", "proposal"},
	"forge/envoy":        {"desired", "ledger", "policy", "gitstate", "reconcile", "forge", "forge/rest"},
	// The command wires all together.
	"cmd/pinion": {
		"artifact",
		"desired",
		"forge",
		"forge/rest",
		"forge/envoy",
		"render",
		"render/sops",
		"render/worker",
		"ledger",
		"policy",
		"audit",
		"gitstate",
		"outbound",
		"registry",
		"registry/watch",
		"notify",
		"notify/deliver",
		"reconcile",
		"reconcile/health",
		"reconcile/cluster",
		"reconcile/check",
		"reconcile/trigger",
		"history",
		"proposal",
		"api",
		"trace",
		"dora",
		"internal/grace",
	},

	// It has to be initialised before what it is good for.
	"internal/grace": {},

	// For tests, demonstrations and measurements.
	"internal/devtest": {},
	"internal/bench":   {"artifact", "desired", "render", "ledger", "internal/devtest"},
	"examples/demo":    {},
}

// edges are the modules with which the world outside is reached, and the only
// packages that may import them.
var edges = map[string][]string{
	"k8s.io/client-go":                {"reconcile/cluster", "cmd/pinion", "internal/devtest", "internal/bench", "examples/demo"},
	"github.com/go-git/go-git":        {"gitstate"},
	"github.com/google/go-jsonnet":    {"render"},
	"filippo.io/age":                  {"render/sops"},
	"sigs.k8s.io/kustomize/api":       {"render"},
	"github.com/spf13/cobra":          {"cmd/pinion"},
	"github.com/prometheus":           {"cmd/pinion"},
	"github.com/fsnotify/fsnotify":    {"gitstate"},
	"github.com/coreos/go-oidc":       {"api"},
	"github.com/fluxcd/cli-utils":     {"reconcile/health"},
	"k8s.io/apiextensions-apiserver":  {"reconcile/cluster"},
	"github.com/google/jsonschema-go": {"internal/devtest"},
	"go.opentelemetry.io/otel":        {"cmd/pinion"},

	"github.com/google/go-containerregistry/pkg/v1":    {"registry", "internal/devtest", "internal/bench"},
	"github.com/google/go-containerregistry/pkg/authn": {"registry", "internal/devtest"},
}

// core are the packages, and in reconcile the files, that decide: they are told
// what they need to know, and touch nothing.
var (
	core = []string{
		"artifact",
		"artifact/signature",
		"desired",
		"forge",
		"render",
		"render/sops",
		"ledger",
		"expression",
		"policy",
		"audit",
		"dora",
		"registry/agenda",
		"notify",
		"reconcile/health",
		"trace",
	}
	coreReconcile = []string{"plan.go", "prune.go", "bounds.go", "next.go", "target.go", "event.go"}
)

// outside are the packages of the standard library that touch something, that
// answer differently each time, or that say something to somebody.
var outside = []string{
	"os", "os/exec", "os/signal", "os/user", "syscall", "net", "net/http", "io/ioutil", "plugin",
	"log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "golang.org/x/sys", "k8s.io/klog/v2",
}

// clock, disk and speech are the functions that do so in packages which are
// otherwise harmless.
var (
	clock  = []string{"time.Now", "time.Since", "time.Until", "time.After", "time.AfterFunc", "time.Tick", "time.NewTimer", "time.NewTicker", "time.Sleep", "time.LoadLocation"}
	disk   = []string{"path/filepath.Abs", "path/filepath.EvalSymlinks", "path/filepath.Glob", "path/filepath.Walk", "path/filepath.WalkDir"}
	speech = []string{"fmt.Print", "fmt.Printf", "fmt.Println"}
)

// mayWait are the tests that may sleep, each with its reason.
var mayWait = map[string]string{
	"render/worker/confine_linux_test.go": "keeps threads alive while others are made",
	"render/worker/bad_test.go":           "looks again until a process of the system has ended",
}

// file is a Go file of the tree.
type file struct {
	*ast.File
	path string // from the root
	dir  string
	test bool
	fset *token.FileSet
}

func (f file) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(p).Line)
}

// imports returns the paths that a file imports, and where.
func (f file) imports() map[string]string {
	paths := map[string]string{}
	for _, s := range f.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err == nil {
			paths[p] = f.at(s.Pos())
		}
	}
	return paths
}

// uses returns where a file names one of the given things of a package, as in
// "time.Now", whatever name it has imported the package under.
func (f file) uses(things []string) map[string]string {
	names := map[string]string{}
	for _, s := range f.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if s.Name != nil {
			name = s.Name.Name
		}
		names[name] = p
	}
	used := map[string]string{}
	ast.Inspect(f.File, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(things, names[x.Name]+"."+s.Sel.Name) {
				used[names[x.Name]+"."+s.Sel.Name] = f.at(s.Pos())
			}
		}
		return true
	})
	return used
}

// files returns all Go files of the tree, or, without others, those of the
// product's module.
func files(t *testing.T, others bool) []file {
	t.Helper()
	var all []file
	err := filepath.WalkDir(".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			_, modErr := os.Stat(filepath.Join(name, "go.mod"))
			switch base := e.Name(); {
			case name == ".":
			case base[0] == '.' || base[0] == '_' || base == "testdata" || base == "bin", modErr == nil && !others:
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		all = append(all, file{parsed, name, path.Dir(name), strings.HasSuffix(name, "_test.go"), fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found only %d Go files: is this the root of the tree?", len(all))
	}
	return all
}

// inModule tells whether an import path is of a module or below it, or of a
// later major version of it.
func inModule(path, module string) bool {
	return path == module || strings.HasPrefix(path, module+"/")
}

func TestImportsRunOneWay(t *testing.T) {
	for _, f := range files(t, false) {
		allowed, known := mayImport[f.dir]
		if !known && !f.test {
			t.Errorf("%s: the package %s is not in the table of who may import whom; add it", f.path, f.dir)
			continue
		}
		for p, at := range f.imports() {
			ours, ok := strings.CutPrefix(p, module+"/")
			switch {
			case p == module || ok && strings.HasPrefix(ours, "cmd/"):
				t.Errorf("%s: nobody may import %s", at, p)
			case !ok || f.test || slices.Contains(allowed, ours):
			default:
				t.Errorf("%s: %s may not import %s, only %v", at, f.dir, ours, allowed)
			}
		}
	}
	// The table itself runs one way.
	var visit func(name string, behind []string)
	visit = func(name string, behind []string) {
		if slices.Contains(behind, name) {
			t.Fatalf("the table of who may import whom has a circle: %v", append(behind, name))
		}
		for _, next := range mayImport[name] {
			visit(next, append(behind, name))
		}
	}
	for name := range mayImport {
		visit(name, nil)
	}
}

func TestTheOutsideIsReachedFromOnePlace(t *testing.T) {
	for _, f := range files(t, false) {
		if f.test {
			continue
		}
		for p, at := range f.imports() {
			for module, packages := range edges {
				if inModule(p, module) && !slices.Contains(packages, f.dir) {
					t.Errorf("%s: only %v may import %s", at, packages, module)
				}
			}
		}
	}
}

func TestTheCoreTouchesNothing(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range files(t, false) {
		name := path.Base(f.path)
		inCore := slices.Contains(core, f.dir) || f.dir == "reconcile" && slices.Contains(coreReconcile, name)
		if f.test || !inCore {
			continue
		}
		seen[f.dir], seen[f.path] = true, true
		for p, at := range f.imports() {
			if i := slices.IndexFunc(outside, func(o string) bool { return p == o || strings.Contains(o, ".") && inModule(p, o) }); i >= 0 {
				t.Errorf("%s: the core may not import %s; let who calls it bring what it needs", at, p)
			}
		}
		for thing, at := range f.uses(slices.Concat(clock, disk, speech)) {
			t.Errorf("%s: the core may not call %s; let who calls it bring the time and the files, and say what there is to say", at, thing)
		}
	}
	for _, name := range coreReconcile {
		if !seen["reconcile/"+name] {
			t.Errorf("there is no reconcile/%s; the list of the core's files is out of date", name)
		}
	}
	for _, dir := range []string{"desired", "render", "ledger"} {
		if !seen[dir] {
			t.Errorf("the core has no package %s", dir)
		}
	}
}

// A package's comment is its design. It is in doc.go, or in the file that has
// the package's name, such as a command's main.go.
func TestEachPackageHasOneComment(t *testing.T) {
	comments := map[string][]string{}
	for _, f := range files(t, true) {
		if f.test {
			continue
		}
		comments[f.dir] = slices.Grow(comments[f.dir], 1) // known, even if it has none
		if f.Doc == nil {
			continue
		}
		comments[f.dir] = append(comments[f.dir], f.path)
		want := "Package " + f.Name.Name + " "
		if f.Name.Name == "main" {
			want = "Command " + path.Base(f.dir) + " "
		}
		if !strings.HasPrefix(f.Doc.Text(), want) {
			t.Errorf("%s: the package's comment begins with %q, not with %q", f.path, strings.SplitN(f.Doc.Text(), "\n", 2)[0], want)
		}
		if base := path.Base(f.path); base != "doc.go" && base != f.Name.Name+".go" {
			t.Errorf("%s: the package's comment belongs into doc.go or %s.go", f.path, f.Name.Name)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(comments)) {
		if n := len(comments[dir]); n != 1 {
			t.Errorf("%s has %d package comments, not 1: %v", dir, n, comments[dir])
		}
	}
}

func TestNoTestSleeps(t *testing.T) {
	slept := map[string]bool{}
	for _, f := range files(t, true) {
		if !f.test {
			continue
		}
		for thing, at := range f.uses([]string{"time.Sleep"}) {
			slept[f.path] = true
			if mayWait[f.path] == "" {
				t.Errorf("%s: a test may not call %s; poll for what it waits for, or use testing/synctest", at, thing)
			}
		}
	}
	for name := range mayWait {
		if !slept[name] {
			t.Errorf("%s does not sleep any more; take it off the list", name)
		}
	}
}

// `go install …@latest` refuses a module that replaces another.
func TestNothingIsReplaced(t *testing.T) {
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(data), "\n") {
		if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word == "replace" || word == "exclude" {
			t.Errorf("go.mod:%d: %s: not in the product's module", i+1, line)
		}
	}
}
