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
	// pending are the indexes of lines that a daemon has written and that are not
	// known to be recorded.
	pending []int
	// broken says that main was rewritten, so that what was pending before is not
	// known any more.
	broken bool
	// short says that what is before the first line was not read, for all that
	// daemons have written there is recorded.
	short bool
}

// line is one commit of the first-parent line.
type line struct {
	commit string
	// keys are the deployments that it changed; true: from pins, or a commit of their
	// manifests, to others; false: otherwise, as by manifests that are read from the
	// very commit, or by a file that can't be read.
	keys map[Key]bool
	// own is the deployment that a daemon has written it for.
	own *Key
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
	j.pending, j.short = nil, false
}

// recall notes commits that came before the oldest one, oldest first.
func (j *journal) recall(lines []line) {
	j.first, j.short = j.first-len(lines), false
	j.lines = append(lines, j.lines...)
	for i, l := range lines {
		j.index[l.commit] = j.first + i
	}
}

// add notes commits that came after the newest one, oldest first.
func (j *journal) add(lines []line) {
	for _, l := range lines {
		i := j.first + len(j.lines)
		j.index[l.commit] = i
		j.lines = append(j.lines, l)
		if l.own != nil {
			j.pending = append(j.pending, i)
		}
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

// settled returns the newest commit up to which all that daemons have written is
// recorded, given up to which commit the record of a deployment tells; "" if that
// is not known.
func (j *journal) settled(told func(Key) string) string {
	j.pending = slices.DeleteFunc(j.pending, func(i int) bool {
		if i < j.first {
			return true // as if it was long ago at a start
		}
		at, known := j.index[told(*j.lines[i-j.first].own)]
		return known && at >= i
	})
	last := j.first + len(j.lines)
	if len(j.pending) > 0 {
		last = j.pending[0]
	}
	if j.broken || last <= j.first {
		return ""
	}
	return j.lines[last-1-j.first].commit
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

// lineReader reads what commits of main have changed.
type lineReader struct {
	commits Commits
	reader  *reader
	daemon  ledger.Person
	written func(commit string) (Key, bool) // by this process
}

// since returns the lines of the commits after one that is known, up to tip.
// It is an empty list and false if tip does not descend from it by first
// parents within the bound.
func (r lineReader) since(ctx context.Context, known, tip string) ([]line, bool, error) {
	var lines []line
	var child *gitstate.Snapshot
	var own *Key
	var failure error
	reached := false
	err := r.commits.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		snap, err := r.commits.Snapshot(ctx, c.ID)
		if err != nil {
			failure = err
			return false
		}
		if child != nil {
			l, err := r.line(ctx, child, snap)
			if err != nil {
				failure = err
				return false
			}
			l.own = own
			lines = append(lines, l)
		}
		child, own = snap, r.own(c)
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

// newest returns the lines of the newest commits up to tip, of which only those
// that a daemon has written tell what they changed: a daemon may have ended between
// that and recording it, and a person may have taken it back since. Up to settled all
// of them are known to be recorded; it is not read further than that if no daemon has
// written anything since.
func (r lineReader) newest(ctx context.Context, settled, tip string) (lines []line, short bool, err error) {
	wrote := false // since then
	err = r.commits.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		l := line{commit: c.ID, own: r.own(c)}
		if l.own != nil {
			l.keys = map[Key]bool{*l.own: true}
		}
		lines = append(lines, l)
		short = c.ID == settled && !wrote
		wrote = wrote || l.own != nil
		return !short && len(lines) < mostOwn
	})
	if errors.Is(err, gitstate.ErrShallow) {
		err = nil // as far as the clone goes
	}
	slices.Reverse(lines)
	return lines, short, err
}

// own returns the deployment for which a daemon says to have written a commit; nil
// if none has, or it is of none, as a hold.
func (r lineReader) own(c gitstate.CommitInfo) *Key {
	x, claimed := ledger.ParseChange(c.Message)
	if !claimed || x.Service == "" || !r.daemon.Same(ledger.Person{Name: c.Committer.Name, Email: c.Committer.Email}) {
		return nil
	}
	return &Key{x.Environment, x.Service}
}

// line finds out what one commit changed.
func (r lineReader) line(ctx context.Context, child, parent *gitstate.Snapshot) (line, error) {
	l := line{commit: child.Commit(), keys: map[Key]bool{}}
	if k, ours := r.written(l.commit); ours {
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
	now, err := r.reader.read(ctx, child.Commit())
	if err != nil {
		return l, err
	}
	then, err := r.reader.read(ctx, parent.Commit())
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

// SameID tells whether a file or folder is the same in two trees.
func SameID(a, b desired.Tree, name string) (bool, error) {
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
