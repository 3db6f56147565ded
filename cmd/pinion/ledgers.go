package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/internal/grace"
)

// archive is where commits are read from: a clone, or a mirror.
type archive interface {
	history.Archive
	Resolve(ctx context.Context, rev string) (string, error)
}

// ledgers is a deployment repository as the commands see it that look back, or
// that judge: as far as this machine knows it.
type ledgers struct {
	*history.View
	archive archive
	clone   *gitstate.Clone // nil: it is a mirror
	name    string          // the URL or folder, without user info
	fetched time.Time       // when the remote was last asked; zero: not known
	close   func()

	rev, branch string
	mainName    string // what main was taken from: "origin/main"
}

// openLedgers opens what --repo names. That there is no ledger is no error yet.
func (g *globals) openLedgers(ctx context.Context) (*ledgers, error) {
	// A command that looks and ends has no use for a tidy heap: a third of its
	// time would go there.
	grace.Percent(400)
	l := &ledgers{rev: g.rev}
	shallow, mainTip := false, ""
	var branches map[string]string
	if isURL(g.repo) {
		m, tip, err := g.openMirror(ctx)
		if err != nil {
			return nil, err
		}
		l.archive, l.name, l.close = m, gitstate.Redact(g.repo), func() { m.Close() }
		branches, l.fetched = m.Branches(), g.now
		if l.rev == "" {
			l.mainName, mainTip = "the branch", tip.Commit
		}
	} else {
		clone, dir, err := g.openClone()
		if err != nil {
			return nil, err
		}
		l.archive, l.clone, l.name, l.close = clone, clone, dir, func() { clone.Close() }
		if url, err := clone.RemoteURL(); err == nil && url != "" {
			l.name = gitstate.Redact(url)
		}
		if branches, err = clone.Ledgers(); err != nil {
			clone.Close()
			return nil, err
		}
		l.fetched, shallow = clone.Fetched(), clone.Shallow()
		if g.config != "" {
			c, err := g.readConfig()
			if err != nil {
				clone.Close()
				return nil, err
			}
			l.branch = c.Repository.Branch
		}
	}
	l.View = history.NewView(history.View{Archive: l.archive, Now: g.now, Tips: history.Tips(branches), Artifacts: branches[artifact.Branch], Shallow: shallow,
		FindMain: func(ctx context.Context) (string, error) {
			if mainTip != "" {
				return mainTip, nil
			}
			return l.findMain(ctx)
		}})
	return l, nil
}

// openClone opens the clone that --repo names, or that one stands in.
func (g *globals) openClone() (*gitstate.Clone, string, error) {
	dir, err := filepath.Abs(g.repo)
	if err != nil {
		return nil, "", err
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, "", fmt.Errorf("open repository: %w; name a clone or a URL with --repo", err)
	} else if !info.IsDir() {
		return nil, "", fmt.Errorf("open repository: %s is not a folder; name a clone or a URL with --repo", dir)
	}
	clone, err := gitstate.OpenClone(dir)
	if err != nil {
		return nil, "", fmt.Errorf("no deployment repository here: %w\nstand in a clone, or name one with --repo; `pinion init` makes a new one", err)
	}
	return clone, dir, nil
}

// findMain returns the commit at the tip of main: --rev; or else the branch as
// the remote has it, since that is what the daemon goes by; or else what is
// checked out.
func (l *ledgers) findMain(ctx context.Context) (id string, err error) {
	switch {
	case l.rev != "":
		l.mainName = l.rev
	case l.clone != nil:
		if l.mainName, id, err = l.clone.Published(l.branch); err != nil || id != "" {
			return id, err
		}
		l.mainName = "HEAD"
	}
	return l.archive.Resolve(ctx, l.mainName)
}

// asOf says for the head of an output how new it is: when the remote was last
// asked, or, where nobody fetches, when something was last recorded.
func (l *ledgers) asOf(ctx context.Context) string {
	var parts []string
	if l.MainTip() != "" {
		parts = append(parts, fmt.Sprintf("%s at %.12s", l.mainName, l.MainTip()))
	}
	if l.fetched.IsZero() {
		var newest time.Time
		for _, tip := range l.Tips {
			if c, err := l.archive.Info(ctx, tip); err == nil && c.Committer.Time.After(newest) {
				newest = c.Committer.Time
			}
		}
		if !newest.IsZero() {
			parts = append(parts, "the newest entry "+history.Age(l.Now, newest)+" old")
		}
	} else if age := l.Now.Sub(l.fetched); age >= time.Second {
		parts = append(parts, "fetched "+history.ShortAge(age)+" ago")
	} else {
		parts = append(parts, "fetched now")
	}
	return strings.Join(parts, ", ")
}

// none is the error of a repository without ledgers.
func (l *ledgers) none() error {
	const first = "there is none before `pinion run` has recorded the first deployment"
	switch {
	case l.clone == nil:
		return fmt.Errorf("%s has no ledger\n%s", l.name, first)
	case !l.clone.Fetches(gitstate.LedgerPrefix + "any"):
		if url, err := l.clone.RemoteURL(); err == nil && url == "" {
			return fmt.Errorf("no ledger in %s\n%s", l.name, first)
		}
		return errors.New("no ledger in this clone, and `git fetch` does not bring them\n" +
			"run `git config --add remote.origin.fetch '+refs/heads/ledger/*:refs/remotes/origin/ledger/*'` and `git fetch origin`")
	}
	return errors.New("no ledger in this clone\nrun `git fetch origin`; " + first)
}

// tip returns the newest entry of an environment's ledger.
func (l *ledgers) tip(ctx context.Context, env desired.EnvironmentName) (string, error) {
	if tip, ok := l.Tips[env]; ok {
		return tip, nil
	}
	if len(l.Tips) == 0 {
		return "", l.none()
	}
	if repo, err := l.Repository(ctx); err == nil && repo.Environments[env] != nil {
		return "", &exitError{code: exitDifferent, cause: fmt.Errorf("environment %s has no ledger yet; it begins with the first deployment, and `git fetch` brings it", env)}
	}
	return "", history.Unknown("environment", string(env), slices.Sorted(maps.Keys(l.Tips)), "the ledgers are")
}
