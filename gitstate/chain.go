package gitstate

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// chain is the changes of one branch in one push as git objects, each commit
// the parent of the next. The branch moves past all of them at once.
type chain struct {
	branch   string
	expected string        // the first change's
	base     string        // the first change's Parent
	old      plumbing.Hash // the same; zero: the branch must not exist yet
	parent   plumbing.Hash // of the first commit; zero: it has none
	places   []int         // which of the push's changes they are
	commits  []*commit     // one for each
	objects  []*made       // each once, and after those that it names
	have     map[plumbing.Hash]bool
	root     *work
	guards   []func() error // asked before it is sent
}

// tip is where the branch shall be.
func (c *chain) tip() plumbing.Hash { return c.commits[len(c.commits)-1].id }

// work is a folder that a chain changes. It is read once and then kept, so
// that a change costs what it changes.
type work struct {
	id    plumbing.Hash // zero: it is empty
	tree  tree
	last  *made // its newest content, once the chain has changed it
	at    []int // where in that the ids are, by the tree's order; nil: unknown
	below map[string]*work
}

// chains makes the objects of a push, in memory: a chain for each branch, in
// the order in which the changes name them.
func (s *store) chains(changes []Change) ([]*chain, error) {
	var list []*chain
	of := map[string]*chain{}
	for i, change := range changes {
		c, later := of[change.Branch]
		switch {
		case !later:
			c = &chain{branch: change.Branch, expected: change.Expected, base: change.Parent, have: map[plumbing.Hash]bool{}}
			of[change.Branch] = c
			list = append(list, c)
		case change.Parent != "":
			return nil, fmt.Errorf("commit to %s: only the first change of a branch can have another parent than the one before it", change.Branch)
		case change.Expected != "":
			return nil, fmt.Errorf("commit to %s: change %d of the push expects the branch at %s, but its parent is the commit of change %d; leave Expected empty",
				change.Branch, i+1, change.Expected, c.places[len(c.places)-1]+1)
		}
		c.places = append(c.places, i)
		if change.Guard != nil {
			c.guards = append(c.guards, change.Guard)
		}
	}
	for _, c := range list {
		if err := c.open(s); err != nil {
			return nil, fmt.Errorf("commit to %s: %w", c.branch, err)
		}
		for i, files := range c.blobs(changes) {
			if err := c.add(s, &changes[c.places[i]], files); err != nil {
				if len(c.places) > 1 {
					subject, _, _ := strings.Cut(changes[c.places[i]].Message, "\n")
					err = fmt.Errorf("commit %d of %d (%s): %w", i+1, len(c.places), subject, err)
				}
				return nil, fmt.Errorf("commit to %s: %w", c.branch, err)
			}
		}
	}
	return list, nil
}

// open looks up what the first change was judged on.
func (c *chain) open(s *store) error {
	if !validBranch(c.branch) {
		return errors.New("that is not a name for a branch")
	}
	root := emptyTree
	on := c.expected
	if c.base != "" {
		on = c.base
	}
	if on != "" {
		parent, err := s.lookup(on)
		if err != nil {
			return err
		}
		c.old, c.parent, root = parent.id, parent.id, parent.tree
	}
	if c.base != "" {
		c.old = plumbing.NewHash(c.expected) // which the mirror need not have
	}
	var err error
	c.root, err = s.work(root)
	return err
}

func (s *store) work(id plumbing.Hash) (*work, error) {
	t, err := s.tree(id)
	if err != nil {
		return nil, s.harmed(err)
	}
	return &work{id: id, tree: slices.Clone(t), below: map[string]*work{}}, nil
}

// blobs are the files of each of the chain's changes as objects; nil is one to
// be deleted. Making their ids is most of the work of a long chain of large
// files, so that all processors share it.
func (c *chain) blobs(changes []Change) []map[string]*made {
	var fresh []*made
	last := map[string]*made{}
	listed := map[*made]bool{}
	list := make([]map[string]*made, len(c.places))
	for i, place := range c.places {
		list[i] = make(map[string]*made, len(changes[place].Files)+len(changes[place].Blobs))
		for name, data := range changes[place].Files {
			if data == nil {
				list[i][name] = nil
				continue
			}
			o := last[name]
			if o == nil || string(o.data) != string(data) {
				o = &made{kind: plumbing.BlobObject, data: data, prev: o}
				fresh = append(fresh, o)
				last[name] = o
			}
			list[i][name] = o
		}
		for name, b := range changes[place].Blobs {
			if b.made.id.IsZero() && !listed[b.made] {
				listed[b.made] = true
				fresh = append(fresh, b.made)
			}
			list[i][name], last[name] = b.made, b.made
		}
	}
	atOnce(len(fresh), func(i int) { fresh[i].id = identify(plumbing.BlobObject, fresh[i].data) })
	return list
}

