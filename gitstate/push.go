package gitstate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
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
// server can do that, and each branch by itself otherwise.
//
// Several changes of one branch become a chain, in their order: the first is
// judged on its Expected, which the branch has to be at, and each later one has
// the commit before it as its parent, which is why its Expected has to be
// empty. The branch moves past all of them at once, so that of a chain
// everything lands, or nothing.
//
// The ids are those of the commits that were written, in the order of the
// changes, and empty for the others; each branch of these has its error, as
// Commit would return it, once in the joined one.
func (m *Mirror) Push(ctx context.Context, changes []Change) ([]string, error) {
	return m.PushAhead(ctx, changes, func() []Change { return nil })
}

// PushAhead is [Mirror.Push], and sends more than that needs: ahead, which is
// called while the changes are made into objects, and must not wait for a fetch or a
// push, returns those that a later push is likely to have, for which there will be less
// time. Their files and folders are sent with this one, and left out of that one.
// Their commits are not made; what there is no parent for is nobody's harm.
func (m *Mirror) PushAhead(ctx context.Context, changes []Change, ahead func() []Change) ([]string, error) {
	ids := make([]string, len(changes))
	if len(changes) == 0 {
		return ids, nil
	}
	ctx, release, err := m.acquire(ctx)
	if err != nil {
		return ids, fmt.Errorf("push: %w", err)
	}
	defer release()
	changes = slices.Clone(changes)
	for i := range changes {
		if changes[i].Branch == "" {
			changes[i].Branch = m.options.Branch
		}
		if _, follows := m.remote.follows("refs/heads/" + changes[i].Branch); follows && changes[i].Parent != "" {
			return ids, fmt.Errorf("push %s: that branch is never rewritten", changes[i].Branch)
		}
	}
	if m.remote.local() {
		return ids, fmt.Errorf("push %s: it needs the git program, which takes the repository's locks and runs its hooks; install git, or use an https or ssh URL", m.remote.name())
	}
	calling, hangUp := context.WithCancel(ctx)
	defer hangUp()
	call := func() *line { return m.call(calling) }
	many := len(changes) >= manyChanges
	if many {
		early := make(chan *line, 1)
		go func() { early <- m.call(calling) }()
		call = func() *line { return <-early }
	}
	coming := make(chan []Change, 1)
	go func() { coming <- ahead() }()
	list, err := m.store.chains(changes)
	next := <-coming
	if err != nil {
		if many {
			hangUp()
			call().hangUp()
		}
		return ids, err
	}
	outcomes, err := m.send(ctx, call(), list, m.foreseen(list, next))
	if err != nil {
		return ids, err
	}
	var errs []error
	var landed []*chain
	for i, c := range list {
		if outcomes[i] != nil {
			errs = append(errs, outcomes[i])
			continue
		}
		landed = append(landed, c)
		for n, place := range c.places {
			ids[place] = c.commits[n].id.String()
		}
	}
	m.adopt(landed)
	return ids, errors.Join(errs...)
}

// foreseen are the files and folders of changes to come that some chains do not
// have. That they can't be made now is no harm to these.
func (m *Mirror) foreseen(list []*chain, ahead []Change) []*made {
	if len(ahead) == 0 {
		return nil
	}
	ahead = slices.Clone(ahead)
	for i := range ahead {
		if ahead[i].Branch == "" {
			ahead[i].Branch = m.options.Branch
		}
		ahead[i].Sign = nil
	}
	next, err := m.store.chains(ahead)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(gather(next), func(o *made) bool {
		return o.kind == plumbing.CommitObject || slices.ContainsFunc(list, func(c *chain) bool { return c.have[o.id] })
	})
}

// Pushes is how many requests to move a branch were sent to the remote so far,
// whatever became of them.
func (m *Mirror) Pushes() uint64 { return m.pushes.Load() }

// adopt takes over into the mirror what is on the remote now. That it fails
// does not change that: the next fetch brings it.
func (m *Mirror) adopt(landed []*chain) {
	landed = slices.DeleteFunc(landed, func(c *chain) bool {
		_, follows := m.remote.follows("refs/heads/" + c.branch)
		// Another place than the old one: settle has fetched, or a fetch will follow.
		return !follows || m.present.refs[c.branch] != c.old
	})
	if len(landed) == 0 {
		return
	}
	err := m.present.keep(gather(landed))
	m.store.refresh(m.present)
	m.compact()
	for _, c := range landed {
		if err == nil {
			m.store.know(c)
			err = m.present.setRef(c.branch, c.tip())
		}
		if err != nil {
			m.log.Warn("could not keep a commit that was pushed; the next fetch brings it", "branch", c.branch, "commit", c.tip().String(),
				"error", spelled(m.options.Dir, err))
		}
	}
	if err != nil {
		m.present.clean()
	}
	m.mu.Lock()
	m.publish()
	m.mu.Unlock()
}

