package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-jsonnet"
	"github.com/google/go-jsonnet/ast"
)

// machine is a Jsonnet VM with its importer. The VM keeps the parsed form of
// what was imported, by path; the importer sees to it that the path still has
// the same content.
type machine struct {
	vm       *jsonnet.VM
	importer *importer
}

func newMachine() *machine {
	m := &machine{vm: jsonnet.MakeVM(), importer: &importer{kept: map[string]imported{}}}
	m.vm.Importer(m.importer)
	for _, f := range natives() {
		m.vm.NativeFunction(f)
	}
	return m
}

// jsonnet evaluates main, whose content is data, and finds the objects in
// what comes out.
func (b *Renderer) jsonnet(rec *Recorder, req Request, main string, data []byte) ([]source, []string, error) {
	at := place{file: main}
	if i := invalidUTF8(data); i >= 0 {
		at.line, at.column = position(data, i)
		return nil, nil, at.errorf("save it as UTF-8", "is not UTF-8 text")
	}
	node, err := jsonnet.SnippetToAST(main, strings.TrimPrefix(string(data), "\ufeff"))
	if err != nil {
		return nil, nil, jsonnetError(main, err)
	}
	argument, err := canonical(req.argument())
	if err != nil {
		return nil, nil, at.errorf("", "the parameters can't be written as JSON: %v", err)
	}
	var out string
	var trace traceLog
	for {
		if b.vm == nil {
			b.vm = newMachine()
		}
		trace = traceLog{}
		b.vm.vm.SetTraceOut(&trace)
		b.vm.vm.ExtCode("pinion", string(argument)) // also forgets all values
		b.vm.vm.TLACode("pinion", string(argument))
		b.vm.importer.rec, b.vm.importer.stale = rec, false
		out, err = b.vm.vm.Evaluate(node)
		stale := b.vm.importer.stale
		b.vm.importer.rec = nil
		if err != nil {
			b.vm = nil // whatever state it was left in
		}
		if !stale {
			break
		}
	}
	if err != nil {
		return nil, nil, jsonnetError(main, err)
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.UseNumber()
	v, err := decodeJSON(d, 0)
	if err != nil {
		return nil, nil, at.errorf("", "the output %s", unexpectedEnd(err))
	}
	w := walker{}
	if err := w.walk(v, at, 0); err != nil {
		return nil, nil, err
	}
	if len(w.sources) == 0 {
		return nil, nil, at.errorf("", "the output holds no objects")
	}
	return w.sources, trace.lines(), nil
}

// walker finds objects at any depth, as Tanka does.
type walker struct{ sources []source }

func (w *walker) walk(v any, at place, depth int) error {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		for i, item := range v {
			below := at
			below.path += fmt.Sprintf("[%d]", i)
			if err := w.walk(item, below, depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		_, hasVersion := v["apiVersion"].(string)
		_, hasKind := v["kind"].(string)
		if isList(v) {
			found, err := items([]source{{value: v, place: at}})
			w.sources = append(w.sources, found...)
			return err
		}
		if hasVersion || hasKind {
			if w.sources = append(w.sources, source{value: v, place: at}); len(w.sources) > MaxObjects {
				return tooMany(place{file: at.file})
			}
			return nil
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			below := at
			below.path += "." + key
			if !identifier.MatchString(key) {
				below.path = at.path + "[" + strconv.Quote(key) + "]"
			}
			if err := w.walk(v[key], below, depth+1); err != nil {
				return err
			}
		}
		return nil
	default:
		return at.errorf("an object needs apiVersion and kind; keep helpers in hidden fields (::)", "is %s, where a Kubernetes object is needed", kindOf(v))
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// importer reads imports from the tree: beside the importing file, then in
// lib/, then in vendor/, as Tanka orders them.
type importer struct {
	rec   *Recorder // of the rendering at hand
	kept  map[string]imported
	stale bool // a kept file has another content in this tree: the VM is spent
}

type imported struct {
	id       string
	contents jsonnet.Contents
}

var searchPath = []string{"lib", "vendor"}

// Import implements jsonnet.Importer.
func (i *importer) Import(from, name string) (jsonnet.Contents, string, error) {
	if i.stale {
		return jsonnet.Contents{}, "", errStale
	}
	if err := checkImport(from, name); err != nil {
		return jsonnet.Contents{}, "", err
	}
	for n, dir := range append([]string{path.Dir(from)}, searchPath...) {
		found := path.Join(dir, name)
		if n > 0 && (found == ".." || strings.HasPrefix(found, "../")) {
			continue
		}
		id, err := i.rec.ID(found)
		if isAbsent(err) {
			continue
		}
		if err != nil {
			return jsonnet.Contents{}, "", err
		}
		if kept, ok := i.kept[found]; ok {
			if kept.id != id {
				i.stale = true
				return jsonnet.Contents{}, "", errStale
			}
			return kept.contents, found, nil
		}
		data, err := i.rec.ReadFile(found)
		if err != nil {
			return jsonnet.Contents{}, "", err
		}
		contents := jsonnet.MakeContentsRaw(data)
		i.kept[found] = imported{id: id, contents: contents}
		return contents, found, nil
	}
	for _, dir := range append([]string{path.Dir(from)}, searchPath...) {
		if link := linkIn(i.rec.tree, path.Join(dir, name)); link != "" {
			return jsonnet.Contents{}, "", linkError(link)
		}
	}
	return jsonnet.Contents{}, "", fmt.Errorf("import %q: there is no such file beside %s, in lib/ or in vendor/", name, from)
}

var errStale = errors.New("an imported file has changed")

func checkImport(from, name string) error {
	switch {
	case strings.Contains(name, "://"):
		return fmt.Errorf("import %q: imports come from the repository's own files, never from the network", name)
	case strings.HasPrefix(name, "/"):
		return fmt.Errorf("import %q: an absolute path; imports come from the repository's own files", name)
	case name == "" || strings.ContainsAny(name, "\x00"):
		return fmt.Errorf("import %q: not a file's name", name)
	}
	if found := path.Join(path.Dir(from), name); found == ".." || strings.HasPrefix(found, "../") {
		return fmt.Errorf("import %q: leads out of the repository", name)
	}
	return nil
}

// located is what go-jsonnet's errors of parsing say about their place.
type located interface{ Loc() ast.LocationRange }

// place of an error within the text of another: "lib/a.libsonnet:3:7-9 ",
// "lib/a.libsonnet:(3:7)-(4:1) ".
var inText = regexp.MustCompile(`^(\S+?):\(?(\d+):(\d+)(?:\)-\(\d+:\d+\)|-\d+)? (.*)$`)

// jsonnetError finds the place of an error: where parsing stopped, or the
// innermost line of the stack that is a file's and not the standard library's.
func jsonnetError(main string, err error) error {
	at := place{file: main}
	text := err.Error()
	if static, ok := err.(located); ok {
		loc := static.Loc()
		at.line, at.column = loc.Begin.Line, loc.Begin.Column
		if loc.FileName != "" {
			at.file = loc.FileName
		}
		text = strings.TrimSpace(strings.TrimPrefix(text, loc.String()))
	}
	if runtime, ok := errors.AsType[jsonnet.RuntimeError](err); ok {
		text = runtime.Msg
		for _, frame := range slices.Backward(runtime.StackTrace) {
			if name := frame.Loc.FileName; frame.Loc.IsSet() && name != "" && !strings.HasPrefix(name, "<") {
				at.file, at.line, at.column = name, frame.Loc.Begin.Line, frame.Loc.Begin.Column
				break
			}
		}
	}
	first, _, _ := strings.Cut(text, "\n")
	if m := inText.FindStringSubmatch(first); m != nil {
		at.file = m[1]
		at.line, _ = strconv.Atoi(m[2])
		at.column, _ = strconv.Atoi(m[3])
		text = m[4]
	}
	if rest, ok := strings.CutPrefix(text, "(CRASH) "); ok {
		first, _, _ := strings.Cut(rest, "\n")
		text = "Jsonnet gave up: " + first
	}
	hint := ""
	switch {
	case strings.Contains(text, "has no parameter pinion"), strings.HasPrefix(text, "function has no parameter"):
		hint = "a function in main.jsonnet takes one argument, pinion"
	case strings.HasPrefix(text, "Undefined external variable"):
		hint = "the only external variable is pinion; values of your own go under parameters: in the environment's file"
	case text == "Unexpected type null, expected function":
		hint = "if it comes from std.native: that is null for a name that Pinion does not have"
	case strings.HasPrefix(text, "max stack frames exceeded"):
		hint = "look for a recursion that never ends"
	}
	return at.errorf(hint, "%s", strings.TrimSuffix(clip(text, 2000), "."))
}

// clip shortens a text that an author wrote, for an error to hold.
func clip(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// traceLog keeps the first lines that std.trace writes.
type traceLog struct{ text strings.Builder }

const maxTrace = 16 << 10

func (t *traceLog) Write(p []byte) (int, error) {
	if room := maxTrace - t.text.Len(); room > 0 {
		t.text.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (t *traceLog) lines() []string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(t.text.String()), "\n") {
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

var _ io.Writer = (*traceLog)(nil)
