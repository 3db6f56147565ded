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
