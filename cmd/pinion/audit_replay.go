package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/audit"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

// auditReader reads for one goroutine.
type auditReader struct {
	*auditor
	archive      archive
	clone        *gitstate.Clone                 // to be closed; nil: it is shared
	environments map[string]*desired.Environment // by name and id of the file
	edited       map[string]*edited              // by name of the file
	records      map[string]ledger.Record        // by service and entry
	known        *artifact.Shelf                 // that was asked for last
}

func commitOf(c gitstate.CommitInfo) audit.Commit {
	return audit.Commit{ID: c.ID, Parents: c.Parents, Message: c.Message, Time: c.Committer.Time,
		Author: ledger.Person{Name: c.Author.Name, Email: c.Author.Email}, Committer: ledger.Person{Name: c.Committer.Name, Email: c.Committer.Email}}
}

// merge is a commit of main with the message of the one that it merges.
func (r *auditReader) merge(ctx context.Context, info gitstate.CommitInfo) (audit.Commit, error) {
	c := commitOf(info)
	if len(c.Parents) > 1 {
		second, err := r.archive.Info(ctx, c.Parents[1])
		if err != nil {
			return c, err
		}
		c.Merged = second.Message
	}
	change, _ := ledger.Claim(c.Message, c.Merged)
	var err error
	if change.Open() {
		c.ByPullRequest, err = r.byPullRequest(ctx, info, change)
	}
	return c, err
}

// byPullRequest tells whether the stage that a change names was entered by pull
// requests where a commit of main began.
func (r *auditReader) byPullRequest(ctx context.Context, info gitstate.CommitInfo, change ledger.Change) (bool, error) {
	if len(info.Parents) == 0 {
		return false, nil
	}
	rules, _, err := r.rulesAt(ctx, info.Parents[0])
	return rules.ByPullRequest(change.Environment, change.Service), err
}

// replay verifies a ledger.
func (r *auditReader) replay(ctx context.Context, env desired.EnvironmentName) error {
	fail := func(err error) error {
		return fmt.Errorf("read %s: %w; `git fsck` tells what is missing", ledger.Branch(env), err)
	}
	replay := audit.NewReplay(env)
	mine := map[committer][]committed{}
	checked := 0
	err := r.forward(ctx, r.ledgers.Tips[env], func(c audit.Commit, files audit.Files) error {
		step, found, err := replay.Next(c, files)
		if err != nil {
			return err
		}
		r.tell(found...)
		by := committer{c.Committer, ledger.Branch(env), env}
		mine[by] = append(mine[by], committed{c.ID, c.Time.Unix()})
		if r.only != "" && env != r.only {
			return nil // it is needed for what comes from there
		}
		if r.signers != nil {
			checked++
			if err := r.signature(ctx, ledger.Branch(env), env, step.Entry.Service, c); err != nil {
				return err
			}
		}
		if !step.Sound {
			return nil
		}
		return r.entry(ctx, c, step)
	})
	if err != nil {
		return fail(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.books[env] = replay.Book()
	r.entries += replay.Book().Len()
	r.checked += checked
	maps.Copy(r.committed, mine)
	return nil
}

// forward calls next with each commit of a branch, the first one first, and with
// what it has done to the files.
func (r *auditReader) forward(ctx context.Context, tip string, next func(audit.Commit, audit.Files) error) error {
	// From the newest back to the first, and then forward. A branch may be too
	// long to keep all that it says.
	const mostKept = 20_000
	var all []gitstate.CommitInfo
	err := r.archive.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		if len(all) >= mostKept {
			c = gitstate.CommitInfo{ID: c.ID}
		}
		all = append(all, c)
		return true
	})
	if err != nil {
		return err
	}
	var before *gitstate.Snapshot
	for _, info := range slices.Backward(all) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if info.Tree == "" {
			if info, err = r.archive.Info(ctx, info.ID); err != nil {
				return err
			}
		}
		snap, err := r.archive.Snapshot(ctx, info.ID)
		if err != nil {
			return err
		}
		files := audit.Files{ID: func(name string) (string, error) { return idOf(snap, name) }, Read: snap.ReadFile, Odd: func(name string) (bool, error) {
			plain, err := snap.Plain(name)
			return !plain && err == nil, known(err)
		}}
		if files.Changed, err = changed(snap, before); err != nil {
			return err
		}
		before = snap
		if err := next(commitOf(info), files); err != nil {
			return err
		}
	}
	return nil
}

// changed lists the files that differ from those of the commit before; nil:
// there is none.
func changed(snap, before *gitstate.Snapshot) ([]string, error) {
	if before != nil {
		return snap.Changed(before)
	}
	var all []string
	err := fs.WalkDir(snap, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, name)
		}
		return err
	})
	return all, err
}

// known leaves an error out that says what is there, and not that one could not
// look.
func known(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*gitstate.KindError)) {
		return nil
	}
	return err
}

// idOf returns the id of a file or a folder, "" if there is none.
func idOf(snap *gitstate.Snapshot, name string) (string, error) {
	id, err := snap.ID(name)
	return id, known(err)
}

