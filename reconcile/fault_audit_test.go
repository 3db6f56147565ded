package reconcile_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// told is a commit as git log tells it.
type told struct {
	id        string
	at        time.Time
	committer string
	message   string
}

// history returns the commits of a branch of the remote, oldest first.
func (h *house) history(branch string) []told {
	h.Helper()
	out, err := h.tryGit("--git-dir="+h.remote, "log", "--reverse", "--format=%H%n%cI%n%cn%n%B%x01", branch)
	if err != nil {
		h.Fatalf("git log %s: %v\n%s", branch, err, out)
	}
	var all []told
	for _, text := range strings.Split(out, "\x01") {
		parts := strings.SplitN(strings.TrimLeft(text, "\n"), "\n", 4)
		if len(parts) < 4 {
			continue
		}
		at, err := time.Parse(time.RFC3339, parts[1])
		h.must(err)
		all = append(all, told{parts[0], at, parts[2], strings.TrimRight(parts[3], "\n") + "\n"})
	}
	return all
}

// blobs returns the files that are named COMMIT:PATH; nil for one that is not
// there.
func (h *house) blobs(names []string) [][]byte {
	h.Helper()
	cmd := exec.Command("git", "--git-dir="+h.remote, "cat-file", "--batch")
	cmd.Stdin = strings.NewReader(strings.Join(names, "\n") + "\n")
	out, err := cmd.Output()
	h.must(err)
	r := bufio.NewReader(bytes.NewReader(out))
	all := make([][]byte, len(names))
	for i := range names {
		head, err := r.ReadString('\n')
		h.must(err)
		if strings.HasSuffix(head, " missing\n") {
			continue
		}
		fields := strings.Fields(head)
		size, err := strconv.Atoi(fields[len(fields)-1])
		h.must(err)
		all[i] = make([]byte, size)
		_, err = io.ReadFull(r, all[i])
		h.must(err)
		_, err = r.Discard(1)
		h.must(err)
	}
	return all
}

// logged makes the remote keep a log of where its branches were, for the
// audit.
func (h *house) logged() {
	h.git("--git-dir="+h.remote, "config", "core.logAllRefUpdates", "always")
}

// audit is what a whole history comes to.
type audit struct {
	entries    map[string][]ledger.Entry // by environment, in order
	counts     map[string]int            // how often an entry's URL or comment is there
	ids        map[string]string         // the branch that has a commit
	entered    []entered
	proofs     []proof
	promotions int
	rollbacks  int
	total      int // entries
}

// entered is a promotion as the ledger has it, and what was recorded before.
type entered struct {
	before ledger.Record
	entry  ledger.Entry
}

// proof is an entry that a promotion rests on.
type proof struct {
	move, from string
	service    desired.ServiceName
	release    ledger.Release
}

// lawful reads the whole history of the remote and checks all that is promised
// of it, by git and by the rules of the ledger, and not by what a clerk says.
func (h *house) lawful() *audit {
	h.Helper()
	a := &audit{entries: map[string][]ledger.Entry{}, counts: map[string]int{}, ids: map[string]string{}}
	devtest.Fsck(h, h.remote)
	for _, b := range strings.Fields(h.git("--git-dir="+h.remote, "for-each-ref", "--format=%(refname:short)", "refs/heads")) {
		moves := h.moves(b) // before the history, for a push may still be on its way
		history := h.history(b)
		h.forward(b, moves, history)
		for _, c := range history {
			a.ids[c.id] = b
		}
		if b != "main" {
			h.lawfulLedger(a, b, history)
		}
	}
	h.lawfulMain(a)
	h.proven(a.proofs)
	return a
}

// moves is the remote's own log of a branch: from where it went, and to where.
func (h *house) moves(branch string) [][2]string {
	h.Helper()
	data, err := os.ReadFile(filepath.Join(h.remote, "logs/refs/heads", branch))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	h.must(err)
	var all [][2]string
	for line := range strings.Lines(string(data)) {
		all = append(all, [2]string{line[:40], line[41:81]})
	}
	return all
}

