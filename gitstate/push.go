package gitstate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/memory"
)

// Commit writes one commit onto a branch of the remote, and returns its id.
// The branch has to be at c.Expected in the moment of the push; if it is not,
// that is an [ErrMoved] and nothing was written.
//
// Other outcomes are [ErrRefused] (somebody has to act), [ErrUnknown] (as for
// ErrMoved: fetch and judge again), [ErrUnchanged], [ErrNoCommit] (Expected is
// not in the mirror), and errors of reaching the remote before anything was
// sent.
func (m *Mirror) Commit(ctx context.Context, c Change) (string, error) {
	ids, err := m.Push(ctx, []Change{c})
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// Push writes commits onto several branches by one push: all or none, if the
// server can do that, and each by itself otherwise. The ids are those of the
// commits that were written, in the order of the changes, and empty for the
// others; each of these has its error, as Commit would return it, in the
// joined one.
func (m *Mirror) Push(ctx context.Context, changes []Change) ([]string, error) {
	ids := make([]string, len(changes))
	if len(changes) == 0 {
		return ids, nil
	}
	ctx, release, err := m.acquire(ctx)
	if err != nil {
		return ids, fmt.Errorf("push: %w", err)
	}
	defer release()
	list := make([]*built, len(changes))
	seen := map[string]bool{}
	for i, c := range changes {
		if c.Branch == "" {
			c.Branch = m.options.Branch
		}
		if seen[c.Branch] {
			return ids, fmt.Errorf("push: two changes for the branch %s", c.Branch)
		}
		seen[c.Branch] = true
		if list[i], err = m.store.build(c); err != nil {
			return ids, err
		}
	}
	outcomes, err := m.send(ctx, list)
	if err != nil {
		return ids, err
	}
	var errs []error
	for i, b := range list {
		if outcomes[i] != nil {
			errs = append(errs, outcomes[i])
			continue
		}
		ids[i] = b.id.String()
		m.adopt(b)
	}
	return ids, errors.Join(errs...)
}

// adopt takes over into the mirror what is on the remote now. That it fails
// does not change that: the next fetch brings it.
func (m *Mirror) adopt(b *built) {
	branch := b.change.Branch
	if _, follows := m.remote.follows("refs/heads/" + branch); !follows {
		return
	}
	if m.present.refs[branch] != b.old {
		return // settle has fetched, or will be followed by a fetch
	}
	err := m.present.writeObjects(b.objects)
	if err == nil {
		err = m.present.setRef(branch, b.id)
	}
	if err != nil {
		m.present.clean()
		m.log.Warn("could not keep a commit that was pushed; the next fetch brings it", "branch", branch, "commit", b.id.String(),
			"error", spelled(m.options.Dir, err))
		return
	}
	m.mu.Lock()
	m.publish()
	m.mu.Unlock()
}

// send pushes, and says for each change what became of it: nil if it is on
// the remote. The error is for what happened before anything was sent.
func (m *Mirror) send(ctx context.Context, list []*built) ([]error, error) {
	if m.remote.local() {
		return nil, fmt.Errorf("push %s: it needs the git program, which takes the repository's locks and runs its hooks; install git, or use an https or ssh URL", m.remote.name())
	}
	outer := ctx
	ctx, progress, cancel := withIdle(ctx, m.remote.timeout)
	defer cancel()
	c, err := dial(ctx, m.remote.ep, m.remote.auth, transport.ReceivePackServiceName)
	if err != nil {
		return nil, m.remote.failed(ctx, "push", nil, err)
	}
	defer c.close()
	all, err := c.advertise(ctx)
	if err != nil {
		return nil, m.remote.failed(ctx, "push", c, err)
	}
	progress.touch()
	moved := false
	outcomes := make([]error, len(list))
	for i, b := range list {
		if at := all.References["refs/heads/"+b.change.Branch]; at != b.old {
			outcomes[i] = b.moved(at)
			moved = true
		}
	}
	if moved {
		for i, b := range list {
			if outcomes[i] == nil {
				outcomes[i] = b.held()
			}
		}
		return outcomes, nil
	}
	req, err := request(list, all.Capabilities)
	if err != nil {
		return nil, m.remote.failed(ctx, "push", nil, err)
	}
	report, err := c.push(ctx, req)
	if err != nil {
		err = m.remote.failed(ctx, "push", c, err)
		c.close()
		return m.settle(outer, list, err), nil
	}
	return m.judge(outer, list, report, c.said()), nil
}

// request is what goes over the wire: the expected ids, the new ones, and the
// new objects.
func request(list []*built, can *capability.List) (*packp.ReferenceUpdateRequest, error) {
	if !can.Supports(capability.ReportStatus) {
		return nil, errors.New("the server does not report what it did with a push (report-status)")
	}
	req := packp.NewReferenceUpdateRequestFromCapabilities(can)
	if can.Supports(capability.Sideband64k) {
		req.Capabilities.Set(capability.Sideband64k)
	}
	if len(list) > 1 && can.Supports(capability.Atomic) {
		req.Capabilities.Set(capability.Atomic)
	}
	objects := memory.NewStorage()
	var ids []plumbing.Hash
	for _, b := range list {
		req.Commands = append(req.Commands, &packp.Command{
			Name: plumbing.NewBranchReferenceName(b.change.Branch), Old: b.old, New: b.id})
		for _, o := range b.objects {
			if _, twice := objects.Objects[o.Hash()]; twice {
				continue
			}
			if _, err := objects.SetEncodedObject(o); err != nil {
				return nil, err
			}
			ids = append(ids, o.Hash())
		}
	}
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, objects, false).Encode(ids, 0); err != nil {
		return nil, err
	}
	req.Packfile = io.NopCloser(&pack)
	return req, nil
}

