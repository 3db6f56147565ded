package reconcile

import (
	"context"
	"errors"
	"io/fs"
	"reflect"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// journal is what the commits of main have changed since a clerk began, and of the
// newest ones before that what daemons have: so one push of several commits is told
// commit by commit, and each of them is looked at once, however many services there
// are.
type journal struct {
	lines []line // oldest first
	index map[string]int
	first int // the index of lines[0]
}

// line is one commit of the first-parent line.
type line struct {
	commit string
	// keys are the deployments that it changed; true: from pins, or a commit of their
	// manifests, to others; false: otherwise, as by manifests that are read from the
	// very commit, or by a file that can't be read.
	keys map[Key]bool
}

func (l line) changes(k Key) bool {
	_, ok := l.keys[k]
	return ok
}

func (l line) repins(k Key) bool { return l.keys[k] }

// mostLines bounds the journal.
const mostLines = 20_000

// begin makes a commit the one from which on things are noted.
func (j *journal) begin(commit string) {
	j.lines, j.index, j.first = []line{{commit: commit}}, map[string]int{commit: 0}, 0
}

// add notes commits that came after the newest one, oldest first.
func (j *journal) add(lines []line) {
	for _, l := range lines {
		j.index[l.commit] = j.first + len(j.lines)
		j.lines = append(j.lines, l)
	}
	for len(j.lines) > mostLines {
		delete(j.index, j.lines[0].commit)
		j.lines, j.first = j.lines[1:], j.first+1
	}
}

// between returns the commits that did something to a deployment after one commit
// and before another; nothing if they are not known.
func (j *journal) between(k Key, after, before string, did func(line, Key) bool) []string {
	a, ok := j.index[after]
	b, also := j.index[before]
	if !ok || !also {
		return nil
	}
	var all []string
	for i := a + 1; i < b; i++ {
		if l := j.lines[i-j.first]; did(l, k) {
			all = append(all, l.commit)
		}
	}
	return all
}

// untouched tells whether no commit after one, up to another, has changed a
// deployment; false if that is not known.
func (j *journal) untouched(k Key, after, upTo string) bool {
	a, ok := j.index[after]
	b, also := j.index[upTo]
	if !ok || !also || a > b {
		return false
	}
	for i := a + 1; i <= b; i++ {
		if j.lines[i-j.first].changes(k) {
			return false
		}
	}
	return true
}

// knows tells whether a commit is one of those that are noted.
func (j *journal) knows(commit string) bool {
	_, ok := j.index[commit]
	return ok
}

// later returns the later one of two commits, as far as they are known.
func (j *journal) later(a, b string) string {
	if !j.knows(a) || j.knows(b) && j.index[b] > j.index[a] {
		return b
	}
	return a
}

// repinned returns the newest commit, after one and up to another, that changed
// the pins of a deployment, or the commit of its manifests; "" if none has, or that
// is not known.
func (j *journal) repinned(k Key, after, upTo string) string {
	a, ok := j.index[after]
	b, also := j.index[upTo]
	if !ok || !also {
		return ""
	}
	for i := b; i > a; i-- {
		if l := j.lines[i-j.first]; l.repins(k) {
			return l.commit
		}
	}
	return ""
}

// readLines returns the lines of the commits after one that is known, up to tip.
// It is an empty list and false if tip does not descend from it by first
// parents within the bound.
func readLines(ctx context.Context, commits Commits, r *reader, written func(string) (Key, bool), known, tip string) ([]line, bool, error) {
	var lines []line
	var child *gitstate.Snapshot
	var failure error
	reached := false
	err := commits.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		snap, err := commits.Snapshot(ctx, c.ID)
		if err != nil {
			failure = err
			return false
		}
		if child != nil {
			l, err := readLine(ctx, r, written, child, snap)
			if err != nil {
				failure = err
				return false
			}
			lines = append(lines, l)
		}
		child = snap
		reached = c.ID == known
		return !reached && len(lines) < mostLines
	})
	if failure != nil {
		return nil, false, failure
	}
	slices.Reverse(lines)
	return lines, reached, err
}

