package gitstate

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// maxBrought bounds what one Bring takes in, in bytes: whoever may open a pull
// request decides what is in it.
const maxBrought = 64 << 20

// References asks the remote where all its references are, by their full names.
func (m *Mirror) References(ctx context.Context) (map[string]string, error) {
	ctx, release, err := m.acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	defer release()
	refs, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string, len(refs))
	for name, id := range refs {
		all[name] = id.String()
	}
	return all, nil
}

// Bring has the mirror hold the commits that some references of the remote
// lead to, beside those that it follows, and returns their ids by the
// references' names; one that the remote does not have is left out. They stay
// until the mirror is cloned anew.
func (m *Mirror) Bring(ctx context.Context, names ...string) (map[string]string, error) {
	ctx, release, err := m.acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	defer release()
	if m.remote.local() {
		return nil, fmt.Errorf("fetch %s: other branches are served by the git program; install git", m.remote.name())
	}
	ids, err := m.remote.bring(ctx, m.present, m.store, names)
	if err != nil {
		m.present.clean()
		return nil, spelled(m.options.Dir, err)
	}
	m.thin()
	return ids, nil
}

func (r *remote) bring(ctx context.Context, g *generation, s *store, names []string) (map[string]string, error) {
	whole := ctx // indexing what has come is no waiting for the remote
	ctx, progress, cancel := withIdle(ctx, r.timeout)
	defer cancel()
	c, err := dial(ctx, r.ep, r.auth, transport.UploadPackServiceName)
	if err != nil {
		return nil, r.failed(ctx, "fetch", nil, err)
	}
	defer c.close()
	all, err := c.advertise(ctx)
	if err != nil {
		return nil, r.failed(ctx, "fetch", c, err)
	}
	progress.touch()
	req := packp.NewUploadPackRequestFromCapabilities(all.Capabilities)
	if all.Capabilities.Supports(capability.NoProgress) {
		req.Capabilities.Set(capability.NoProgress)
	}
	ids := map[string]string{}
	wanted := map[plumbing.Hash]bool{}
	for _, name := range names {
		id, ok := all.References[name]
		if !ok {
			continue
		}
		ids[name] = id.String()
		if _, err := s.lookup(id.String()); errors.Is(err, ErrNoCommit) && !wanted[id] {
			wanted[id] = true
			req.Wants = append(req.Wants, id)
		} else if err != nil && !errors.Is(err, ErrNoCommit) {
			return nil, err
		}
	}
	if len(req.Wants) == 0 {
		return ids, nil
	}
	plumbing.HashesSort(req.Wants)
	if id, ok := g.refs[r.branch]; ok { // from which they come, as a rule
		req.Haves = haves([]plumbing.Hash{id}, s)
	}
	body, err := c.fetch(ctx, req)
	if err != nil {
		return nil, r.failed(ctx, "fetch", c, err)
	}
	defer body.Close()
	bounded := &bounded{r: progress.reader(body), left: maxBrought}
	if err := g.addPack(whole, unband(req.Capabilities, bounded, &tail{})); err != nil {
		return nil, r.failed(ctx, "fetch", c, err)
	}
	s.refresh(g)
	return ids, nil
}

// bounded reads so many bytes, and fails where there are more.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("it is larger than %d MiB", maxBrought>>20)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// Remove deletes a branch that is not mirrored, if it is still at a commit;
// that it is gone is no error. One that is elsewhere is an [ErrMoved].
func (m *Mirror) Remove(ctx context.Context, branch, at string) error {
	if _, follows := m.remote.follows("refs/heads/" + branch); follows || !validBranch(branch) {
		return fmt.Errorf("remove %s: that branch is never removed", branch)
	}
	ctx, release, err := m.acquire(ctx)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	defer release()
	l := m.call(ctx)
	defer m.leave(l)
	if l.err != nil {
		return l.err
	}
	ref := plumbing.NewBranchReferenceName(branch)
	now, ok := l.refs.References[ref.String()]
	switch {
	case !ok:
		return nil
	case now.String() != at:
		return &MovedError{Branch: branch, Expected: at, Actual: now.String()}
	case !l.refs.Capabilities.Supports(capability.ReportStatus) || !l.refs.Capabilities.Supports(capability.DeleteRefs):
		return fmt.Errorf("remove %s: the server does not let branches be deleted (delete-refs)", branch)
	}
	req := packp.NewReferenceUpdateRequestFromCapabilities(l.refs.Capabilities)
	req.Capabilities.Set(capability.DeleteRefs)
	req.Commands = []*packp.Command{{Name: ref, Old: now, New: plumbing.ZeroHash}}
	m.pushes.Add(1)
	answer, err := l.session.push(l.ctx, req)
	if err != nil {
		return m.remote.failed(l.ctx, "push", l.session, err)
	}
	l.answered = true
	if why := (&report{answer, ""}).status(branch); why != "ok" {
		return m.remote.failed(ctx, "push", nil, fmt.Errorf("%s: %w: %s", branch, ErrRefused, why))
	}
	return nil
}
