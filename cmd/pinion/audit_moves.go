package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/audit"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// claimed looks whether a commit of main asked for what the ledgers say.
func (r *auditReader) claimed(ctx context.Context, at int) error {
	claims := r.claims[r.line[at].ID]
	if len(claims) == 0 {
		return nil
	}
	snap, err := r.archive.Snapshot(ctx, r.line[at].ID)
	if err != nil {
		return err
	}
	rules, _, err := r.rulesAt(ctx, r.line[at].ID)
	if err != nil {
		return err
	}
	for _, k := range claims {
		var asked audit.Asked
		if asked.Deployment, err = r.deployment(snap, rules.Repository, k.Environment(), k.Service()); err != nil {
			return err
		}
		folder := "services/" + string(k.Service())
		if asked.Folder, err = idOf(snap, folder); err != nil {
			return err
		}
		if source, ok := r.place[k.Source()]; ok && source >= at {
			asked.Before, asked.Source = true, asked.Folder
			if source != at {
				then, err := r.archive.Snapshot(ctx, k.Source())
				if err != nil {
					return err
				}
				if asked.Source, err = idOf(then, folder); err != nil {
					return err
				}
			}
		}
		r.tell(k.Judge(asked)...)
	}
	return nil
}

// judge looks at a commit of main.
func (r *auditReader) judge(ctx context.Context, at int) error {
	c, err := r.merge(ctx, r.line[at])
	if err != nil {
		return err
	}
	change, claimed := c.Claim()
	daemon := r.usesDaemon(c.Committer)
	branch := r.mainBranch()
	tell := func(severity audit.Severity, rule audit.Rule, env desired.EnvironmentName, svc desired.ServiceName, meaning, format string, args ...any) {
		r.tell(audit.Finding{Severity: severity, Rule: rule, Branch: branch, Commit: c.ID, Time: c.Time, Environment: env, Service: svc, Message: fmt.Sprintf(format, args...), Meaning: meaning})
	}
	requested := daemon && claimed && len(change.RequestedBy) > 0
	holds := requested && (change.Kind == ledger.ChangeHeld || change.Kind == ledger.ChangeReleased)
	moves := claimed && !(daemon && change.Open()) && (change.Kind == ledger.ChangePromoted || change.Kind == ledger.ChangeTracked || change.Kind == ledger.ChangeRolledBack && daemon) ||
		requested && change.Kind == ledger.ChangePinned || holds
	if daemon && !moves {
		tell(audit.Error, audit.RuleDaemon, "", "", "somebody has used the daemon's name", "it was committed by %s, the daemon, and is neither a promotion nor a tracked version nor a rollback, nor what somebody has asked it for", c.Committer)
	}
	if !moves && !daemon {
		like, found, err := r.imitated(ctx, at, c)
		switch {
		case err != nil:
			return err
		case len(found) > 0:
			r.tell(found...)
		case like:
			return nil
		}
	}
	if moves && r.only != "" && change.Environment != r.only || !moves && !r.flags.verbose {
		return nil
	}
	// The account with which the daemon merges at a forge may have its name.
	forge := moves && change.Kind == ledger.ChangePromoted && !r.isDaemon(c.Committer)
	if forge {
		if forge, err = r.byPullRequest(ctx, r.line[at], change); err != nil {
			return err
		}
	}
	if daemon && r.signers != nil && !forge {
		if err := r.signature(ctx, branch, change.Environment, change.Service, c); err != nil {
			return err
		}
		r.mu.Lock()
		r.checked++
		r.mu.Unlock()
	}
	if !moves {
		snap, parent, err := r.snapshots(ctx, at)
		if err != nil {
			return err
		}
		return r.pins(snap, parent, tell)
	}
	r.count(change, requested)
	found, err := r.move(ctx, at, c, change, daemon)
	if err != nil {
		return err
	}
	r.tell(found...)
	return nil
}

func (r *auditReader) count(change ledger.Change, requested bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch change.Kind {
	case ledger.ChangePromoted:
		r.promotions++
	case ledger.ChangeTracked:
		r.tracked++
	case ledger.ChangeRolledBack:
		r.rollbacks++
	}
	if requested {
		r.requests++
	}
}

