package gitstate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	objectCacheSize = 32 * cache.MiByte
	treeCacheSize   = 256 << 10 // entries of trees
	commitCacheSize = 256 << 10 // commits and their parents
)

// odb reads the objects of one folder ("objects" below a git directory): from
// its packs, and what is not found there, or not understood, through go-git. It
// is not safe for concurrent use; its store guards it.
type odb struct {
	dir     string // the git directory
	storage *filesystem.Storage
	packs   *packs
}

func openODB(dir string) *odb {
	return &odb{dir, filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(objectCacheSize),
		filesystem.Options{KeepDescriptors: true}), newPacks(dir)}
}

func (o *odb) close() error {
	o.packs.close()
	return o.storage.Close()
}

// reopen forgets what was known about the folder: packs may have come, or gone.
func (o *odb) reopen() {
	o.close()
	*o = *openODB(o.dir)
}

// get reads an object. The caller owns what it returns.
func (o *odb) get(id plumbing.Hash, want plumbing.ObjectType) (data []byte, err error) {
	kind, content, err := o.packs.get(id)
	switch {
	case err == nil && kind != want:
		return nil, fmt.Errorf("%w: a %s, not a %s", errKind, kind, want)
	case err == nil:
		return slices.Clone(content), nil
	}
	defer unpanicked(id, &err)
	obj, err := o.storage.EncodedObject(plumbing.AnyObject, id)
	if err != nil {
		return nil, err
	}
	if obj.Type() != want {
		return nil, fmt.Errorf("%w: a %s, not a %s", errKind, obj.Type(), want)
	}
	r, err := obj.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data = make([]byte, obj.Size())
	_, err = io.ReadFull(r, data)
	return data, err
}

func (o *odb) size(id plumbing.Hash) (n int64, err error) {
	if _, content, err := o.packs.get(id); err == nil {
		return int64(len(content)), nil
	}
	defer unpanicked(id, &err)
	return o.storage.EncodedObjectSize(id)
}

func (o *odb) has(id plumbing.Hash) (err error) {
	if o.packs.has(id) {
		return nil
	}
	defer unpanicked(id, &err)
	return o.storage.HasEncodedObject(id)
}

// unpanicked makes an error of a panic, for go-git was seen to panic on damaged
// packs.
func unpanicked(id plumbing.Hash, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("reading object %s: %v", id, r)
	}
}

// store is the one way in which objects are read: by a mirror, by its
// snapshots, and from a user's clone. Any number of goroutines may use it; it
// lets one at a time into go-git, which is not safe even for concurrent reads,
// and never while something is fetched or written.
//
// What it has parsed it keeps by object id, so that snapshots of commits that
// have much in common share it.
type store struct {
	// damage, if set, is told of an object that has to be there and can't be
	// read. It is called without a lock.
	damage func(error)

	mu      sync.Mutex
	odbs    []*odb                       // guarded by mu; the first is the present one
	trees   *lru[plumbing.Hash, tree]    // guarded by mu
	commits *lru[plumbing.Hash, *commit] // guarded by mu
	shallow map[plumbing.Hash]bool       // guarded by mu; the commits whose parents were cut off
	retry   bool                         // the folders belong to someone else, who may repack them
	closed  bool                         // guarded by mu
}

func newStore(odbs ...*odb) *store {
	return &store{odbs: odbs, trees: newLRU[plumbing.Hash, tree](treeCacheSize), commits: newLRU[plumbing.Hash, *commit](commitCacheSize)}
}

// refresh makes the packs known that were added to a generation, which the first
// folder is.
func (s *store) refresh(g *generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(g.fresh) > 0 {
		s.odbs[0].storage.Reindex() // when it is asked the next time
	}
	for _, name := range g.fresh {
		s.odbs[0].packs.add(name)
	}
	g.fresh = nil
}

// reindex makes new packs known, and removes files of packs whose objects others
// have.
func (s *store) reindex(useless []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range useless {
		os.Remove(name) // what stays does no harm
	}
	s.odbs[0].reopen() // lest their descriptors stay open
}

// replace puts a new folder in the first place. The old ones stay behind it
// if keep says so, so that objects which only they have can still be read.
func (s *store) replace(o *odb, keep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.odbs
	s.odbs = []*odb{o}
	for i, p := range old {
		if keep && i == 0 {
			s.odbs = append(s.odbs, p)
		} else {
			p.close()
		}
	}
}

func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, o := range s.odbs {
		errs = append(errs, o.close())
	}
	return errors.Join(errs...)
}

// locked runs f on each folder until one has the object.
func (s *store) locked(id plumbing.Hash, f func(*odb) error) error {
	if s.closed {
		return ErrClosed
	}
	var first error
	try := func() bool {
		first = nil
		for _, o := range s.odbs {
			err := f(o)
			if err == nil {
				return true
			}
			if first == nil || errors.Is(first, plumbing.ErrObjectNotFound) {
				first = err
			}
		}
		return false
	}
	if try() {
		return nil
	}
	if s.retry && !errors.Is(first, errKind) {
		for _, o := range s.odbs {
			o.reopen()
		}
		if try() {
			return nil
		}
	}
	return &missing{id, first}
}

