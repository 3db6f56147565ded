package gitstate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// MaxFile is the size, in bytes, above which a file is not read.
const MaxFile = 10 << 20

// Snapshot is the tree of one commit, and never changes. Any number of
// goroutines may read it, also while its mirror fetches or is replaced.
//
// It is an fs.FS: names are as fs.ValidPath wants them. A symbolic link is an
// entry of the mode fs.ModeSymlink and a submodule one of fs.ModeIrregular, as
// is an entry with a name that some system could not keep apart from another;
// none of these can be opened, and that is an error other than fs.ErrNotExist.
// A file larger than [MaxFile] can't be opened either. Modification times are
// the committer's time.
type Snapshot struct {
	store *store
	id    plumbing.Hash
	root  plumbing.Hash
	when  time.Time
}

var (
	_ fs.ReadDirFS  = (*Snapshot)(nil)
	_ fs.ReadFileFS = (*Snapshot)(nil)
	_ fs.StatFS     = (*Snapshot)(nil)
)

func (s *store) snapshot(id string) (*Snapshot, error) {
	c, err := s.lookup(id)
	if err != nil {
		return nil, err
	}
	if _, err := s.tree(c.tree); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", id, s.harmed(err))
	}
	return &Snapshot{store: s, id: c.id, root: c.tree, when: time.Unix(c.when, 0).UTC()}, nil
}

// Commit is the id of the commit.
func (s *Snapshot) Commit() string { return s.id.String() }

// ID is the git object id of a file (a blob's) or a folder (a tree's).
func (s *Snapshot) ID(name string) (string, error) {
	e, err := s.find("identify", name)
	if err != nil {
		return "", err
	}
	return e.id.String(), nil
}

// find walks to an entry. That a name is not there is an fs.ErrNotExist; that
// one could not look is anything else.
func (s *Snapshot) find(op, name string) (entry, error) {
	fail := func(err error) (entry, error) { return entry{}, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at := entry{name: ".", mode: modeDir, id: s.root}
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if why := badName(part); why != "" {
			return fail(fmt.Errorf("%q %s: %w", part, why, fs.ErrInvalid))
		}
		switch at.mode {
		case modeDir:
		case modeSymlink, modeSubmodule:
			return fail(&KindError{fmt.Sprintf("%s is a %s, which is not followed", at.name, kind(at))})
		default:
			return fail(fs.ErrNotExist)
		}
		t, err := s.store.tree(at.id)
		if err != nil {
			return fail(s.store.harmed(err))
		}
		next, ok := t.find(part)
		if !ok {
			return fail(fs.ErrNotExist)
		}
		at = next
	}
	return at, nil
}

// KindError says that a name stands for something else than what is asked of it:
// a link, a submodule, or a folder for a file. Whoever made the commit can mend
// it, and nobody else.
type KindError struct{ reason string }

func (e *KindError) Error() string { return e.reason }

// Plain tells whether a name is that of a file which is no link and can't be run,
// as Pinion writes them.
func (s *Snapshot) Plain(name string) (bool, error) {
	e, err := s.find("identify", name)
	return e.mode == modeFile, err
}

func kind(e entry) string {
	switch e.mode {
	case modeDir:
		return "folder"
	case modeSymlink:
		return "symbolic link"
	case modeSubmodule:
		return "submodule"
	}
	return "file"
}

// Open opens a file or a folder.
func (s *Snapshot) Open(name string) (fs.File, error) {
	e, err := s.find("open", name)
	if err != nil {
		return nil, err
	}
	if e.mode == modeDir {
		list, err := s.ReadDir(name)
		if err != nil {
			return nil, err
		}
		return &openDir{info: info{e: e, when: s.when}, name: name, list: list}, nil
	}
	data, err := s.read("open", name, e)
	if err != nil {
		return nil, err
	}
	return &openFile{Reader: bytes.NewReader(data), info: info{e: e, size: int64(len(data)), when: s.when}}, nil
}

// ReadFile reads a file; the caller may keep and change the bytes.
func (s *Snapshot) ReadFile(name string) ([]byte, error) {
	e, err := s.find("read", name)
	if err != nil {
		return nil, err
	}
	return s.read("read", name, e)
}

func (s *Snapshot) read(op, name string, e entry) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, &fs.PathError{Op: op, Path: name, Err: err} }
	if e.mode != modeFile && e.mode != modeExecutable {
		return fail(&KindError{fmt.Sprintf("it is a %s, not a file", kind(e))})
	}
	size, err := s.store.size(e.id)
	if err != nil {
		return fail(s.store.harmed(err))
	}
	if size > MaxFile {
		return fail(fmt.Errorf("it has %d bytes, more than the %d that are read", size, MaxFile))
	}
	data, err := s.store.object(e.id, plumbing.BlobObject)
	if err != nil {
		return fail(s.store.harmed(err))
	}
	return data, nil
}