// imitated looks at a commit that is no move: whether its message, or that of a
// commit which it merges, has the look of one nevertheless. It is one after all,
// and then like says so, if what it does is what policy allowed: a forge may have
// written the message anew.
func (r *auditReader) imitated(ctx context.Context, at int, c audit.Commit) (like bool, found []audit.Finding, err error) {
	if change, ok := ledger.Imitates(c.Message); ok {
		forge := false
		if change.Kind == ledger.ChangePromoted && change.Service != "" && change.Environment != "" {
			if forge, err = r.byPullRequest(ctx, r.line[at], change); err != nil {
				return false, nil, err
			}
		}
		if !forge {
			return true, []audit.Finding{audit.Imitation(r.mainBranch(), c, change)}, nil
		}
		r.count(change, false)
		found, err = r.move(ctx, at, c, change, false)
		return true, found, err
	}
	for _, side := range r.sides[c.ID] {
		change, claimed := ledger.Claim(side.Message, "")
		if !claimed {
			change, _ = ledger.Imitates(side.Message)
		}
		if r.isLost(side.ID) {
			continue // told of the entry that names it
		}
		var wrong []audit.Finding
		if change.Service != "" && change.Environment != "" {
			moves, err := r.moves(ctx, at, change)
			if err != nil {
				return false, nil, err
			}
			if !moves {
				continue // it was taken back there
			}
			forge := true
			if change.Open() {
				if forge, err = r.byPullRequest(ctx, r.line[at], change); err != nil {
					return false, nil, err
				}
			}
			if forge {
				if wrong, err = r.move(ctx, at, c, change, false); err != nil {
					return false, nil, err
				}
				if !wrongly(wrong) {
					r.count(change, false)
					return true, wrong, nil
				}
			}
		}
		found = append(found, audit.Brought(r.mainBranch(), c, side.ID, change, wrong))
	}
	return len(found) > 0, found, nil
}

// snapshots are a commit of main and its first parent; nil: it has none.
func (r *auditReader) snapshots(ctx context.Context, at int) (snap, parent *gitstate.Snapshot, err error) {
	if snap, err = r.archive.Snapshot(ctx, r.line[at].ID); err == nil && at+1 < len(r.line) {
		parent, err = r.archive.Snapshot(ctx, r.line[at+1].ID)
	}
	return snap, parent, err
}

// moves tells whether a commit of main does anything to what a change is about.
func (r *auditReader) moves(ctx context.Context, at int, change ledger.Change) (bool, error) {
	snap, parent, err := r.snapshots(ctx, at)
	if err != nil || parent == nil {
		return true, err
	}
	rules, _, err := r.rulesAt(ctx, parent.Commit())
	if err != nil {
		return false, err
	}
	is, err := r.deployment(snap, rules.Repository, change.Environment, change.Service)
	if err != nil {
		return false, err
	}
	was, err := r.deployment(parent, rules.Repository, change.Environment, change.Service)
	if err != nil || is == nil || was == nil {
		return is != was, err
	}
	return !ledger.ReleaseOf(is.Pins, is.Source).Equal(ledger.ReleaseOf(was.Pins, was.Source)), nil
}

