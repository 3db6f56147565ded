package gitstate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Clone is a repository of the user's, as it lies on the disk, and is only
// read. Others may write to it at the same time. Its methods may be called
// from any goroutine.
type Clone struct {
	folder *folder
	store  *store
}

// OpenClone opens the repository that a folder is in, by looking there and in
// the folders above it: a working tree, one made by git worktree, or a bare
// repository.
func OpenClone(dir string) (*Clone, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(start); err != nil {
		return nil, fmt.Errorf("open clone: %w", err)
	}
	for at := start; ; at = filepath.Dir(at) {
		f, err := openFolder(at)
		if err == nil {
			return openClone(f)
		}
		if !errors.Is(err, transport.ErrRepositoryNotFound) {
			return nil, fmt.Errorf("open clone: %w", err)
		}
		if at == filepath.Dir(at) {
			return nil, fmt.Errorf("open clone: neither %s nor a folder above it is a git repository; go to one, or name it", start)
		}
	}
}

func openClone(f *folder) (*Clone, error) {
	dirs, err := f.objectDirs()
	if err != nil {
		return nil, err
	}
	var odbs []*odb
	for _, dir := range dirs {
		odbs = append(odbs, openODB(dir))
	}
	s := newStore(odbs...)
	s.retry = true
	if s.shallow, err = loadShallow(f.common); err != nil {
		s.close()
		return nil, err
	}
	return &Clone{f, s}, nil
}

// Root is the folder of the working tree; empty if the repository is bare.
func (c *Clone) Root() string { return c.folder.root }

// RemoteURL is the URL of the remote that the present branch follows, or else
// of "origin"; empty if there is none. It may hold user info: Redact it
// before showing it.
func (c *Clone) RemoteURL() (string, error) {
	_, r, err := c.remote()
	if err != nil {
		return "", err
	}
	if r == nil || len(r.URLs) == 0 {
		return "", nil
	}
	url := r.URLs[0]
	if !strings.Contains(url, "://") && !filepath.IsAbs(url) && strings.HasPrefix(url, ".") && c.folder.root != "" {
		url = filepath.Join(c.folder.root, url) // git takes it so, too
	}
	return url, nil
}

// remote is the remote that the present branch follows, or else "origin"; nil
// if there is no such remote.
func (c *Clone) remote() (name string, r *config.RemoteConfig, err error) {
	all, err := c.folder.config()
	if err != nil {
		return "", nil, err
	}
	name = "origin"
	if head, err := c.folder.storage().Reference(plumbing.HEAD); err == nil && head.Type() == plumbing.SymbolicReference {
		if b := all.Branches[head.Target().Short()]; b != nil && b.Remote != "" && b.Remote != "." {
			name = b.Remote
		}
	}
	return name, all.Remotes[name], nil
}

// Published finds a branch of the remote, as it was when it was last fetched:
// its name here, such as "origin/main", and the id. Empty stands for the
// remote's own choice, and else for main. The id is empty if the clone has no
// such branch.
func (c *Clone) Published(branch string) (name, id string, err error) {
	remote, _, err := c.remote()
	if err != nil {
		return "", "", err
	}
	prefix := "refs/remotes/" + remote + "/"
	names := []string{branch}
	if branch == "" {
		names = []string{"HEAD", "main"}
	}
	refs := c.folder.storage()
	for _, n := range names {
		full := plumbing.ReferenceName(prefix + n)
		if full.Validate() != nil {
			continue
		}
		if target, err := refs.Reference(full); err == nil && target.Type() == plumbing.SymbolicReference {
			full = target.Target()
		}
		ref, err := storer.ResolveReference(refs, full)
		switch {
		case err == nil:
			return strings.TrimPrefix(full.String(), "refs/remotes/"), ref.Hash().String(), nil
		case !errors.Is(err, plumbing.ErrReferenceNotFound):
			return "", "", fmt.Errorf("read %s: %w", full, err)
		}
	}
	return "", "", nil
}