// ReadDir lists a folder, sorted by name.
func (s *Snapshot) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := s.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if e.mode != modeDir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: &KindError{fmt.Sprintf("it is a %s, not a folder", kind(e))}}
	}
	t, err := s.store.tree(e.id)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: s.store.harmed(err)}
	}
	list := make([]fs.DirEntry, len(t))
	for i, e := range t {
		list[i] = dirEntry{s, e}
	}
	return list, nil
}

// Stat describes a file, a folder, a link or a submodule; links are not
// followed.
func (s *Snapshot) Stat(name string) (fs.FileInfo, error) {
	e, err := s.find("stat", name)
	if err != nil {
		return nil, err
	}
	return s.stat(name, e)
}

func (s *Snapshot) stat(name string, e entry) (fs.FileInfo, error) {
	i := info{e: e, when: s.when}
	switch e.mode {
	case modeFile, modeExecutable, modeSymlink:
		size, err := s.store.size(e.id)
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: name, Err: s.store.harmed(err)}
		}
		i.size = size
	}
	return i, nil
}

// Changed lists the files (and links, and submodules) that are in only one of
// two snapshots, or differ in content or mode, sorted. It reads only the
// folders that differ. A folder that git's own tools would refuse as malformed
// counts as a file that differs.
func (s *Snapshot) Changed(other *Snapshot) ([]string, error) {
	var names []string
	if err := diff(s.store, other.store, s.root, other.root, ".", &names); err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", s.id, other.id, err)
	}
	slices.Sort(names)
	return names, nil
}

// diff compares two folders; the zero id stands for one that is not there.
func diff(sa, sb *store, a, b plumbing.Hash, dir string, names *[]string) error {
	if a == b {
		return nil
	}
	read := func(s *store, id plumbing.Hash) (tree, error) {
		if id.IsZero() {
			return nil, nil
		}
		t, err := s.tree(id)
		if errors.As(err, new(*malformed)) {
			// Nothing was ever read from it; one in the history must not stand
			// in the way of the commits after it.
			*names = append(*names, dir)
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, s.harmed(err))
		}
		return t, nil
	}
	ta, err := read(sa, a)
	if err != nil {
		return err
	}
	tb, err := read(sb, b)
	if err != nil {
		return err
	}
	var i, j int
	for i < len(ta) || j < len(tb) {
		var x, y entry
		switch {
		case j == len(tb) || i < len(ta) && ta[i].name < tb[j].name:
			x = ta[i]
			i++
		case i == len(ta) || tb[j].name < ta[i].name:
			y = tb[j]
			j++
		default:
			x, y = ta[i], tb[j]
			i++
			j++
		}
		if x.mode == y.mode && x.id == y.id {
			continue
		}
		name := path.Join(dir, x.name)
		if x.name == "" {
			name = path.Join(dir, y.name)
		}
		var da, db plumbing.Hash
		if x.mode == modeDir {
			da = x.id
		}
		if y.mode == modeDir {
			db = y.id
		}
		if x.mode != 0 && x.mode != modeDir || y.mode != 0 && y.mode != modeDir {
			*names = append(*names, name)
		}
		if err := diff(sa, sb, da, db, name, names); err != nil {
			return err
		}
	}
	return nil
}

type info struct {
	e    entry
	size int64
	when time.Time
}

func (i info) Name() string       { return i.e.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.e.fsMode() }
func (i info) ModTime() time.Time { return i.when }
func (i info) IsDir() bool        { return i.Mode().IsDir() }
func (i info) Sys() any           { return nil }

type dirEntry struct {
	s *Snapshot
	e entry
}

func (d dirEntry) Name() string               { return d.e.name }
func (d dirEntry) IsDir() bool                { return d.e.fsMode().IsDir() }
func (d dirEntry) Type() fs.FileMode          { return d.e.fsMode().Type() }
func (d dirEntry) Info() (fs.FileInfo, error) { return d.s.stat(d.e.name, d.e) }

type openFile struct {
	*bytes.Reader
	info info
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info info
	name string
	list []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("it is a folder")}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		list := d.list
		d.list = nil
		return list, nil
	}
	if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	list := d.list[:n:n]
	d.list = d.list[n:]
	return list, nil
}