// object reads an object. Its content must not be changed.
func (s *store) object(id plumbing.Hash, want plumbing.ObjectType) (data []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objectLocked(id, want)
}

func (s *store) objectLocked(id plumbing.Hash, want plumbing.ObjectType) (data []byte, err error) {
	err = s.locked(id, func(o *odb) error {
		data, err = o.get(id, want)
		return err
	})
	return data, err
}

// size is the length of a blob.
func (s *store) size(id plumbing.Hash) (n int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.locked(id, func(o *odb) error {
		n, err = o.size(id)
		return err
	})
	return n, err
}

// has tells whether an object is there, without reading it.
func (s *store) has(id plumbing.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locked(id, func(o *odb) error { return o.has(id) })
}

// tree reads a folder.
func (s *store) tree(id plumbing.Hash) (tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.trees.get(id); ok {
		return t, nil
	}
	if id == emptyTree {
		return nil, nil
	}
	data, err := s.objectLocked(id, plumbing.TreeObject)
	if err != nil {
		return nil, err
	}
	t, err := parseTree(data)
	if err != nil {
		if plumbing.ComputeHash(plumbing.TreeObject, data) == id {
			// It was written so: another clone would have the same.
			return nil, &malformed{id, err}
		}
		return nil, &missing{id, err}
	}
	s.trees.put(id, t, len(t)+1)
	return t, nil
}

// commit reads a commit as far as walking needs it.
func (s *store) commit(id plumbing.Hash) (*commit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.commits.get(id); ok {
		return c, nil
	}
	data, err := s.objectLocked(id, plumbing.CommitObject)
	if err != nil {
		return nil, err
	}
	c, err := parseCommit(id, data)
	if err != nil {
		return nil, &missing{id, err}
	}
	s.commits.put(id, c, 1)
	return c, nil
}

// parents are the commits that a commit names and that are meant to be there.
func (s *store) parents(c *commit) (parents []plumbing.Hash, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shallow[c.id] {
		return nil, len(c.parents) > 0
	}
	return c.parents, false
}

// info reads a whole commit.
func (s *store) info(id plumbing.Hash) (CommitInfo, error) {
	data, err := s.object(id, plumbing.CommitObject)
	if err != nil {
		return CommitInfo{}, err
	}
	o := &plumbing.MemoryObject{}
	o.SetType(plumbing.CommitObject)
	o.Write(data)
	var c object.Commit
	if err := c.Decode(o); err != nil {
		return CommitInfo{}, &missing{id, err}
	}
	return commitInfo(&c), nil
}

// peel follows an annotated tag to its commit.
func (s *store) peel(id plumbing.Hash) (plumbing.Hash, error) {
	for range 10 {
		if _, err := s.commit(id); err == nil {
			return id, nil
		} else {
			data, tagErr := s.object(id, plumbing.TagObject)
			if tagErr != nil {
				return id, err
			}
			o := &plumbing.MemoryObject{}
			o.SetType(plumbing.TagObject)
			o.Write(data)
			var t object.Tag
			if err := t.Decode(o); err != nil {
				return id, &missing{id, err}
			}
			id = t.Target
		}
	}
	return id, fmt.Errorf("tag %s does not end", id)
}

// commitsWithPrefix are the commits whose ids begin so.
func (s *store) commitsWithPrefix(prefix string) ([]plumbing.Hash, error) {
	prefix = strings.ToLower(prefix)
	even := prefix[:len(prefix)&^1]
	s.mu.Lock()
	seen := map[plumbing.Hash]bool{}
	for _, o := range s.odbs {
		ids, err := o.storage.HashesWithPrefix(hexBytes(even))
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
		for _, id := range ids {
			if strings.HasPrefix(id.String(), prefix) {
				seen[id] = true
			}
		}
	}
	s.mu.Unlock()
	var commits []plumbing.Hash
	for id := range seen {
		if _, err := s.commit(id); err == nil {
			commits = append(commits, id)
		}
	}
	plumbing.HashesSort(commits)
	return commits, nil
}

func hexBytes(s string) []byte {
	h := plumbing.NewHash(s + strings.Repeat("0", 40-len(s)))
	return h[:len(s)/2]
}

// harmed tells the owner that an object is missing which has to be there.
func (s *store) harmed(err error) error {
	var m *missing
	if errors.As(err, &m) && s.damage != nil {
		s.damage(err)
	}
	return err
}

// loadShallow reads a git directory's list of commits without parents.
func loadShallow(dir string) (map[plumbing.Hash]bool, error) {
	data, err := os.ReadFile(filepath.Join(dir, "shallow"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := map[plumbing.Hash]bool{}
	for _, line := range strings.Fields(string(data)) {
		m[plumbing.NewHash(line)] = true
	}
	return m, nil
}

var errKind = errors.New("it is of another kind")

var emptyTree = plumbing.NewHash("4b825dc642cb6eb9a060e54bf8d69288fbee4904")
