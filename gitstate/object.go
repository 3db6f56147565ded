package gitstate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Signature is who did something to a commit, and when.
type Signature struct {
	Name  string
	Email string
	Time  time.Time // kept to the second, with its offset from UTC
}

// String is "Name <email>".
func (s Signature) String() string { return s.Name + " <" + s.Email + ">" }

// CommitInfo is what a commit says about itself.
type CommitInfo struct {
	ID        string
	Parents   []string
	Tree      string
	Author    Signature
	Committer Signature
	Message   string
}

// The modes of the entries of a tree, as git writes them.
const (
	modeDir        = 0o040000
	modeFile       = 0o100644
	modeExecutable = 0o100755
	modeSymlink    = 0o120000
	modeSubmodule  = 0o160000
)

// entry is a line of a tree.
type entry struct {
	name string
	mode uint32
	id   plumbing.Hash
}

func (e entry) fsMode() fs.FileMode {
	if badName(e.name) != "" {
		return fs.ModeIrregular
	}
	switch e.mode {
	case modeDir:
		return fs.ModeDir | 0o555
	case modeSymlink:
		return fs.ModeSymlink | 0o777
	case modeSubmodule:
		return fs.ModeIrregular
	case modeExecutable:
		return 0o555
	}
	return 0o444
}

// tree is a folder: its entries, sorted by name.
type tree []entry

func (t tree) search(name string) (int, bool) {
	return slices.BinarySearchFunc(t, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
}

func (t tree) find(name string) (entry, bool) {
	i, ok := t.search(name)
	if !ok {
		return entry{}, false
	}
	return t[i], true
}

// parseTree reads the content of a tree object.
func parseTree(data []byte) (tree, error) {
	t := make(tree, 0, len(data)/40)
	for len(data) > 0 {
		sp := bytes.IndexByte(data, ' ')
		nul := bytes.IndexByte(data, 0)
		if sp < 1 || nul < sp || len(data) < nul+21 {
			return nil, errors.New("malformed tree")
		}
		mode, err := strconv.ParseUint(string(data[:sp]), 8, 32)
		if err != nil {
			return nil, errors.New("malformed tree: bad mode")
		}
		e := entry{name: string(data[sp+1 : nul]), mode: uint32(mode)}
		if e.name == "" || e.name == "." || e.name == ".." || strings.Contains(e.name, "/") {
			return nil, fmt.Errorf("malformed tree: it has an entry named %q", e.name)
		}
		switch e.mode {
		case modeDir, modeFile, modeExecutable, modeSymlink, modeSubmodule:
		case 0o100664: // written by very old versions of git
			e.mode = modeFile
		default:
			return nil, fmt.Errorf("malformed tree: %q has the mode %o", e.name, mode)
		}
		copy(e.id[:], data[nul+1:nul+21])
		t = append(t, e)
		data = data[nul+21:]
	}
	byName := func(a, b entry) int { return strings.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(t, byName) {
		slices.SortFunc(t, byName)
	}
	for i := 1; i < len(t); i++ {
		if t[i].name == t[i-1].name {
			return nil, fmt.Errorf("malformed tree: it has two entries named %q", t[i].name)
		}
	}
	return t, nil
}

// encode writes the content of a tree object, and tells where in it the id of
// each entry is.
func (t tree) encode() (data []byte, at []int) {
	order := make([]int, len(t))
	size := 0
	for i, e := range t {
		order[i] = i
		size += len(e.name) + 28
	}
	slices.SortFunc(order, func(a, b int) int { return compareEntries(t[a], t[b]) })
	data, at = make([]byte, 0, size), make([]int, len(t))
	for _, i := range order {
		data = strconv.AppendUint(data, uint64(t[i].mode), 8)
		data = append(data, ' ')
		data = append(data, t[i].name...)
		data = append(data, 0)
		at[i] = len(data)
		data = append(data, t[i].id[:]...)
	}
	return data, at
}

// compareEntries is git's order: a folder is sorted as if its name ended in a
// slash.
func compareEntries(a, b entry) int {
	n := min(len(a.name), len(b.name))
	if c := strings.Compare(a.name[:n], b.name[:n]); c != 0 {
		return c
	}
	next := func(e entry) int {
		switch {
		case len(e.name) > n:
			return int(e.name[n])
		case e.mode == modeDir:
			return '/'
		}
		return -1
	}
	return cmp.Compare(next(a), next(b))
}

// badName says what is wrong with one element of a path, or nothing.
func badName(name string) string {
	switch {
	case strings.ContainsRune(name, '\\'):
		return "has a backslash"
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case isDotGit(name):
		return "is git's own folder"
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f {
			return "has a control character"
		}
	}
	return ""
}

// isDotGit tells the names under which some file system would find ".git"
// (NTFS ignores trailing dots and spaces and knows "git~1", HFS+ ignores some
// code points).
func isDotGit(name string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	name, _, _ = strings.Cut(strings.ToLower(name), ":")
	name = strings.TrimRight(name, ". ")
	return name == ".git" || name == "git~1"
}

// commit is the part of a commit that walking needs.
type commit struct {
	id      plumbing.Hash
	tree    plumbing.Hash
	parents []plumbing.Hash
	when    int64 // the committer's time, in seconds
}

// parseCommit reads the head of a commit object.
func parseCommit(id plumbing.Hash, data []byte) (*commit, error) {
	c := &commit{id: id}
	for {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok || len(line) == 0 {
			break
		}
		data = rest
		key, value, _ := bytes.Cut(line, []byte(" "))
		switch string(key) {
		case "tree":
			c.tree = plumbing.NewHash(string(value))
		case "parent":
			c.parents = append(c.parents, plumbing.NewHash(string(value)))
		case "committer":
			fields := bytes.Fields(value[bytes.LastIndexByte(value, '>')+1:])
			if len(fields) > 0 {
				c.when, _ = strconv.ParseInt(string(fields[0]), 10, 64)
			}
		}
	}
	if c.tree.IsZero() {
		return nil, errors.New("malformed commit: it has no tree")
	}
	return c, nil
}

func commitInfo(c *object.Commit) CommitInfo {
	info := CommitInfo{
		ID:        c.Hash.String(),
		Tree:      c.TreeHash.String(),
		Author:    Signature{c.Author.Name, c.Author.Email, c.Author.When},
		Committer: Signature{c.Committer.Name, c.Committer.Email, c.Committer.When},
		Message:   c.Message,
	}
	for _, p := range c.ParentHashes {
		info.Parents = append(info.Parents, p.String())
	}
	return info
}

// parseID reads a full object id.
func parseID(s string) (plumbing.Hash, bool) {
	if len(s) != 40 || !isHex(s) {
		return plumbing.ZeroHash, false
	}
	return plumbing.NewHash(s), true
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