// move judges a commit of main by what it claims.
func (r *auditReader) move(ctx context.Context, at int, c audit.Commit, change ledger.Change, daemon bool) ([]audit.Finding, error) {
	branch := r.mainBranch()
	wrong := func(meaning, format string, args ...any) []audit.Finding {
		return []audit.Finding{{Severity: audit.Error, Rule: audit.RuleOf(change), Branch: branch, Commit: c.ID, Time: c.Time, Environment: change.Environment, Service: change.Service, Message: fmt.Sprintf(format, args...), Meaning: meaning}}
	}
	snap, parent, err := r.snapshots(ctx, at)
	if err != nil {
		return nil, err
	}
	m := audit.Move{Branch: branch, Commit: c, Change: change, Open: change.Open(), ByDaemon: daemon, Past: r.past(ctx, change.Service)}
	if parent == nil {
		return wrong("somebody has written it by hand", "it is the first commit of %s, and claims to be a move", r.ledgers.mainName), nil
	}
	if m.Changed, err = snap.Changed(parent); err != nil {
		return nil, err
	}
	if change.Kind == ledger.ChangeHeld || change.Kind == ledger.ChangeReleased {
		if len(m.Changed) == 1 {
			if m.Is, err = contentOf(snap, m.Changed[0]); err != nil {
				return nil, err
			}
		}
		return audit.Hold(m), nil
	}
	file := "environments/" + string(change.Environment) + ".yaml"
	for _, s := range []*gitstate.Snapshot{snap, parent} {
		if _, err := s.ReadFile(file); errors.As(err, new(*gitstate.KindError)) {
			return wrong("somebody has put something else into its place", "what it claims can't be told by %s: %v", file, err), nil
		}
	}
	if m.Is, err = contentOf(snap, file); err != nil {
		return nil, err
	}
	var broken error
	if m.Editor, broken, err = r.editor(parent, file); err != nil {
		return nil, err
	}
	if broken != nil {
		return wrong("the file was broken, and somebody has changed it by hand", "what it claims can't be done to %s: %v", file, broken), nil
	}
	if m.Rules, m.Locations, err = r.rulesAt(ctx, parent.Commit()); err != nil {
		return nil, err
	}
	if m.Rules.AsksArtifacts(change.Environment, change.Service) {
		if err := r.fetched(); err != nil {
			return nil, err
		}
	}
	if m.Pinned, err = r.deployment(parent, m.Rules.Repository, change.Environment, change.Service); err != nil {
		return nil, err
	}
	if m.Open {
		is, err := r.deployment(snap, m.Rules.Repository, change.Environment, change.Service)
		if err != nil {
			return nil, err
		}
		m.Change = audit.Opened(change, m.Pinned, is)
	}
	if p, _, _ := m.Rules.Stage(change.Environment, change.Service); p != nil {
		if m.Rules.PipelineBlob, err = idOf(parent, p.File); err != nil {
			return nil, err
		}
	}
	m.RulesOf = func(commit string) (policy.Rules, error) {
		if _, ok := r.place[commit]; !ok {
			return policy.Rules{}, nil // told of the entry that pins it
		}
		rules, _, err := r.rulesAt(ctx, commit)
		return rules, err
	}
	m.Shelf, m.Later, m.Shelves = r.shelf, r.later, r.around
	judge := audit.Promotion
	switch change.Kind {
	case ledger.ChangeRolledBack:
		judge = audit.Rollback
	case ledger.ChangeTracked:
		judge = audit.Tracked
	case ledger.ChangePinned:
		judge = audit.Pin
	}
	var failure error
	m.Older = func(commit, than string) bool {
		older, err := r.before(ctx, commit, than)
		failure = errors.Join(failure, err)
		return older
	}
	found, err := judge(m)
	if err == nil && change.Kind == ledger.ChangePromoted && !daemon && wrongly(found) {
		found, err = r.mergedLate(ctx, at, m, found)
	}
	if err = errors.Join(err, failure); err != nil {
		return nil, err
	}
	if r.edited[file].id, err = idOf(snap, file); err != nil {
		return nil, err
	}
	if wrongly(found) {
		delete(r.edited, file) // it may have something else in it
	}
	return found, nil
}

func wrongly(found []audit.Finding) bool {
	return slices.ContainsFunc(found, func(f audit.Finding) bool { return f.Severity == audit.Error })
}

// forgeTime is how long it may take a forge to merge what was let in.
const forgeTime = time.Minute

// mergedLate judges a promotion by pull request once more, by main as it was up to
// a minute before. A forge merges onto whatever main is by then, so what has just
// come, a hold for one, can't have been known to who had it merged.
func (r *auditReader) mergedLate(ctx context.Context, at int, m audit.Move, found []audit.Finding) ([]audit.Finding, error) {
	env, svc := m.Change.Environment, m.Change.Service
	if _, stage, _ := m.Rules.Stage(env, svc); stage == nil || !stage.ByPullRequest {
		return found, nil
	}
	for i := at + 2; i < len(r.line); i++ {
		// What says that it is older than what it stands on shows no haste.
		if after := m.Commit.Time.Sub(r.line[i-1].Committer.Time); after < 0 || after > forgeTime {
			break
		}
		snap, err := r.archive.Snapshot(ctx, r.line[i].ID)
		if err != nil {
			return nil, err
		}
		then := m
		if then.Rules, then.Locations, err = r.rulesAt(ctx, r.line[i].ID); err != nil {
			return nil, err
		}
		if then.Pinned, err = r.deployment(snap, then.Rules.Repository, env, svc); err != nil {
			return nil, err
		}
		if p, _, _ := then.Rules.Stage(env, svc); p != nil {
			if then.Rules.PipelineBlob, err = idOf(snap, p.File); err != nil {
				return nil, err
			}
		}
		again, err := audit.Promotion(then)
		if err != nil {
			return nil, err
		}
		if !wrongly(again) {
			return append(again, m.MergedLate(r.line[i].ID)), nil
		}
	}
	return found, nil
}

// edited is an environment's file that was parsed for one commit, and that a
// later one goes on with.
type edited struct {
	id     string
	editor *desired.Editor
}

