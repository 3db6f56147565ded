package envoy

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// head is a commit of a proposal's branch.
type head struct {
	reconcile.Key
	commit string
}

// written is a head as it was read.
type written struct {
	ours   bool // as we would write it, of what its message says
	change ledger.Change
	parent string
}

// read reads the commit that a reference leads to.
func (p *Proposer) read(ctx context.Context, ref, id string, k reconcile.Key) (written, error) {
	if w, ok := p.heads[head{k, id}]; ok {
		return w, nil
	}
	if _, err := p.options.Mirror.Bring(ctx, ref); err != nil {
		return written{}, err
	}
	w, known, err := p.judge(ctx, head{k, id})
	if err != nil || !known {
		return w, err
	}
	if len(p.heads) >= mostHeads {
		clear(p.heads)
	}
	p.heads[head{k, id}] = w
	return w, nil
}

// judge tells what a head is, and whether that can change: the commit may be
// gone, and main may only have to be fetched. Whoever may push to the branch can
// copy a message and a committer, so neither makes a commit ours: it has to do
// what its message says, and nothing else.
func (p *Proposer) judge(ctx context.Context, h head) (w written, known bool, err error) {
	info, err := p.options.Mirror.Info(ctx, h.commit)
	if errors.Is(err, gitstate.ErrNoCommit) {
		return w, false, nil // the forge does not have it any more
	}
	if err != nil {
		return w, false, err
	}
	var ok bool
	w.change, ok = ledger.ParseChange(info.Message)
	if len(info.Parents) > 0 {
		w.parent = info.Parents[0]
	}
	by := ledger.Person{Name: info.Committer.Name, Email: info.Committer.Email}
	if !ok || len(info.Parents) != 1 || by != p.options.Identity || w.change.Kind != ledger.ChangePromoted ||
		w.change.Environment != h.Environment || w.change.Service != h.Service {
		return w, true, nil
	}
	if p.options.Signed != nil {
		raw, err := p.options.Mirror.Raw(ctx, h.commit)
		if err != nil {
			return w, false, err
		}
		if !p.options.Signed(raw) {
			return w, true, nil
		}
	}
	tip, ok := p.options.Mirror.Tip()
	if !ok {
		return w, false, nil
	}
	if on, err := p.options.Mirror.IsAncestor(ctx, w.parent, tip); err != nil || !on {
		return w, false, err
	}
	w.ours, err = p.redone(ctx, w, h)
	return w, err == nil, err
}

// redone tells whether a head makes of the commit before it just what its
// message says.
func (p *Proposer) redone(ctx context.Context, w written, h head) (bool, error) {
	before, err := p.options.Mirror.Snapshot(ctx, w.parent)
	if err != nil {
		return false, err
	}
	after, err := p.options.Mirror.Snapshot(ctx, h.commit)
	if err != nil {
		return false, err
	}
	file := environmentFile(h.Environment)
	changed, err := after.Changed(before)
	if err != nil || !slices.Equal(changed, []string{file}) {
		return false, err
	}
	var data [2][]byte
	var modes [2]fs.FileMode
	for i, s := range []*gitstate.Snapshot{before, after} {
		about, err := s.Stat(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !about.Mode().IsRegular() {
			return false, nil // the file is made, removed, or a link
		}
		if err != nil {
			return false, err
		}
		modes[i] = about.Mode()
		if data[i], err = s.ReadFile(file); err != nil {
			return false, err
		}
	}
	ed, err := desired.NewEditor(file, data[0])
	if err != nil {
		return false, nil // it can't be written into, so we have not
	}
	want, err := reconcile.Redo(w.change, ed)
	return err == nil && modes[0] == modes[1] && bytes.Equal(data[1], want), nil
}

func environmentFile(env desired.EnvironmentName) string {
	return "environments/" + string(env) + ".yaml"
}

// applies tells whether a head that brings the release can be merged into main
// as it is now.
func (p *Proposer) applies(ctx context.Context, d *draft, w written, at look) (bool, error) {
	then, err := p.options.Mirror.Snapshot(ctx, w.parent)
	if err != nil {
		return false, err
	}
	id, err := then.ID(d.file)
	if err != nil {
		return false, err
	}
	if id == d.id || at.pull == nil || at.pull.State != forge.Open {
		delete(p.unsure, at.head)
		return id == d.id, nil
	}
	// Others have changed the file. To write the branch anew takes the reviews
	// away, so only where the forge can't merge it.
	now, err := p.options.Forge.Pull(ctx, at.pull.Number)
	if err != nil {
		return false, err
	}
	switch since, asked := p.unsure[at.head]; {
	case now.Fits == forge.Yes:
		delete(p.unsure, at.head)
		return true, nil
	case !asked:
		p.unsure[at.head] = time.Now()
		return true, nil
	default:
		return time.Since(since) < unsureFor, nil
	}
}
