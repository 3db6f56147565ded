package render

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/pinion-cd/pinion/desired"
)

// Read is one thing that a rendering looked at: a file or a listed folder
// with its git object id, or, with an empty ID, a path where nothing was.
type Read struct {
	Path string `json:"path"`
	ID   string `json:"id,omitempty"`
}

// Recorder is a Tree that remembers what was asked of it. It reads each file
// once, and keeps the first failure: a file that could not be read must not
// pass for one that is not there. It serves one goroutine.
type Recorder struct {
	tree    desired.Tree
	ids     map[string]string // by path; "" is absent
	files   map[string][]byte
	folders map[string]bool // seen to be folders, not listed
	err     error
	// decrypt, if it is set, makes of a file's content what is read.
	decrypt func(name string, data []byte) ([]byte, error)
}

// Record returns a Recorder that reads from tree.
func Record(tree desired.Tree) *Recorder {
	return &Recorder{
		tree:    tree,
		ids:     map[string]string{},
		files:   map[string][]byte{},
		folders: map[string]bool{},
	}
}

// Err returns the first failure that was not a file's absence. It is an
// *Error if the file's author can mend it (a link, a file too large).
func (r *Recorder) Err() error { return r.err }

// Open reads the whole file.
func (r *Recorder) Open(name string) (fs.File, error) {
	data, err := r.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return memoryFile(name, data), nil
}

// ReadFile returns the content of a file, which the caller must not change.
func (r *Recorder) ReadFile(name string) ([]byte, error) {
	if data, ok := r.files[name]; ok {
		return data, nil
	}
	if r.known(name) {
		return nil, absent("open", name)
	}
	data, err := r.load(name)
	if err != nil {
		return nil, r.note("open", name, err)
	}
	if _, err := r.ID(name); err != nil {
		return nil, err
	}
	if r.decrypt != nil {
		if data, err = r.decrypt(name, data); err != nil {
			return nil, r.note("open", name, err)
		}
	}
	r.files[name] = data
	return data, nil
}

func (r *Recorder) load(name string) ([]byte, error) {
	f, err := r.tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, &Error{File: name, Message: "is a folder, where a file is needed"}
	case !info.Mode().IsRegular():
		return nil, linkError(name)
	case info.Size() > MaxFile:
		return nil, tooLarge(name)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		return nil, tooLarge(name)
	}
	return data, err
}

// ReadDir lists a folder, sorted by name.
func (r *Recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	if r.known(name) {
		return nil, absent("readdir", name)
	}
	entries, err := fs.ReadDir(r.tree, name)
	if err != nil {
		return nil, r.note("readdir", name, err)
	}
	if _, err := r.ID(name); err != nil {
		return nil, err
	}
	return entries, nil
}

// Stat says what is at name. A file counts as read; a folder does only if
// nothing below it is.
func (r *Recorder) Stat(name string) (fs.FileInfo, error) {
	if r.known(name) {
		return nil, absent("stat", name)
	}
	info, err := fs.Stat(r.tree, name)
	if err != nil {
		return nil, r.note("stat", name, err)
	}
	if info.IsDir() {
		r.folders[name] = true
		return info, nil
	}
	if !info.Mode().IsRegular() {
		return nil, r.note("stat", name, linkError(name))
	}
	if _, err := r.ID(name); err != nil {
		return nil, err
	}
	return info, nil
}

// ID returns the git object id of a file or folder, which counts as read.
func (r *Recorder) ID(name string) (string, error) {
	if id, ok := r.ids[name]; ok {
		if id == "" {
			return "", absent("id", name)
		}
		return id, nil
	}
	id, err := r.tree.ID(name)
	if err != nil {
		return "", r.note("id", name, err)
	}
	r.ids[name] = id
	return id, nil
}

// Reads returns all that was looked at, sorted by path.
func (r *Recorder) Reads() ([]Read, error) {
	reads := make([]Read, 0, len(r.ids))
	for name, id := range r.ids {
		reads = append(reads, Read{Path: name, ID: id})
	}
	slices.SortFunc(reads, func(a, b Read) int { return strings.Compare(a.Path, b.Path) })
	var bare []Read
	for name := range r.folders {
		if _, ok := r.ids[name]; ok || anyBelow(reads, name) {
			continue
		}
		id, err := r.tree.ID(name)
		if err != nil {
			return nil, r.note("id", name, err)
		}
		bare = append(bare, Read{Path: name, ID: id})
	}
	reads = append(reads, bare...)
	slices.SortFunc(reads, func(a, b Read) int { return strings.Compare(a.Path, b.Path) })
	return reads, nil
}

// anyBelow says whether something that exists was read below the folder, so
// that the folder can't go without that read changing.
func anyBelow(reads []Read, folder string) bool {
	prefix := folder + "/"
	if folder == "." {
		prefix = ""
	}
	i := sort.Search(len(reads), func(i int) bool { return reads[i].Path >= prefix })
	for ; i < len(reads) && strings.HasPrefix(reads[i].Path, prefix); i++ {
		if reads[i].ID != "" {
			return true
		}
	}
	return false
}

func (r *Recorder) known(name string) bool {
	id, ok := r.ids[name]
	return ok && id == ""
}

// note records an absence, or keeps a failure.
func (r *Recorder) note(op, name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		r.ids[name] = ""
		return absent(op, name)
	}
	if _, ok := errors.AsType[*Error](err); !ok {
		if link := linkIn(r.tree, name); link != "" {
			err = linkError(link)
		} else {
			err = fmt.Errorf("read %s: %w", name, err)
		}
	}
	if r.err == nil {
		r.err = err
	}
	return err
}

func absent(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func tooLarge(name string) *Error {
	return &Error{File: name, Message: fmt.Sprintf("is larger than %d MiB", MaxFile>>20), Hint: "split it"}
}

func linkError(name string) *Error {
	if odd := func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' }; strings.ContainsFunc(name, odd) || !utf8.ValidString(name) {
		return &Error{File: name, Message: "has a name that not every system takes", Hint: "rename it, without control characters and backslashes"}
	}
	return &Error{File: name, Message: "is a symbolic link or a submodule, which Pinion does not follow", Hint: "put the files themselves there"}
}

// linkIn returns the first part of a path that is a link or a submodule, or
// "". It is only asked when something went wrong.
func linkIn(tree desired.Tree, name string) string {
	dir := "."
	for part := range strings.SplitSeq(name, "/") {
		entries, err := fs.ReadDir(tree, dir)
		if err != nil {
			return ""
		}
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == part })
		if i < 0 {
			return ""
		}
		dir = path.Join(dir, part)
		if mode := entries[i].Type(); !mode.IsRegular() && !mode.IsDir() {
			return dir
		}
	}
	return ""
}