// add appends one commit.
func (c *chain) add(s *store, change *Change, files map[string]*made) error {
	for name := range files {
		if !fs.ValidPath(name) || name == "." {
			return fmt.Errorf("%q is not the name of a file", name)
		}
		for part := range strings.SplitSeq(name, "/") {
			if why := badName(part); why != "" {
				return fmt.Errorf("the name %q is not allowed: %q %s", name, part, why)
			}
		}
	}
	before := c.root.id
	if err := c.edit(s, c.root, ".", files); err != nil {
		return err
	}
	if c.root.id.IsZero() { // nothing is left
		c.root.id = emptyTree
	}
	if c.root.id == emptyTree {
		c.keep(&made{id: emptyTree, kind: plumbing.TreeObject})
	}
	if c.root.id == before && !change.AllowEmpty {
		return fmt.Errorf("%w: the files are as they shall be", ErrUnchanged)
	}
	next := &commit{tree: c.root.id, when: change.Committer.Time.Unix()}
	if n := len(c.commits); n > 0 {
		next.parents = []plumbing.Hash{c.commits[n-1].id}
	} else if !c.parent.IsZero() {
		next.parents = []plumbing.Hash{c.parent}
	}
	text, err := change.encode(next)
	if err != nil {
		return err
	}
	o := &made{id: identify(plumbing.CommitObject, text), kind: plumbing.CommitObject, data: text}
	c.keep(o)
	next.id = o.id
	c.commits = append(c.commits, next)
	return nil
}

func (c *chain) keep(o *made) {
	if !c.have[o.id] {
		c.have[o.id] = true
		c.objects = append(c.objects, o)
	}
}

// edit changes some files of a folder. Names are relative to it.
func (c *chain) edit(s *store, w *work, dir string, files map[string]*made) error {
	var patches []int // the entries that have another id and no other name
	anew := false
	put := func(i int, there bool, e entry) {
		switch {
		case !there:
			w.tree = slices.Insert(w.tree, i, e)
			anew = true
		case w.tree[i] != e:
			anew = anew || w.tree[i].mode != e.mode
			w.tree[i] = e
			patches = append(patches, i)
		}
	}
	remove := func(i int, there bool) {
		if there {
			w.tree = slices.Delete(w.tree, i, i+1)
			anew = true
		}
	}
	below := map[string]map[string]*made{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		first, rest, deep := strings.Cut(name, "/")
		if deep {
			if below[first] == nil {
				below[first] = map[string]*made{}
			}
			below[first][rest] = files[name]
			continue
		}
		i, there := w.tree.search(name)
		mode := uint32(modeFile)
		if there {
			mode = w.tree[i].mode
			if mode != modeFile && mode != modeExecutable {
				return fmt.Errorf("%s in %s is a %s, not a file", name, dir, kind(w.tree[i]))
			}
		}
		switch o := files[name]; {
		case o == nil:
			remove(i, there)
		case !there || w.tree[i].id != o.id: // else it is there already
			c.keep(o)
			put(i, there, entry{name, mode, o.id})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(below)) {
		i, there := w.tree.search(name)
		if there && w.tree[i].mode != modeDir {
			if !slices.ContainsFunc(slices.Collect(maps.Values(below[name])), func(o *made) bool { return o != nil }) {
				continue // what shall go from below it is not there
			}
			return fmt.Errorf("%s in %s is a %s, not a folder", name, dir, kind(w.tree[i]))
		}
		sub := w.below[name]
		if sub == nil {
			from := emptyTree
			if there {
				from = w.tree[i].id
			}
			var err error
			if sub, err = s.work(from); err != nil {
				return err
			}
			w.below[name] = sub
		}
		if err := c.edit(s, sub, name, below[name]); err != nil {
			return err
		}
		if sub.id.IsZero() || sub.id == emptyTree {
			remove(i, there)
		} else {
			put(i, there, entry{name, modeDir, sub.id})
		}
	}
	if len(w.tree) == 0 {
		w.id, w.last, w.at = plumbing.ZeroHash, nil, nil
		return nil
	}
	if !anew && len(patches) == 0 {
		return nil
	}
	var data []byte
	if anew || w.at == nil {
		data, w.at = w.tree.encode()
	} else {
		data = slices.Clone(w.last.data)
		for _, i := range patches {
			copy(data[w.at[i]:], w.tree[i].id[:])
		}
	}
	w.last = &made{id: identify(plumbing.TreeObject, data), kind: plumbing.TreeObject, data: data, prev: w.last}
	if w.id != w.last.id {
		w.id = w.last.id
		c.keep(w.last)
	}
	return nil
}

// each calls f with a folder and with those below it that the chain changed.
func (w *work) each(f func(*work)) {
	f(w)
	for _, sub := range w.below {
		sub.each(f)
	}
}

// gather lists the objects of several chains, each once, and after those that
// it names.
func gather(chains []*chain) []*made {
	if len(chains) == 1 {
		return chains[0].objects
	}
	seen := map[plumbing.Hash]bool{}
	var list []*made
	for _, c := range chains {
		for _, o := range c.objects {
			if !seen[o.id] {
				seen[o.id] = true
				list = append(list, o)
			}
		}
	}
	return list
}