// signature tells what is wrong with a commit's signature.
func (r *auditReader) signature(ctx context.Context, branch string, env desired.EnvironmentName, svc desired.ServiceName, c audit.Commit) error {
	raw, err := r.archive.(interface {
		Raw(ctx context.Context, id string) ([]byte, error)
	}).Raw(ctx, c.ID)
	if err != nil {
		return err
	}
	problem := ""
	signed, err := r.signers.Verify(raw, time.Time{})
	switch {
	case err != nil:
		problem = strings.TrimPrefix(err.Error(), "commit "+c.ID+": ")
	case !signed.By(c.Committer.Email) && !signed.By(c.Committer.Name):
		problem = fmt.Sprintf("it is signed by %s (%s), and committed by %s", strings.Join(signed.Principals, ", "), signed.Fingerprint, c.Committer)
	default:
		return nil
	}
	r.tell(audit.Finding{Severity: audit.Error, Rule: audit.RuleSignature, Branch: branch, Commit: c.ID, Time: c.Time, Environment: env, Service: svc,
		Message: problem, Meaning: "somebody else than the daemon has written it, or it was changed since"})
	return nil
}

// entry judges what an entry says of main.
func (r *auditReader) entry(ctx context.Context, c audit.Commit, s audit.Step) error {
	switch s.Entry.Event {
	case ledger.EventPinned:
		return r.pinned(ctx, c, s)
	case ledger.EventFailed:
		if s.Entry.Candidate {
			return r.dismissed(ctx, c, s)
		}
		if s.Before.Deployment.State != ledger.StateCompleted {
			return nil // the rollout has failed
		}
		fallthrough
	case ledger.EventVerified:
		commit := s.Before.Deployment.Commit
		if _, ok := r.place[commit]; !ok {
			return nil // which was told of the entry that pins it
		}
		rules, zones, err := r.rulesAt(ctx, commit)
		if err == nil && rules.AsksArtifacts(s.Entry.Environment, s.Entry.Service) {
			err = r.fetched()
		}
		if err != nil {
			return err
		}
		judge := audit.Verified
		if s.Entry.Event == ledger.EventFailed {
			judge = audit.Failed
		}
		r.tell(judge(c, s, audit.Grounds{Rules: rules, Locations: zones, Shelves: r.around})...)
	}
	return nil
}

// dismissed judges an entry that says that what waited has failed a gate. Which
// commit of main that was judged by is not recorded, and times do not tell where
// main was; so any of them will do, the probable one first.
func (r *auditReader) dismissed(ctx context.Context, c audit.Commit, s audit.Step) error {
	why, read := "", map[*desired.Repository]bool{}
	likely := slices.IndexFunc(r.line, func(x gitstate.CommitInfo) bool { return !x.Committer.Time.After(c.Time) })
	for i := range r.line {
		at := (max(likely, 0) + i) % len(r.line)
		if err := ctx.Err(); err != nil {
			return err
		}
		rules, zones, err := r.rulesAt(ctx, r.line[at].ID)
		if err != nil {
			return err
		}
		if read[rules.Repository] {
			continue
		}
		read[rules.Repository] = true
		failed, not := audit.Dismissed(s, audit.Grounds{Rules: rules, Locations: zones})
		if failed {
			return nil
		}
		why = cmp.Or(why, not)
	}
	r.tell(audit.NotDismissed(c, s, why))
	return nil
}

func (r *auditReader) pinned(ctx context.Context, c audit.Commit, s audit.Step) error {
	e := s.Entry
	at, ok := r.place[e.Commit]
	if !ok {
		f := audit.Finding{Severity: audit.Error, Rule: audit.RuleDeployment, Branch: ledger.Branch(e.Environment), Commit: c.ID, Time: c.Time, Environment: e.Environment, Service: e.Service,
			Message: fmt.Sprintf("it says that commit %.12s asked for the deployment, and %s has no such commit", e.Commit, r.ledgers.mainName),
			Meaning: "the entry was put in by hand, or main was rewritten"}
		older, err := r.archive.IsAncestor(ctx, e.Commit, r.ledgers.MainTip())
		switch {
		case err == nil && older:
			r.mu.Lock()
			r.lost[e.Commit] = true
			r.mu.Unlock()
			f.Message = fmt.Sprintf("commit %.12s, which asked for the deployment, is not on the line of first parents of %s", e.Commit, r.ledgers.mainName)
			f.Meaning = "main was merged into another branch, which became main: what is beside the line is not judged"
			switch e.Cause {
			case ledger.CausePromotion, ledger.CauseTracking, ledger.CauseRollback:
				f.Message = fmt.Sprintf("commit %.12s, a %s, is not on the line of first parents of %s any more, so it can't be judged", e.Commit, e.Cause, r.ledgers.mainName)
			default:
				f.Severity = audit.Warning
			}
		case err != nil && !errors.Is(err, gitstate.ErrNoCommit):
			return err
		}
		r.tell(f)
		return nil
	}
	made, err := r.merge(ctx, r.line[at])
	if err != nil {
		return err
	}
	if len(made.Parents) > 1 {
		if made.MergedBy, err = reconcile.Merged(ctx, r.archive, r.line[at], reconcile.Key{Environment: e.Environment, Service: e.Service}); err != nil {
			return err
		}
	}
	r.tell(audit.Pinned(c, s, made)...)
	// What the files say is looked at when main is.
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims[e.Commit] = append(r.claims[e.Commit], audit.ClaimOf(c, e))
	return nil
}

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
		return []audit.Finding{{Severity: audit.Error, Rule: ruleOf(change), Branch: branch, Commit: c.ID, Time: c.Time, Environment: change.Environment, Service: change.Service, Message: fmt.Sprintf(format, args...), Meaning: meaning}}
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

func ruleOf(c ledger.Change) audit.Rule {
	switch c.Kind {
	case ledger.ChangeRolledBack:
		return audit.RuleRollback
	case ledger.ChangeTracked:
		return audit.RuleTracked
	case ledger.ChangePinned, ledger.ChangeHeld, ledger.ChangeReleased:
		return audit.RuleRequest
	}
	return audit.RulePromotion
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
