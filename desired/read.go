package desired

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// folder is what was read of one folder: environments/, services/, ….
type folder struct {
	id       string // "" if the folder is not there
	files    map[string]*file
	problems []Problem // of what lies in it and is no file to read
	around   []Problem // of what lies beside it; its id says nothing of that
}

// file is what was read of one file, by itself. It does not change any more.
type file struct {
	name     string // the stem, or the name of the service's folder
	path     string
	id       string // of the file
	within   string // of the service's folder
	problems []Problem
	broken   bool
	raw      any // *environmentFile, …; nil if broken
	value    any // *Environment, …; nil if broken
}

// Read reads the files of a commit. What is wrong in them is in the
// Repository's Problems; the error says that the tree could not be read.
//
// A file that previous, which may be nil, has read with the same ID is taken
// over without being opened, and so is a folder that is the same as a whole.
func Read(tree Tree, previous *Repository) (*Repository, error) {
	rd := reader{tree: tree}
	r := &Repository{folders: make(map[Kind]*folder)}
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		return nil, fmt.Errorf("read the tree: %w", err)
	}
	for _, kind := range folders {
		var before *folder
		if previous != nil {
			before = previous.folders[kind.kind]
		}
		f, err := rd.folder(kind.kind, kind.name, entries, before)
		if err != nil {
			return nil, err
		}
		r.folders[kind.kind] = f
	}
	if err := r.link(tree); err != nil {
		return nil, err
	}
	return r, nil
}

// ReadService reads the file of one service alone, as a commit has it. If it
// is not there or not sound, the service is nil and the problems say why.
func ReadService(tree Tree, name ServiceName) (*Service, []Problem, error) {
	if message, hint := checkLabel(string(name)); message != "" {
		return nil, []Problem{{SeverityError, Position{File: "services"}, message, hint, KindService, string(name)}}, nil
	}
	rd := reader{tree: tree}
	none := func(message, hint string) (*Service, []Problem, error) {
		return nil, []Problem{{SeverityError, Position{File: "services/" + string(name)}, message, hint, KindService, string(name)}}, nil
	}
	for _, at := range []struct{ dir, name string }{{".", "services"}, {"services", string(name)}} {
		entries, err := fs.ReadDir(tree, at.dir)
		if err != nil {
			return nil, nil, fmt.Errorf("read service %s: %w", name, err)
		}
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == at.name })
		if i < 0 {
			return none(fmt.Sprintf("there is no service %s", name), "")
		}
		if mode := entries[i].Type(); !mode.IsDir() || mode&fs.ModeIrregular != 0 {
			return none(fmt.Sprintf("%s is %s, not a folder", path.Join(at.dir, at.name), describeMode(mode)), "")
		}
	}
	f, err := rd.service(string(name), nil)
	if err != nil {
		return nil, nil, err
	}
	s, _ := f.value.(*Service)
	return s, sorted(slices.Clone(f.problems)), nil
}

// ReadEnvironment reads the file of one environment alone, as a commit has it. If
// it is not there or not sound, the environment is nil and the problems say why.
func ReadEnvironment(tree Tree, name EnvironmentName) (*Environment, []Problem, error) {
	rd := reader{tree: tree}
	at := path.Join("environments", string(name)+".yaml")
	info, err := fs.Stat(tree, at)
	if err == nil && !info.Mode().IsRegular() || errors.Is(err, fs.ErrNotExist) {
		return nil, []Problem{{SeverityError, Position{File: at}, fmt.Sprintf("there is no environment %s", name), "", KindEnvironment, string(name)}}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read environment %s: %w", name, err)
	}
	f, err := rd.file(KindEnvironment, string(name), at, nil)
	if err != nil {
		return nil, nil, err
	}
	e, _ := f.value.(*Environment)
	return e, sorted(slices.Clone(f.problems)), nil
}

// reader reads files from a tree.
type reader struct{ tree Tree }

