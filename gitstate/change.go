package gitstate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Change is one commit to be: files to write onto a branch as it was judged.
type Change struct {
	Branch   string // the mirror's own if empty
	Expected string // the tip that was judged, the parent to be; empty: the branch must not exist yet
	// Files are the contents by name; nil deletes a file, and that it was not
	// there is no error. What is not named stays. A file that was executable
	// stays so.
	Files   map[string][]byte
	Message string
	// Author and Committer need a name, an address and a time.
	Author, Committer Signature
	// AllowEmpty lets a commit through whose tree is that of its parent;
	// otherwise that is an ErrUnchanged.
	AllowEmpty bool
	// Sign, if set, returns the signature of the commit's bytes, as it goes
	// into its header (armored).
	Sign func(commit []byte) (string, error)
}

// built is a change as git objects.
type built struct {
	change  Change
	id      plumbing.Hash
	old     plumbing.Hash
	objects []plumbing.EncodedObject
}

// build makes the objects of a change, in memory.
func (s *store) build(c Change) (*built, error) {
	b := &built{change: c}
	fail := func(err error) (*built, error) { return nil, fmt.Errorf("commit to %s: %w", c.Branch, err) }
	if !validBranch(c.Branch) {
		return fail(errors.New("that is not a name for a branch"))
	}
	root := emptyTree
	if c.Expected != "" {
		parent, err := s.lookup(c.Expected)
		if err != nil {
			return fail(err)
		}
		b.old, root = parent.id, parent.tree
	}
	for name := range c.Files {
		if !fs.ValidPath(name) || name == "." {
			return fail(fmt.Errorf("%q is not the name of a file", name))
		}
		for part := range strings.SplitSeq(name, "/") {
			if why := badName(part); why != "" {
				return fail(fmt.Errorf("the name %q is not allowed: %q %s", name, part, why))
			}
		}
	}
	before := root
	root, err := s.edit(b, root, ".", c.Files)
	if err != nil {
		return fail(err)
	}
	if root.IsZero() { // nothing is left
		root = b.add(plumbing.TreeObject, nil)
	}
	if root == before && c.Expected == "" {
		b.add(plumbing.TreeObject, nil)
	}
	if root == before && !c.AllowEmpty {
		return fail(fmt.Errorf("%w: the files are as they shall be", ErrUnchanged))
	}
	text, err := c.encode(root)
	if err != nil {
		return fail(err)
	}
	b.id = b.add(plumbing.CommitObject, text)
	return b, nil
}

// add makes an object.
func (b *built) add(t plumbing.ObjectType, data []byte) plumbing.Hash {
	o := &plumbing.MemoryObject{}
	o.SetType(t)
	o.Write(data)
	b.objects = append(b.objects, o)
	return o.Hash()
}

// edit makes the tree of a folder with some files changed; the zero id if it
// is left without any. Names are relative to the folder.
func (s *store) edit(b *built, id plumbing.Hash, dir string, files map[string][]byte) (plumbing.Hash, error) {
	t, err := s.tree(id)
	if err != nil {
		return id, s.harmed(err)
	}
	t = slices.Clone(t)
	below := map[string]map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		first, rest, deep := strings.Cut(name, "/")
		if deep {
			if below[first] == nil {
				below[first] = map[string][]byte{}
			}
			below[first][rest] = files[name]
			continue
		}
		old, there := t.find(name)
		if there && old.mode != modeFile && old.mode != modeExecutable {
			return id, fmt.Errorf("%s in %s is a %s, not a file", name, dir, kind(old))
		}
		switch data := files[name]; {
		case data == nil && there:
			t = t.without(name)
		case data == nil:
		case there:
			t = t.with(entry{name, old.mode, b.add(plumbing.BlobObject, data)})
		default:
			t = t.with(entry{name, modeFile, b.add(plumbing.BlobObject, data)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(below)) {
		old, there := t.find(name)
		if there && old.mode != modeDir {
			if !slices.ContainsFunc(slices.Collect(maps.Values(below[name])), func(data []byte) bool { return data != nil }) {
				continue // what shall go from below it is not there
			}
			return id, fmt.Errorf("%s in %s is a %s, not a folder", name, dir, kind(old))
		}
		from := emptyTree
		if there {
			from = old.id
		}
		sub, err := s.edit(b, from, name, below[name])
		switch {
		case err != nil:
			return id, err
		case sub.IsZero() || sub == emptyTree:
			t = t.without(name)
		default:
			t = t.with(entry{name, modeDir, sub})
		}
	}
	if len(t) == 0 {
		return plumbing.ZeroHash, nil
	}
	data := t.encode()
	sum := plumbing.ComputeHash(plumbing.TreeObject, data)
	if sum != id {
		b.add(plumbing.TreeObject, data)
	}
	return sum, nil
}

func (t tree) without(name string) tree {
	return slices.DeleteFunc(t, func(e entry) bool { return e.name == name })
}

func (t tree) with(e entry) tree {
	i, there := slices.BinarySearchFunc(t, e.name, func(e entry, name string) int { return strings.Compare(e.name, name) })
	if there {
		t[i] = e
		return t
	}
	return slices.Insert(t, i, e)
}

// encode writes the commit object.
func (c *Change) encode(root plumbing.Hash) ([]byte, error) {
	message := strings.TrimRight(c.Message, "\n") + "\n"
	if strings.TrimSpace(message) == "" {
		return nil, errors.New("the commit needs a message")
	}
	if strings.ContainsRune(message, 0) {
		return nil, errors.New("the message has a NUL character")
	}
	author, err := c.Author.encode()
	if err != nil {
		return nil, fmt.Errorf("author: %w", err)
	}
	committer, err := c.Committer.encode()
	if err != nil {
		return nil, fmt.Errorf("committer: %w", err)
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "tree %s\n", root)
	if c.Expected != "" {
		fmt.Fprintf(&head, "parent %s\n", strings.ToLower(c.Expected))
	}
	fmt.Fprintf(&head, "author %s\ncommitter %s\n", author, committer)
	plain := fmt.Appendf(nil, "%s\n%s", &head, message)
	if c.Sign == nil {
		return plain, nil
	}
	signature, err := c.Sign(plain)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	signature = strings.ReplaceAll(strings.TrimRight(signature, "\n"), "\n", "\n ")
	return fmt.Appendf(nil, "%sgpgsig %s\n\n%s", &head, signature, message), nil
}

func (s Signature) encode() (string, error) {
	clean := func(what, v string) error {
		if strings.TrimSpace(v) == "" || strings.ContainsAny(v, "<>\n\x00") {
			return fmt.Errorf("%q can't be %s", v, what)
		}
		return nil
	}
	if err := errors.Join(clean("a name", s.Name), clean("an address", s.Email)); err != nil {
		return "", err
	}
	if s.Time.IsZero() || s.Time.Before(time.Unix(0, 0)) {
		return "", errors.New("it needs a time")
	}
	return fmt.Sprintf("%s <%s> %d %s", strings.TrimSpace(s.Name), strings.TrimSpace(s.Email), s.Time.Unix(), s.Time.Format("-0700")), nil
}