// Ledgers are the branches "ledger/…" of the remote, and [ArtifactsBranch] if
// there is one, and where they were when
// they were last fetched; in a repository that has none of those, such as a
// bare one, its own branches of that name.
func (c *Clone) Ledgers() (map[string]string, error) {
	remote, _, err := c.remote()
	if err != nil {
		return nil, err
	}
	for _, prefix := range []string{"refs/remotes/" + remote + "/", "refs/heads/"} {
		branches, err := c.folder.below(prefix, LedgerPrefix)
		if err != nil {
			return nil, err
		}
		others, err := c.folder.below(prefix, path.Dir(ArtifactsBranch)+"/")
		if err != nil {
			return nil, err
		}
		if tip, ok := others[ArtifactsBranch]; ok {
			branches[ArtifactsBranch] = tip
		}
		if len(branches) > 0 {
			return branches, nil
		}
	}
	return nil, nil
}

// Fetches tells whether a `git fetch` brings a branch. In a clone that was made
// with --single-branch it brings no ledger, for example.
func (c *Clone) Fetches(branch string) bool {
	_, r, err := c.remote()
	if err != nil || r == nil {
		return false
	}
	return slices.ContainsFunc(r.Fetch, func(s config.RefSpec) bool { return s.Match(plumbing.NewBranchReferenceName(branch)) })
}

// Fetched is when the remote was last asked, as far as that can be told: zero,
// if it can't.
func (c *Clone) Fetched() time.Time {
	remote, _, err := c.remote()
	if err != nil {
		return time.Time{}
	}
	var last time.Time
	for _, file := range []string{
		filepath.Join(c.folder.git, "FETCH_HEAD"),
		filepath.Join(c.folder.common, "FETCH_HEAD"),
		filepath.Join(c.folder.common, "refs", "remotes", remote, "HEAD"), // of a clone that was never fetched again
	} {
		if info, err := os.Stat(file); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// Shallow tells whether the clone's history is cut off somewhere.
func (c *Clone) Shallow() bool { return len(c.store.shallow) > 0 }

// Snapshot is the tree of a revision; see Resolve.
func (c *Clone) Snapshot(ctx context.Context, rev string) (*Snapshot, error) {
	if len(rev) == 40 { // as a rule a commit's id, which needs no references
		if s, err := c.store.snapshot(rev); err == nil {
			return s, nil
		}
	}
	id, err := c.Resolve(ctx, rev)
	if err != nil {
		return nil, err
	}
	return c.store.snapshot(id)
}

// Resolve turns a revision into the full id of a commit: HEAD, a branch, a
// tag, a remote's branch ("origin/main"), a full or an abbreviated id (4
// digits or more), each with any number of ~N and ^N behind it. Empty stands
// for HEAD.
func (c *Clone) Resolve(ctx context.Context, rev string) (string, error) {
	refs := c.folder.storage()
	id, err := c.store.resolve(ctx, rev, func(name string) (plumbing.Hash, bool, error) {
		if name == "" {
			name = "HEAD"
		}
		// The order of gitrevisions(7).
		for _, format := range []string{"%s", "refs/%s", "refs/tags/%s", "refs/heads/%s", "refs/remotes/%s", "refs/remotes/%s/HEAD"} {
			full := plumbing.ReferenceName(fmt.Sprintf(format, name))
			if full != plumbing.HEAD && !strings.HasPrefix(full.String(), "refs/") || full.Validate() != nil {
				continue
			}
			ref, err := storer.ResolveReference(refs, full)
			switch {
			case err == nil:
				return ref.Hash(), true, nil
			case errors.Is(err, plumbing.ErrReferenceNotFound):
			case strings.HasPrefix(name, full.String()):
				return plumbing.ZeroHash, false, err
			}
		}
		return plumbing.ZeroHash, false, nil
	})
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

// IsAncestor tells whether descendant has ancestor in its history, both full
// ids; a commit is its own ancestor. In a shallow clone it may have to say
// [ErrShallow].
func (c *Clone) IsAncestor(ctx context.Context, ancestor, descendant string) (bool, error) {
	return c.store.ancestry(ctx, ancestor, descendant)
}

// Info reads a commit, by the full id.
func (c *Clone) Info(ctx context.Context, id string) (CommitInfo, error) {
	return c.store.describe(ctx, id)
}

// History yields a commit and its first parents, newest first, as long as
// yield wants more. At the end of a shallow clone it is an [ErrShallow].
func (c *Clone) History(ctx context.Context, from string, yield func(CommitInfo) bool) error {
	return c.store.walk(ctx, from, yield)
}

// Close lets go of the repository's files. Snapshots can't be read any more.
func (c *Clone) Close() error { return c.store.close() }
