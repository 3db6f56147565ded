package desired

import (
	"bytes"
	"crypto/sha1" // git's object ids are made with it
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
)

// Hashed returns a Tree over any file system, for tests and for the files of a
// working tree. An ID is that of the git object with the same content, found
// when it is asked for and remembered: a file that changes later is not
// noticed, so a new reading takes a new Tree.
//
// What git would not take in is left out: .git at any depth, and for the IDs
// empty folders. A .gitignore is not looked at. A symbolic link is listed, and
// neither it nor what lies behind it can be opened.
func Hashed(fsys fs.FS) Tree {
	return &hashed{fsys: fsys, ids: make(map[string]gitObject), lists: make(map[string][]fs.DirEntry)}
}

type hashed struct {
	fsys fs.FS

	mu    sync.Mutex // guards what follows; held while reading, so that nothing is hashed twice
	ids   map[string]gitObject
	lists map[string][]fs.DirEntry
}

type gitObject struct {
	sum  [sha1.Size]byte
	mode string // as git writes it in a tree
	none bool   // an empty folder: git has no such thing
}

// Open implements fs.FS.
func (h *hashed) Open(name string) (fs.File, error) {
	if err := h.reach("open", name, false); err != nil {
		return nil, err
	}
	f, err := h.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ReadDir implements fs.ReadDirFS.
func (h *hashed) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := h.reach("readdir", name, false); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	entries, err := h.list(name)
	return slices.Clone(entries), err
}

// ID implements Tree.
func (h *hashed) ID(name string) (string, error) {
	if err := h.reach("id", name, true); err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	o, err := h.object(name)
	if err != nil {
		return "", err
	}
	if o.none && name != "." {
		return "", &fs.PathError{Op: "id", Path: name, Err: fs.ErrNotExist}
	}
	return hex.EncodeToString(o.sum[:]), nil
}

// reach refuses names that lead through a link or into .git. The last element
// may be a link if that is allowed: it has an ID.
func (h *hashed) reach(op, name string, link bool) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return nil
	}
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if part == ".git" {
			return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		info, err := fs.Lstat(h.fsys, strings.Join(parts[:i+1], "/"))
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink == 0 || link && i == len(parts)-1 {
			continue
		}
		if i < len(parts)-1 {
			return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} // as git sees it
		}
		return &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("symbolic link: %w", fs.ErrInvalid)}
	}
	return nil
}

func (h *hashed) list(name string) ([]fs.DirEntry, error) {
	if entries, ok := h.lists[name]; ok {
		return entries, nil
	}
	entries, err := fs.ReadDir(h.fsys, name)
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == ".git" })
	h.lists[name] = entries
	return entries, nil
}

func (h *hashed) object(name string) (gitObject, error) {
	if o, ok := h.ids[name]; ok {
		return o, nil
	}
	info, err := fs.Lstat(h.fsys, name)
	if err != nil {
		return gitObject{}, err
	}
	var o gitObject
	switch mode := info.Mode(); {
	case mode.IsDir():
		o, err = h.tree(name)
	case mode&fs.ModeSymlink != 0:
		var target string
		if target, err = fs.ReadLink(h.fsys, name); err == nil {
			o = hashObject("blob", []byte(target), "120000")
		}
	case mode.IsRegular():
		var data []byte
		if data, err = fs.ReadFile(h.fsys, name); err == nil {
			o = hashObject("blob", data, "100644")
			if mode&0o100 != 0 {
				o.mode = "100755"
			}
		}
	default:
		o.none = true // a socket, a device: git has no such thing
	}
	if err != nil {
		return gitObject{}, err
	}
	h.ids[name] = o
	return o, nil
}

// tree hashes a folder as git does: the entries are sorted as if the names of
// folders ended in a slash. See gitformat-pack and git's tree.c.
func (h *hashed) tree(name string) (gitObject, error) {
	entries, err := h.list(name)
	if err != nil {
		return gitObject{}, err
	}
	type line struct{ key, text string }
	lines := make([]line, 0, len(entries))
	for _, e := range entries {
		o, err := h.object(path.Join(name, e.Name()))
		if err != nil {
			return gitObject{}, err
		}
		if o.none {
			continue
		}
		key := e.Name()
		if o.mode == "40000" {
			key += "/"
		}
		lines = append(lines, line{key, o.mode + " " + e.Name() + "\x00" + string(o.sum[:])})
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.key, b.key) })
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l.text)
	}
	o := hashObject("tree", b.Bytes(), "40000")
	o.none = len(lines) == 0
	return o, nil
}

func hashObject(kind string, data []byte, mode string) gitObject {
	s := sha1.New()
	fmt.Fprintf(s, "%s %d\x00", kind, len(data))
	_, _ = io.Copy(s, bytes.NewReader(data)) // a hash takes everything
	o := gitObject{mode: mode}
	s.Sum(o.sum[:0])
	return o
}