func (rd reader) folder(kind Kind, dir string, root []fs.DirEntry, before *folder) (*folder, error) {
	f := &folder{files: make(map[string]*file)}
	fail := func(file, name, message, hint string) {
		f.problems = append(f.problems, Problem{SeverityError, Position{File: file}, message, hint, kind, name})
	}
	beside := func(severity Severity, file, message, hint string) {
		f.around = append(f.around, Problem{severity, Position{File: file}, message, hint, kind, ""})
	}
	found := false
	for _, e := range root {
		switch {
		case e.Name() == dir && e.IsDir():
			found = true
		case e.Name() == dir:
			beside(SeverityError, dir, "this is "+describeMode(e.Type())+", not a folder", "put the files themselves here")
		case strings.EqualFold(e.Name(), dir) && e.IsDir():
			beside(SeverityError, e.Name(), fmt.Sprintf("the folder differs from %s in case only, and is not read", dir), "rename it to "+dir)
		}
	}
	if !found {
		for _, e := range root {
			if e.IsDir() && nearest(e.Name(), []string{dir}) != "" && !strings.EqualFold(e.Name(), dir) {
				beside(SeverityWarning, e.Name(), "this folder is not read", "did you mean "+dir+"?")
			}
		}
		return f, nil
	}
	id, err := rd.tree.ID(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil // an empty folder of a working tree; git has no such thing
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	if before != nil && before.id == id {
		same := *before
		same.around = f.around
		return &same, nil
	}
	f.id = id
	entries, err := fs.ReadDir(rd.tree, dir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	if before == nil {
		before = &folder{}
	}
	lower := make(map[string]string, len(entries)) // of what is in the right case
	for _, e := range entries {
		if low := strings.ToLower(e.Name()); low == e.Name() {
			lower[low] = e.Name()
		}
	}
	for _, e := range entries {
		name, ext := stem(e)
		at := path.Join(dir, e.Name())
		yaml := ext == ".yaml" || ext == ".yml"
		if kind == KindKey {
			yaml = ext == ".pub"
		}
		read := yaml && kind != KindService || e.IsDir() && kind == KindService
		irregular := !e.IsDir() && !e.Type().IsRegular() || e.Type()&fs.ModeIrregular != 0
		switch {
		case strings.HasPrefix(e.Name(), "."):
			continue // an editor's or a tool's
		case irregular && strings.EqualFold(name, "git~1"), irregular && strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' || r == utf8.RuneError }):
			fail(at, name, "the name is not one that every system takes", "rename it: "+labelHint)
			continue
		case irregular && (read || yaml || ext == ""):
			fail(at, name, "this is "+describeMode(e.Type())+", not "+whatBelongs(kind), "put "+whatBelongs(kind)+" itself here")
			continue
		case kind == KindService && yaml && !e.IsDir():
			fail(at, "", "a YAML file directly in services/ is not read", "a service is a folder: move it to "+path.Join(dir, name, "service.yaml"))
			continue
		case kind != KindService && e.IsDir():
			if kind != KindPolicy && kind != KindKey { // where the manifests of jobs may lie, or keys for something else
				fail(at, "", "a folder in "+dir+"/ is not read", "move its files up into "+dir+"/")
			}
			continue
		case !read:
			continue
		case kind != KindService && kind != KindKey && !strings.HasSuffix(e.Name(), ".yaml"):
			fail(at, name, "the file's name does not end in .yaml, and it is not read", "rename it to "+name+".yaml")
			continue
		}
		if message, hint := checkLabel(name); message != "" {
			if other, ok := lower[strings.ToLower(e.Name())]; ok && other != e.Name() {
				message, hint = fmt.Sprintf("%s and %s differ in case only", e.Name(), other), "remove or rename this one: "+labelHint
			}
			fail(at, name, message, hint)
			continue
		}
		var x *file
		if kind == KindService {
			x, err = rd.service(name, before.files[name])
		} else {
			x, err = rd.file(kind, name, at, before.files[name])
		}
		if err != nil {
			return nil, err
		}
		f.files[name] = x
	}
	return f, nil
}

// stem returns an entry's name without its extension, and the extension in
// lower case. A folder has none.
func stem(e fs.DirEntry) (name, ext string) {
	if e.IsDir() {
		return e.Name(), ""
	}
	ext = path.Ext(e.Name())
	return strings.TrimSuffix(e.Name(), ext), strings.ToLower(ext)
}

func whatBelongs(kind Kind) string {
	if kind == KindService {
		return "a folder"
	}
	return "a file"
}

func describeMode(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeIrregular != 0:
		return "a submodule"
	case m.IsDir():
		return "a folder"
	case m.IsRegular():
		return "a file"
	}
	return "neither a file nor a folder"
}

// service reads services/NAME/service.yaml.
func (rd reader) service(name string, before *file) (*file, error) {
	dir := path.Join("services", name)
	within, err := rd.tree.ID(dir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	if before != nil && before.within == within {
		return before, nil
	}
	entries, err := fs.ReadDir(rd.tree, dir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	const want = "service.yaml"
	at := path.Join(dir, want)
	none := func(where, message, hint string) (*file, error) {
		return &file{name: name, path: at, within: within, broken: true,
			problems: []Problem{{SeverityError, Position{File: where}, message, hint, KindService, name}}}, nil
	}
	for _, e := range entries {
		if e.Name() != want {
			continue
		}
		if !e.Type().IsRegular() {
			return none(at, "this is "+describeMode(e.Type())+", not a file", "put the file itself here")
		}
		f, err := rd.file(KindService, name, at, before)
		if err != nil {
			return nil, err
		}
		if f.within != within {
			same := *f
			same.within = within
			f = &same
		}
		return f, nil
	}
	for _, e := range entries {
		if low := strings.ToLower(e.Name()); low == want || low == "service.yml" {
			return none(path.Join(dir, e.Name()), "this file is not read", "rename it to "+want)
		}
	}
	return none(dir, "the folder has no "+want, "add one, or move the folder out of services/")
}

// file reads one file, or takes it over.
func (rd reader) file(kind Kind, name, at string, before *file) (*file, error) {
	id, err := rd.tree.ID(at)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	if before != nil && before.id == id && before.path == at {
		return before, nil
	}
	f := &file{name: name, path: at, id: id}
	data, tooLong, err := rd.bytes(at)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	if tooLong != nil {
		f.broken = true
		f.problems = []Problem{{SeverityError, Position{File: at}, tooLong.message, tooLong.hint, kind, name}}
		return f, nil
	}
	if kind == KindKey {
		f.key(data)
		return f, nil
	}
	f.parse(kind, data)
	return f, nil
}

// bytes returns the content of a file, unless it is too long.
func (rd reader) bytes(at string) ([]byte, *fault, error) {
	f, err := rd.tree.Open(at)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() > maxSize {
		return nil, tooLarge(info.Size()), nil
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxSize {
		return nil, tooLarge(int64(len(data))), nil
	}
	return data, nil, nil
}

// parse fills in all but the name, the path and the ids.
func (f *file) parse(kind Kind, data []byte) {
	d := &decoder{file: f.path, kind: kind, name: f.name, data: data}
	root, bad := parse(data)
	if bad != nil {
		d.failAt(Position{f.path, bad.line, bad.column}, bad.message, bad.hint)
	} else if d.header(root) {
		f.raw = newFile(kind)
		d.decode(root, f.raw, field{}, "")
		f.value = d.build(f.raw)
	}
	f.problems = d.problems
	if f.broken = d.broken; f.broken {
		f.raw, f.value = nil, nil
	}
	slices.SortFunc(f.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