// editor has a file as a commit has it; or else it says what is wrong with it.
func (r *auditReader) editor(snap *gitstate.Snapshot, file string) (ed *desired.Editor, wrong, err error) {
	id, err := idOf(snap, file)
	if err != nil {
		return nil, nil, err
	}
	if x := r.edited[file]; x != nil && x.id == id {
		return x.editor, nil, nil
	}
	data, err := contentOf(snap, file)
	if err != nil {
		return nil, nil, err
	}
	if ed, wrong = desired.NewEditor(file, data); wrong == nil {
		r.edited[file] = &edited{id, ed}
	}
	return ed, wrong, nil
}

// contentOf reads a file; nil: there is none, but maybe something else.
func contentOf(snap *gitstate.Snapshot, name string) ([]byte, error) {
	data, err := snap.ReadFile(name)
	return data, known(err)
}

// pins notes which versions a person has changed.
func (r *auditReader) pins(snap, parent *gitstate.Snapshot, tell func(audit.Severity, audit.Rule, desired.EnvironmentName, desired.ServiceName, string, string, ...any)) error {
	names, err := changed(snap, parent)
	if err != nil {
		return err
	}
	for _, file := range names {
		name, ok := strings.CutPrefix(file, "environments/")
		env := desired.EnvironmentName(strings.TrimSuffix(name, ".yaml"))
		if !ok || !strings.HasSuffix(name, ".yaml") || strings.Contains(name, "/") || r.only != "" && env != r.only {
			continue
		}
		now, err := r.environment(snap, env)
		if err != nil {
			return err
		}
		then := &desired.Environment{}
		if parent != nil {
			if then, err = r.environment(parent, env); err != nil {
				return err
			}
		}
		for _, line := range pinChanges(then, now) {
			tell(audit.Note, audit.RulePin, env, desired.ServiceName(line.of), "", "a person has changed %s", line.text)
		}
	}
	return nil
}

type pinChange struct{ of, text string }

// pinChanges says what two versions of an environment's file pin otherwise. An
// artifact has its service's name as a rule.
func pinChanges(then, now *desired.Environment) []pinChange {
	if then == nil {
		then = &desired.Environment{}
	}
	if now == nil {
		now = &desired.Environment{}
	}
	var all []pinChange
	seen := map[desired.ArtifactName]bool{}
	for _, pins := range []map[desired.ArtifactName]desired.Pin{then.Pins, now.Pins} {
		for _, a := range slices.Sorted(maps.Keys(pins)) {
			x, y := dash(then.Pins[a].Image.Reference), dash(now.Pins[a].Image.Reference)
			if x != y && !seen[a] {
				seen[a] = true
				all = append(all, pinChange{string(a), fmt.Sprintf("%s: %s → %s", a, x, y)})
			}
		}
	}
	told := map[desired.ServiceName]bool{}
	for _, sources := range []map[desired.ServiceName]string{then.Manifests, now.Manifests} {
		for _, svc := range slices.Sorted(maps.Keys(sources)) {
			x, y := dash(then.Manifests[svc]), dash(now.Manifests[svc])
			if x != y && !told[svc] {
				told[svc] = true
				all = append(all, pinChange{string(svc), fmt.Sprintf("the manifests of %s: %.12s → %.12s", svc, x, y)})
			}
		}
	}
	return all
}

// past reads what a ledger knew of a service.
func (r *auditReader) past(ctx context.Context, svc desired.ServiceName) func(desired.EnvironmentName) audit.Past {
	return func(env desired.EnvironmentName) audit.Past {
		return audit.Past{Book: r.books[env], Service: svc, Record: func(entry string) (ledger.Record, error) {
			key := string(svc) + " " + entry
			if record, ok := r.records[key]; ok {
				return record, nil
			}
			snap, err := r.archive.Snapshot(ctx, entry)
			if err != nil {
				return ledger.Record{}, err
			}
			file := ledger.RecordFile(svc)
			data, err := contentOf(snap, file)
			if err != nil || data == nil {
				return ledger.Record{}, err
			}
			record, err := ledger.DecodeRecord(file, data)
			if err != nil {
				return ledger.Record{}, nil // told of that entry: it is as if it were not there
			}
			if len(r.records) >= 100 {
				clear(r.records)
			}
			r.records[key] = record
			return record, nil
		}}
	}
}

// before tells whether a commit of main comes before another.
func (r *auditReader) before(ctx context.Context, commit, than string) (bool, error) {
	if commit == than {
		return false, nil
	}
	a, ok := r.place[commit]
	b, also := r.place[than]
	if ok && also {
		return a > b, nil
	}
	older, err := r.archive.IsAncestor(ctx, commit, than)
	if errors.Is(err, gitstate.ErrNoCommit) {
		return false, nil // told of the entry that names it
	}
	return older, err
}