// forward checks by the remote's own log that a branch only ever moved
// forward, each time from where it was.
func (h *house) forward(branch string, moves [][2]string, history []told) {
	h.Helper()
	place := map[string]int{}
	for i, c := range history {
		place[c.id] = i
	}
	last := ""
	for _, m := range moves {
		old, next := m[0], m[1]
		n, there := place[next]
		switch {
		case last != "" && old != last:
			h.Errorf("%s moved from %s when it was at %s", branch, old, last)
		case !there:
			h.Errorf("%s was at %s, which is not in its history", branch, next)
		case last != "" && n <= place[last]:
			h.Errorf("%s moved back from %s to %s", branch, last, next)
		}
		last = next
	}
}

// lawfulLedger follows a ledger entry by entry.
func (h *house) lawfulLedger(a *audit, branch string, history []told) {
	h.Helper()
	records := map[desired.ServiceName]ledger.Record{}
	var entries []ledger.Entry
	var names []string
	for _, c := range history {
		e, err := ledger.ParseMessage(c.message, c.at)
		if err != nil {
			h.Errorf("%s, entry %s: %v", branch, c.id, err)
			return
		}
		entries = append(entries, e)
		names = append(names, c.id+":"+ledger.RecordFile(e.Service))
	}
	if len(entries) == 0 {
		return
	}
	trees := h.blobs(names)
	for i, e := range entries {
		id, before := history[i].id, records[e.Service]
		next, err := before.Apply(e)
		if err != nil {
			h.Errorf("%s, entry %s: %v", branch, id, err)
			continue
		}
		if got, want := string(trees[i]), string(next.Encode()); got != want {
			h.Errorf("%s, entry %s: the tree is not what the entries lead to:\n%s\nwant\n%s", branch, id, got, want)
		}
		if no, refused := before.Refuses(e.Release); e.Event == ledger.EventPinned && e.Cause == ledger.CausePromotion && refused {
			h.Errorf("%s, entry %s: %s comes back by automation, and was refused: %s", branch, id, e.Release.Version(), no.Reason)
		}
		if e.Event == ledger.EventPinned && e.Cause == ledger.CausePromotion {
			a.entered = append(a.entered, entered{before, e})
		}
		for _, c := range e.Checks {
			if e.Event == ledger.EventCheck && c.URL != "" {
				a.counts[c.URL]++
			}
		}
		if e.Approval != nil && e.Approval.Comment != "" {
			a.counts[e.Approval.Comment]++
		}
		records[e.Service] = next
	}
	env := strings.TrimPrefix(branch, gitstate.LedgerPrefix)
	a.entries[env] = entries
	a.total += len(entries)
}

// wish is what a commit asks for of one service in one environment.
func wishes(repo *desired.Repository) map[reconcile.Key]ledger.Release {
	all := map[reconcile.Key]ledger.Release{}
	for _, d := range repo.Deployments() {
		all[reconcile.Key{Environment: d.Environment.Name, Service: d.Service.Name}] = ledger.ReleaseOf(d.Pins, d.Source)
	}
	return all
}

// lawfulMain checks the commits on main that automation has written.
func (h *house) lawfulMain(a *audit) {
	h.Helper()
	ctx := context.Background()
	m, err := gitstate.Open(ctx, gitstate.Options{URL: h.remote, Dir: filepath.Join(h.TempDir(), "audit")})
	h.must(err)
	defer m.Close()
	_, err = m.Fetch(ctx)
	h.must(err)
	var parent *reconcile.Commit
	var had map[reconcile.Key]ledger.Release
	brought := map[reconcile.Key][]ledger.Release{} // by automation, since a person's last word
	for _, c := range h.history("main") {
		commit, err := reconcile.ReadCommit(ctx, m, c.id, parent)
		h.must(err)
		has := wishes(commit.Repository)
		var changed []reconcile.Key
		for k, x := range has {
			if y, ok := had[k]; parent != nil && (!ok || !x.Equal(y)) {
				changed = append(changed, k)
			}
		}
		for k := range had {
			if _, ok := has[k]; !ok {
				changed = append(changed, k)
			}
		}
		if c.committer != "Pinion" {
			for _, k := range changed {
				delete(brought, k)
			}
		} else {
			h.lawfulMove(a, m, c, parent, commit, changed, had, has, brought)
		}
		parent, had = commit, has
	}
}