// mostOwn is of how many commits a start asks which are a daemon's.
const mostOwn = 1000

// readOwn returns the lines of the newest commits up to tip, of which only those
// that a daemon has written tell what they changed: a daemon may have ended between
// that and recording it, and a person may have taken it back since.
func readOwn(ctx context.Context, commits Commits, daemon ledger.Person, tip string) ([]line, error) {
	var lines []line
	err := commits.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		l := line{commit: c.ID}
		if x, claimed := ledger.ParseChange(c.Message); claimed && daemon.Same(ledger.Person{Name: c.Committer.Name, Email: c.Committer.Email}) {
			l.keys = map[Key]bool{{x.Environment, x.Service}: true}
		}
		lines = append(lines, l)
		return len(lines) < mostOwn
	})
	if errors.Is(err, gitstate.ErrShallow) {
		err = nil // as far as the clone goes
	}
	slices.Reverse(lines)
	return lines, err
}

// readLine finds out what one commit changed.
func readLine(ctx context.Context, r *reader, written func(string) (Key, bool), child, parent *gitstate.Snapshot) (line, error) {
	l := line{commit: child.Commit(), keys: map[Key]bool{}}
	if k, ours := written(l.commit); ours {
		l.keys[k] = true
		return l, nil
	}
	changed, err := child.Changed(parent)
	if err != nil {
		return l, err
	}
	environments, services := map[desired.EnvironmentName]bool{}, map[desired.ServiceName]bool{}
	for _, name := range changed {
		folder, rest := cut(name)
		switch folder {
		case "services":
			svc, _ := cut(rest)
			services[desired.ServiceName(svc)] = true
		case "environments":
			if env, ok := stem(rest); ok {
				environments[env] = true
			}
		}
	}
	if len(environments) == 0 && len(services) == 0 {
		return l, nil
	}
	now, err := r.read(ctx, child.Commit())
	if err != nil {
		return l, err
	}
	then, err := r.read(ctx, parent.Commit())
	if err != nil {
		return l, err
	}
	for env := range environments {
		differing(l.keys, now.Repository, then.Repository, env)
	}
	for _, repo := range []*desired.Repository{now.Repository, then.Repository} {
		for svc := range services {
			for env := range repo.Environments {
				k := Key{env, svc}
				if d, ok := repo.Deployment(env, svc); ok && d.Source == "" && !l.changes(k) {
					l.keys[k] = false
				}
			}
		}
	}
	return l, nil
}

// differing notes the deployments of an environment that two commits do not
// ask for in the same way.
func differing(keys map[Key]bool, now, then *desired.Repository, env desired.EnvironmentName) {
	a, b := now.Environments[env], then.Environments[env]
	same := a != nil && b != nil && a.Namespace == b.Namespace && a.Cluster == b.Cluster && reflect.DeepEqual(a.Parameters, b.Parameters)
	for _, repo := range []*desired.Repository{now, then} {
		for svc := range repo.Services {
			k := Key{env, svc}
			x, ok := now.Deployment(env, svc)
			y, was := then.Deployment(env, svc)
			switch {
			case ok && was && (x.Source != y.Source || !ledger.ReleaseOf(x.Pins, "").SamePins(ledger.ReleaseOf(y.Pins, ""))):
				keys[k] = len(x.Problems) == 0 && len(y.Problems) == 0
			case ok != was, ok && !same:
				keys[k] = false
			}
		}
	}
}

func environmentFile(name desired.EnvironmentName) string {
	return "environments/" + string(name) + ".yaml"
}

// sameID tells whether a file or folder is the same in two trees.
func sameID(a, b desired.Tree, name string) (bool, error) {
	x, err := a.ID(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	y, err := b.ID(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return x == y, nil
}

func cut(name string) (folder, rest string) {
	folder, rest, _ = strings.Cut(name, "/")
	return folder, rest
}

// stem returns the environment that a file of environments/ is of.
func stem(file string) (desired.EnvironmentName, bool) {
	name, ok := strings.CutSuffix(file, ".yaml")
	return desired.EnvironmentName(name), ok && !strings.Contains(name, "/")
}