// know keeps what a chain was made of for those who read it next. Its objects
// are in the mirror.
func (s *store) know(c *chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, next := range c.commits {
		s.commits.put(next.id, next, 1)
	}
	c.root.each(func(w *work) {
		if !w.id.IsZero() {
			s.trees.put(w.id, w.tree, len(w.tree)+1)
		}
	})
}

// send pushes, and says for each chain what became of it: nil if it is on the
// remote. The error is for what happened before anything was sent.
func (m *Mirror) send(ctx context.Context, l *line, list []*chain, ahead []*made) ([]error, error) {
	all := gather(list)
	objects := m.sent.lean(list, all, time.Now())
	report, outcomes, err := m.ask(ctx, l, list, slices.Concat(objects, ahead))
	if err != nil || report == nil {
		return outcomes, err
	}
	if len(objects) == len(all) || !lacks(report.ReportStatus) {
		outcomes = m.judge(ctx, list, all, report)
		if len(ahead) > 0 && report.UnpackStatus == "ok" {
			m.sent.remember(ahead, time.Now())
		}
		return outcomes, nil
	}
	m.log.Info("the remote does not keep objects of a push that was refused; sending them again")
	m.sent = sent{never: true}
	outcomes = make([]error, len(list))
	var rest []*chain // git moves the branches that lack nothing
	var places []int
	for i, c := range list {
		if report.UnpackStatus != "ok" || report.status(c.branch) != "ok" {
			rest, places = append(rest, c), append(places, i)
		}
	}
	all = gather(rest)
	report, again, err := m.ask(ctx, m.call(ctx), rest, all)
	if err == nil && report != nil {
		again = m.judge(ctx, rest, all, report)
	}
	for n, i := range places {
		if err != nil {
			outcomes[i] = err
		} else {
			outcomes[i] = again[n]
		}
	}
	return outcomes, nil
}

// manyChanges take so long to build that the remote is called meanwhile.
const manyChanges = 16

// line is a call to the remote that waits for a request.
type line struct {
	ctx      context.Context // the call's own: it ends when the remote falls silent
	cancel   context.CancelFunc
	detach   func() bool // from here on the call does not end with its caller; false: it has
	progress *idle
	session  session
	refs     *packp.AdvRefs
	answered bool // a push was
	err      error
}

func (m *Mirror) call(ctx context.Context) *line {
	l := &line{}
	own, end := context.WithCancelCause(context.WithoutCancel(ctx))
	l.detach = context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	l.ctx, l.progress, l.cancel = withIdle(own, m.remote.timeout)
	l.session, l.err = dial(l.ctx, m.remote.ep, m.remote.auth, transport.ReceivePackServiceName)
	if l.err != nil {
		l.session = nil
	} else {
		l.refs, l.err = l.session.advertise(l.ctx)
	}
	l.err = m.remote.failed(l.ctx, "push", l.session, l.err)
	return l
}

func (l *line) hangUp() {
	if l.session != nil {
		l.session.close()
	}
	l.detach()
	l.cancel()
}

