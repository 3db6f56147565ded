package render

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/pinion-cd/pinion/desired"
)

// Result is a rendered service.
type Result struct {
	// Objects are sorted in the order in which they are to be applied.
	Objects []Object
	// Hooks are the Jobs with AnnotationHook, by when and by name. They are run,
	// and are not among the Objects.
	Hooks []Hook
	// Reads is all that the rendering looked at in the tree, sorted by path,
	// each path once.
	Reads []Read
	// Digest is "sha256:…" over the names and digests of all objects and hooks.
	Digest   string
	Warnings []string
	// Sealed: something that was read is encrypted, so the objects may hold what
	// is not to be kept.
	Sealed bool
}

// Same says whether a rendering from tree would give this very result. An
// error means that the tree could not be read.
func (r *Result) Same(tree desired.Tree) (bool, error) {
	for _, read := range r.Reads {
		id, err := tree.ID(read.Path)
		if errors.Is(err, fs.ErrNotExist) {
			id, err = "", nil
		}
		if err != nil {
			return false, fmt.Errorf("read %s: %w", read.Path, err)
		}
		if id != read.ID {
			return false, nil
		}
	}
	return true, nil
}

// Touched says whether a change of the given paths can change what was read.
// It asks no tree, and rather says yes too often: a path that was changed
// touches itself, each listed folder above it, and, for it may have been a
// file that became a folder or the other way round, all that lies below it.
func Touched(reads []Read, changed []string) bool { return MakeTouch(changed).Touches(reads) }

// Touch is a change of some paths, for many questions of [Touched].
type Touch struct {
	exact, above map[string]bool
}

// MakeTouch takes in the paths that were changed.
func MakeTouch(changed []string) Touch {
	t := Touch{make(map[string]bool, len(changed)), make(map[string]bool, len(changed)*2)}
	for _, name := range changed {
		name = path.Clean(name)
		t.exact[name] = true
		for ; name != "." && name != "/"; name = path.Dir(name) {
			t.above[name] = true
		}
		t.above["."] = true
	}
	return t
}

// Touches is [Touched].
func (t Touch) Touches(reads []Read) bool {
	if len(t.exact) == 0 {
		return false
	}
	for _, read := range reads {
		if t.above[read.Path] {
			return true
		}
		for name := path.Dir(read.Path); name != "." && name != "/"; name = path.Dir(name) {
			if t.exact[name] {
				return true
			}
		}
	}
	return t.exact["."]
}