func (b *built) moved(at plumbing.Hash) error {
	e := &MovedError{Branch: b.change.Branch, Expected: b.change.Expected}
	if !at.IsZero() {
		e.Actual = at.String()
	}
	return e
}

// held is the error of a change that came to nothing for another's sake.
func (b *built) held() error {
	return fmt.Errorf("push %s: not done, since another branch of the same push was refused", b.change.Branch)
}

// judge reads the report of the remote.
func (m *Mirror) judge(ctx context.Context, list []*built, report *packp.ReportStatus, said string) []error {
	outcomes := make([]error, len(list))
	status := map[string]string{}
	for _, s := range report.CommandStatuses {
		status[s.ReferenceName.String()] = s.Status
	}
	refused := false
	for _, b := range list {
		refused = refused || report.UnpackStatus != "ok" || status["refs/heads/"+b.change.Branch] != "ok"
	}
	if !refused {
		return outcomes
	}
	// Where are they now? That tells a lost race from a rule.
	refs, err := m.list(ctx)
	known := err == nil
	for i, b := range list {
		why, reported := status["refs/heads/"+b.change.Branch]
		at := refs["refs/heads/"+b.change.Branch]
		switch {
		case report.UnpackStatus == "ok" && why == "ok":
		case known && at == b.id: // whatever it says
		case known && at != b.old:
			outcomes[i] = b.moved(at)
		case report.UnpackStatus != "ok":
			outcomes[i] = m.remote.failed(ctx, "push", nil, fmt.Errorf("%s: the remote could not take the objects: %s%s", b.change.Branch, report.UnpackStatus, saying(said)))
		case !reported:
			outcomes[i] = m.remote.failed(ctx, "push", nil, fmt.Errorf("%s: %w: its report does not name the branch", b.change.Branch, ErrUnknown))
		case raced(why):
			outcomes[i] = b.moved(at)
		case strings.Contains(why, "atomic") || why == "transaction failed":
			outcomes[i] = b.held()
		default:
			outcomes[i] = m.remote.failed(ctx, "push", nil, fmt.Errorf("%s: %w: %s%s", b.change.Branch, ErrRefused, why, saying(said)))
		}
	}
	return outcomes
}

func saying(said string) string {
	if said == "" {
		return ""
	}
	return ": " + said
}

// raced tells the reasons of git's own servers for a compare-and-swap that
// lost, or met another that is under way.
func raced(why string) bool {
	for _, s := range []string{"fetch first", "non-fast-forward", "failed to update ref", "failed to lock", "cannot lock", "incorrect old value", "reference already exists", "stale info"} {
		if strings.Contains(why, s) {
			return true
		}
	}
	return false
}

// settle finds out what became of a push whose reply was lost.
func (m *Mirror) settle(ctx context.Context, list []*built, lost error) []error {
	outcomes := make([]error, len(list))
	unknown := func(b *built, why error) error {
		text := fmt.Sprintf("push %s: %v: %v", b.change.Branch, ErrUnknown, lost)
		if why != nil {
			text += "; and then: " + why.Error()
		}
		return &quiet{text, errors.Join(ErrUnknown, lost)}
	}
	refs, err := m.list(ctx)
	if err != nil {
		for i, b := range list {
			outcomes[i] = unknown(b, err)
		}
		return outcomes
	}
	fetched := false
	for i, b := range list {
		at := refs["refs/heads/"+b.change.Branch]
		switch at {
		case b.id:
			continue
		case b.old:
			// It may still be on its way, unless we know that it was turned away.
			if errors.Is(lost, ErrAuthentication) {
				outcomes[i] = lost
			} else {
				outcomes[i] = unknown(b, nil)
			}
			continue
		case plumbing.ZeroHash:
			outcomes[i] = b.moved(at)
			continue
		}
		// Somebody moved the branch: from our commit, or past it?
		if !fetched {
			if err := m.update(ctx); err != nil && !errors.Is(err, ErrRewritten) {
				outcomes[i] = unknown(b, err)
				continue
			}
			fetched = true
		}
		tip, ok := m.present.refs[b.change.Branch]
		if !ok {
			outcomes[i] = unknown(b, nil)
			continue
		}
		switch ours, err := m.store.isAncestor(ctx, b.id, tip); {
		case err != nil:
			outcomes[i] = unknown(b, err)
		case !ours:
			outcomes[i] = b.moved(tip)
		}
	}
	return outcomes
}

// list asks the remote where its references are.
func (m *Mirror) list(ctx context.Context) (map[string]plumbing.Hash, error) {
	ctx, _, cancel := withIdle(ctx, m.remote.timeout)
	defer cancel()
	c, err := dial(ctx, m.remote.ep, m.remote.auth, transport.UploadPackServiceName)
	if err != nil {
		return nil, m.remote.failed(ctx, "ask", nil, err)
	}
	defer c.close()
	all, err := c.advertise(ctx)
	if err != nil {
		return nil, m.remote.failed(ctx, "ask", c, err)
	}
	return all.References, nil
}