func (h *house) lawfulMove(a *audit, m *gitstate.Mirror, c told, parent, commit *reconcile.Commit, changed []reconcile.Key, had, has map[reconcile.Key]ledger.Release, brought map[reconcile.Key][]ledger.Release) {
	h.Helper()
	wrong := func(format string, args ...any) {
		h.Helper()
		h.Errorf("main, %s: %s", c.id, fmt.Sprintf(format, args...)+"\n"+c.message)
	}
	change, ok := ledger.ParseChange(c.message)
	if !ok {
		wrong("it is not one of the commits that the daemon writes")
		return
	}
	k := reconcile.Key{Environment: change.Environment, Service: change.Service}
	if len(changed) != 1 || changed[0] != k {
		wrong("it changes %v", changed)
		return
	}
	if files, err := commit.Snapshot.Changed(parent.Snapshot); err != nil || len(files) != 1 || files[0] != "environments/"+string(k.Environment)+".yaml" {
		wrong("it touches %v (%v)", files, err)
	}
	want := change.Release
	if want.Source == "" {
		want.Source = had[k].Source
	}
	if !has[k].Equal(want) {
		wrong("it leads to %v and claims %v", has[k], want)
	}
	if change.Kind == ledger.ChangeRolledBack {
		a.rollbacks++
		return
	}
	a.promotions++
	for _, x := range brought[k] {
		if x.Equal(has[k]) {
			wrong("automation has promoted %v before, and no person has asked since", x)
		}
	}
	brought[k] = append(brought[k], has[k])
	for _, hold := range parent.Repository.Holds {
		if hold.Covers(k.Environment, k.Service) && !hold.Expired(c.at) {
			wrong("the hold %s covered it", hold.Name)
		}
	}
	pipeline := parent.Repository.StagesOf(k.Service)
	if pipeline == nil || pipeline.Stage(k.Environment) == nil {
		wrong("no pipeline leads there")
		return
	}
	after := pipeline.Stage(k.Environment).After
	if len(change.From) != len(after) {
		wrong("it rests on %v, and the stage comes after %v", change.From, after)
	}
	for _, from := range change.From {
		env, entry, _ := strings.Cut(from, "@")
		if !slices.Contains(after, desired.EnvironmentName(env)) {
			wrong("it rests on %s, and the stage comes after %v", from, after)
		}
		a.proofs = append(a.proofs, proof{c.id, entry, k.Service, change.Release})
	}
}

// proven checks that what was promoted is verified in the entries that it
// rests on.
func (h *house) proven(proofs []proof) {
	h.Helper()
	if len(proofs) == 0 {
		return
	}
	var names []string
	for _, p := range proofs {
		names = append(names, p.from+":"+ledger.RecordFile(p.service))
	}
	for i, data := range h.blobs(names) {
		p := proofs[i]
		r, err := ledger.DecodeRecord(p.from, data)
		if err != nil {
			h.Errorf("main, %s: it rests on %s: %v", p.move, p.from, err)
			continue
		}
		if !proves(r, p.release) {
			h.Errorf("main, %s: %s does not say that %v is verified: %s is %s there", p.move, p.from, p.release, r.Deployment.Release.Version(), r.Deployment.State)
		}
	}
}

// proves tells whether a record says that a release was verified.
func proves(r ledger.Record, x ledger.Release) bool {
	is := func(y ledger.Release) bool { return y.SamePins(x) && (x.Source == "" || x.Source == y.Source) }
	if r.Deployment.State == ledger.StateVerified && is(r.Deployment.Release) {
		return true
	}
	return r.Verified != nil && is(r.Verified.Release) ||
		slices.ContainsFunc(r.Previous, func(p ledger.Past) bool { return p.State == ledger.StateVerified && is(p.Release) })
}