// ask sends one request. What became of it is for the report to say, or, if
// there is none, known already.
func (m *Mirror) ask(ctx context.Context, l *line, list []*chain, objects []*made) (*report, []error, error) {
	defer m.leave(l)
	if l.err != nil {
		return nil, nil, l.err
	}
	moved := false
	outcomes := make([]error, len(list))
	for i, b := range list {
		if at := l.refs.References["refs/heads/"+b.branch]; at != b.old {
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
		return nil, outcomes, nil
	}
	req, err := request(list, objects, l.refs.Capabilities)
	if err != nil {
		return nil, nil, m.remote.failed(l.ctx, "push", nil, err)
	}
	for _, c := range list {
		for _, guard := range c.guards {
			if err := guard(); err != nil {
				return nil, nil, fmt.Errorf("push %s: %w", c.branch, err)
			}
		}
	}
	l.progress.touch()
	m.pushes.Add(1)
	answer, err := l.session.push(l.ctx, req)
	if err != nil {
		err = m.remote.failed(l.ctx, "push", l.session, err)
		l.hangUp()
		m.sent.forget()
		return nil, m.settle(ctx, list, err), nil
	}
	l.answered = true
	return &report{answer, l.session.said()}, nil, nil
}

// request is what goes over the wire: the expected ids, the new ones, and the
// new objects.
func request(list []*chain, objects []*made, can *capability.List) (*packp.ReferenceUpdateRequest, error) {
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
	for _, c := range list {
		req.Commands = append(req.Commands, &packp.Command{
			Name: plumbing.NewBranchReferenceName(c.branch), Old: c.old, New: c.tip()})
	}
	p := newPack(objects, can.Supports(capability.OFSDelta))
	req.Packfile = io.NopCloser(bytes.NewReader(p.data))
	return req, nil
}

func (c *chain) moved(at plumbing.Hash) error {
	e := &MovedError{Branch: c.branch, Expected: c.expected}
	if !at.IsZero() {
		e.Actual = at.String()
	}
	return e
}

// held is the error of a chain that came to nothing for another's sake.
func (c *chain) held() error {
	return fmt.Errorf("push %s: not done, since another branch of the same push was refused", c.branch)
}

// report is what the remote did with a push, by its own words.
type report struct {
	*packp.ReportStatus
	said string // what it wrote for a person to read
}

// status is the word on a branch; empty: there is none.
func (r *report) status(branch string) string {
	for _, s := range r.CommandStatuses {
		if s.ReferenceName.String() == "refs/heads/"+branch {
			return s.Status
		}
	}
	return ""
}

// judge reads the report of the remote.
func (m *Mirror) judge(ctx context.Context, list []*chain, objects []*made, report *report) []error {
	outcomes := make([]error, len(list))
	refused := false
	for _, c := range list {
		refused = refused || report.UnpackStatus != "ok" || report.status(c.branch) != "ok"
	}
	if !refused {
		m.sent.landed(objects)
		return outcomes
	}
	kept := false
	// Where are they now? That tells a lost race from a rule.
	refs, err := m.list(ctx)
	known := err == nil
	for i, c := range list {
		why := report.status(c.branch)
		at := refs["refs/heads/"+c.branch]
		switch {
		case report.UnpackStatus == "ok" && why == "ok":
		case known && at == c.tip(): // whatever it says
		case known && at != c.old && (why != "" || report.UnpackStatus != "ok"):
			outcomes[i] = c.moved(at)
		case report.UnpackStatus != "ok":
			outcomes[i] = m.remote.failed(ctx, "push", nil, fmt.Errorf("%s: the remote could not take the objects: %s%s", c.branch, report.UnpackStatus, saying(report.said)))
		case why == "":
			outcomes[i] = m.settle(ctx, list[i:i+1], m.remote.failed(ctx, "push", nil, fmt.Errorf("%s: its report does not name the branch", c.branch)))[0]
		case raced(why):
			outcomes[i] = c.moved(at)
		case secondary(why):
			outcomes[i] = c.held()
		default:
			outcomes[i] = m.remote.failed(ctx, "push", nil, fmt.Errorf("%s: %w: %s%s", c.branch, ErrRefused, why, saying(report.said)))
		}
		// A hook comes before the objects are stored.
		if report.UnpackStatus == "ok" && errors.Is(outcomes[i], ErrMoved) && !strings.Contains(why, "hook") {
			kept = true
		}
	}
	if kept {
		m.sent.remember(objects, time.Now())
	} else {
		m.sent.forget()
	}
	return outcomes
}

// secondary tells the reasons for which git refuses a branch for another's
// sake.
func secondary(why string) bool {
	return strings.Contains(why, "atomic") || why == "transaction failed"
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
func (m *Mirror) settle(ctx context.Context, list []*chain, lost error) []error {
	outcomes := make([]error, len(list))
	unknown := func(b *chain, why error) error {
		text := fmt.Sprintf("push %s: %v: %v", b.branch, ErrUnknown, lost)
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
		at := refs["refs/heads/"+b.branch]
		switch at {
		case b.tip():
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
		tip, ok := m.present.refs[b.branch]
		if !ok {
			outcomes[i] = unknown(b, nil)
			continue
		}
		switch ours, err := m.store.isAncestor(ctx, b.tip(), tip); {
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
