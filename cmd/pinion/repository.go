package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/reconcile"
)

// repository is a deployment repository that a command reads.
type repository struct {
	commits reconcile.Commits
	commit  *reconcile.Commit
	// name is the URL or folder, without user info.
	name  string
	close func()
}

// What a command reads if --rev is not given.
type subject int

const (
	// workingTree: the files as they lie there, committed or not.
	workingTree subject = iota
	// head: the commit that is checked out, or the tip of the branch.
	head
)

var scpLike = regexp.MustCompile(`^[A-Za-z0-9._-]+@?[A-Za-z0-9._-]*:[^\\]`)

func isURL(s string) bool {
	if strings.Contains(s, "://") {
		return true
	}
	if _, err := os.Stat(s); err == nil {
		return false
	}
	return scpLike.MatchString(s)
}

// open opens the repository that --repo names, and reads the commit that
// --rev names or else the subject.
func (g *globals) open(ctx context.Context, s subject) (*repository, error) {
	if isURL(g.repo) {
		return g.openURL(ctx)
	}
	dir, err := filepath.Abs(g.repo)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("open repository: %w; name a clone or a URL with --repo", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("open repository: %s is not a folder; name a clone or a URL with --repo", dir)
	}
	var clone *gitstate.Clone
	if !looksLikeRepository(dir) || exists(filepath.Join(dir, ".git")) {
		clone, err = gitstate.OpenClone(dir)
		if err != nil && !looksLikeRepository(dir) {
			return nil, fmt.Errorf("no deployment repository here: %w\nstand in a clone, or name one with --repo; `pinion init` makes a new one", err)
		}
	}
	if clone == nil {
		if g.rev != "" || s == head {
			return nil, fmt.Errorf("%s is not a git repository, so it has no commits; run `git init` and commit first", dir)
		}
		return g.openFolder(dir, "", noCommits{dir})
	}
	if clone.Root() == "" && s == workingTree {
		s = head
	}
	rev := g.rev
	if rev == "" {
		rev = "HEAD"
	}
	id, err := clone.Resolve(ctx, rev)
	if err != nil {
		if g.rev == "" && s == workingTree { // nothing committed yet
			return g.openFolder(clone.Root(), "", noCommits{dir})
		}
		return nil, err
	}
	// A daemon knows the repository by its URL; so do we, if the clone tells.
	name := dir
	if url, err := clone.RemoteURL(); err == nil && url != "" {
		name = gitstate.Redact(url)
	}
	if g.rev == "" && s == workingTree {
		r, err := g.openFolder(clone.Root(), id, clone)
		if err == nil {
			r.name = name
		}
		return r, err
	}
	c, err := reconcile.ReadCommit(ctx, clone, id, nil)
	if err != nil {
		return nil, err
	}
	return &repository{commits: clone, commit: c, name: name, close: func() { clone.Close() }}, nil
}

// openFolder reads the files of a folder as they lie there. Links are not
// followed out of it.
func (g *globals) openFolder(dir, id string, commits reconcile.Commits) (*repository, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	c, err := reconcile.ReadTree(desired.Hashed(root.FS()), id, nil)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &repository{commits: commits, commit: c, name: dir, close: func() { root.Close() }}, nil
}

// openMirror mirrors a remote repository in the user's cache folder, and brings
// the mirror up to date.
func (g *globals) openMirror(ctx context.Context) (*gitstate.Mirror, gitstate.Tip, error) {
	config, err := g.readConfig()
	if err != nil {
		return nil, gitstate.Tip{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, gitstate.Tip{}, fmt.Errorf("find a folder for the mirror: %w", err)
	}
	sum := sha256.Sum256([]byte(gitstate.Redact(g.repo)))
	options, err := config.Repository.options()
	if err != nil {
		return nil, gitstate.Tip{}, err
	}
	options.URL = g.repo
	options.Dir = filepath.Join(cache, "pinion", hex.EncodeToString(sum[:8]))
	m, err := gitstate.Open(ctx, options)
	if err != nil {
		return nil, gitstate.Tip{}, err
	}
	tip, err := m.Fetch(ctx)
	if err != nil {
		return nil, gitstate.Tip{}, errors.Join(err, m.Close())
	}
	return m, tip, nil
}

// openURL opens the mirror of a remote repository.
func (g *globals) openURL(ctx context.Context) (*repository, error) {
	m, tip, err := g.openMirror(ctx)
	if err != nil {
		return nil, err
	}
	id := tip.Commit
	if g.rev != "" {
		if id, err = m.Resolve(ctx, g.rev); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	c, err := reconcile.ReadCommit(ctx, m, id, nil)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return &repository{commits: m, commit: c, name: gitstate.Redact(g.repo), close: func() { m.Close() }}, nil
}

// looksLikeRepository tells whether a folder is the root of a deployment
// repository.
func looksLikeRepository(dir string) bool {
	return exists(filepath.Join(dir, "environments")) || exists(filepath.Join(dir, "services"))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// noCommits stands in for the history of a folder that has none.
type noCommits struct{ dir string }

func (n noCommits) err() error {
	return fmt.Errorf("%s has no commits to read manifests from", n.dir)
}

func (n noCommits) Snapshot(context.Context, string) (*gitstate.Snapshot, error) {
	return nil, n.err()
}

func (n noCommits) IsAncestor(context.Context, string, string) (bool, error) {
	return false, n.err()
}

func (n noCommits) History(context.Context, string, func(gitstate.CommitInfo) bool) error {
	return n.err()
}

// selection makes sure that what the arguments name is there.
func (r *repository) selection(args []string) (reconcile.Selection, error) {
	var s reconcile.Selection
	repo := r.commit.Repository
	if len(args) > 0 {
		s.Environment = desired.EnvironmentName(args[0])
		if _, ok := repo.Environments[s.Environment]; !ok {
			if ps := repo.Broken(desired.KindEnvironment, args[0]); len(ps) > 0 {
				return s, ps[0]
			}
			return s, unknown("environment", s.Environment, repo.Environments)
		}
	}
	if len(args) > 1 {
		s.Service = desired.ServiceName(args[1])
		if _, ok := repo.Services[s.Service]; !ok {
			if ps := repo.Broken(desired.KindService, args[1]); len(ps) > 0 {
				return s, ps[0]
			}
			return s, unknown("service", s.Service, repo.Services)
		}
		for _, d := range repo.Deployments() {
			if d.Environment.Name == s.Environment && d.Service.Name == s.Service {
				return s, nil
			}
		}
		return s, fmt.Errorf("environment %s does not run service %s; pin its artifacts there first", s.Environment, s.Service)
	}
	return s, nil
}
