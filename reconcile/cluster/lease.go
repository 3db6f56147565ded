package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/pinion-cd/pinion/render"
)

// LabelLease is on every Lease of an installation; its value is their common
// name.
const LabelLease = "pinion.dev/lease"

// annotationAddress is on a Lease: where its holder takes reports and approvals.
const annotationAddress = "pinion.dev/address"

var leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}

// LeaseOptions say how leases are kept.
type LeaseOptions struct {
	Namespace string
	Name      string // of the installation: the label on all its leases
	Identity  string // of this replica; no other one, before or after it, may have it
	Address   string // of this replica, host:port; "": it is not told
	// Duration is how long others wait after the last renewal that they saw,
	// Deadline how long we go on after the last one that succeeded, Retry how
	// long we wait between two. A request that was sent at the deadline has the
	// difference of the first two to arrive.
	Duration, Deadline, Retry time.Duration
}

// Holder is a replica that has a lease.
type Holder struct{ Identity, Address string }

// Leases competes for Leases in one namespace, and keeps those that it gets.
// client-go's leaderelection counts a lease's time from the end of the request
// that renewed it, does not say how much is left, and goes on trying to renew
// what another replica has taken; so this keeps them itself, in the same form.
//
// Of two replicas at most one has a Term of a lease at any moment, if their
// clocks run equally fast: the holder counts from before it sends a renewal,
// others from after they saw it, and they wait longer. Taking a lease is a
// compare-and-swap on the version that was seen to be at rest, so a view that is
// out of date takes nothing.
type Leases struct {
	cluster *Cluster
	o       LeaseOptions
	wg      sync.WaitGroup

	mu       sync.Mutex
	wanted   map[string]bool          // guarded by mu
	seen     map[string]*seenLease    // guarded by mu
	terms    map[string]*Term         // guarded by mu; of the leases that are ours
	wakes    map[string]chan struct{} // guarded by mu; capacity one: a lease was seen to change
	watching bool                     // guarded by mu
	troubles map[string]string        // guarded by mu; what was last reported, by lease
	told     []chan struct{}          // guarded by mu; capacity one: what is ours has changed
	ready    bool                     // guarded by mu; the leases could be read
	ctx      context.Context          // of Run; nil before
}

// seenLease is a Lease as it was seen last.
type seenLease struct {
	lease   *coordinationv1.Lease // nil: it is not there
	since   time.Time             // that it is at this version
	holding time.Duration         // for how long after since it must not be taken
}

// Leases returns what competes for leases in this cluster, once it runs.
func (c *Cluster) Leases(o LeaseOptions) *Leases {
	return &Leases{
		cluster: c, o: o,
		wanted: map[string]bool{}, seen: map[string]*seenLease{}, terms: map[string]*Term{},
		wakes: map[string]chan struct{}{}, troubles: map[string]string{},
	}
}

// Identity returns the name of this replica.
func (l *Leases) Identity() string { return l.o.Identity }

// Want says which leases to compete for, besides those that were wanted before.
func (l *Leases) Want(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		if l.wanted[name] {
			continue
		}
		l.wanted[name] = true
		l.wakes[name] = make(chan struct{}, 1)
		if ctx := l.ctx; ctx != nil {
			l.wg.Go(func() { l.compete(ctx, name) })
		}
	}
}

// Wanted returns the leases that are competed for, sorted.
func (l *Leases) Wanted() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.wanted))
}

// Term returns the present term of a lease; nil, if it is not ours.
func (l *Leases) Term(name string) *Term {
	l.mu.Lock()
	t := l.terms[name]
	l.mu.Unlock()
	if t == nil || t.Check() != nil {
		return nil
	}
	return t
}

// Holder returns who has a lease, as far as it was seen; the zero Holder:
// nobody, or it is not known.
func (l *Leases) Holder(name string) Holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.seen[name]
	if s == nil || s.lease == nil || s.lease.Spec.HolderIdentity == nil {
		return Holder{}
	}
	if name := *s.lease.Spec.HolderIdentity; name != l.o.Identity && time.Since(s.since) >= s.holding {
		return Holder{} // it has run out
	}
	return Holder{*s.lease.Spec.HolderIdentity, s.lease.Annotations[annotationAddress]}
}

// Ready tells whether the leases could be read, so that one could be taken.
func (l *Leases) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready
}

// Changes returns a channel that tells, each time, that what is ours has changed.
func (l *Leases) Changes() <-chan struct{} {
	c := make(chan struct{}, 1)
	l.mu.Lock()
	l.told = append(l.told, c)
	l.mu.Unlock()
	return c
}

// Run competes until ctx ends. Then no term of ours is left, but the leases
// are not given up: that is Release, for when all that was written under them
// has ended.
func (l *Leases) Run(ctx context.Context) {
	l.mu.Lock()
	l.ctx = ctx
	for name := range l.wanted {
		l.wg.Go(func() { l.compete(ctx, name) })
	}
	l.mu.Unlock()
	l.watch(ctx)
	l.mu.Lock()
	l.ctx = nil // nobody else begins
	l.mu.Unlock()
	l.wg.Wait()
}

// Release gives up the leases that are ours, so that others take them at once.
// It is to be called after Run, and after all has ended that wrote under them.
func (l *Leases) Release(ctx context.Context) error {
	var errs []error
	for _, name := range l.Wanted() {
		if err := l.release(ctx, name); err != nil {
			errs = append(errs, l.failed("release", name, err))
		}
	}
	return errors.Join(errs...)
}

// release gives up a lease if it is ours. A renewal that was under way when we
// ended may have arrived, and nobody told us: then what is there is read once more.
func (l *Leases) release(ctx context.Context, name string) error {
	for {
		l.mu.Lock()
		s := l.seen[name]
		l.mu.Unlock()
		if s == nil || s.lease == nil || holder(s.lease) != l.o.Identity {
			return nil
		}
		free := s.lease.DeepCopy()
		free.Spec.HolderIdentity = new(string)
		delete(free.Annotations, annotationAddress)
		switch _, err := l.write(ctx, free); {
		case err == nil, apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return err
		}
		if err := l.look(ctx, name); err != nil {
			return err
		}
	}
}

func holder(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// watch keeps an eye on all leases, so that one which is given up is taken at
// once. What it does not see is found by compete itself, later.
func (l *Leases) watch(ctx context.Context) {
	s := l.cluster.full(&source{
		reduce: func(o runtime.Object) any {
			lease := &coordinationv1.Lease{}
			if runtime.DefaultUnstructuredConverter.FromUnstructured(o.(*unstructured.Unstructured).Object, lease) != nil {
				return (*coordinationv1.Lease)(nil)
			}
			return lease
		},
		failed: func(error) { l.watched(false) },
		opened: func() { l.watched(true) },
		ended:  func() {},
	}, leases, l.o.Namespace, LabelLease+"="+l.o.Name)
	runReflector(ctx, s, (*leaseStore)(l), "leases")
}

func (l *Leases) watched(ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watching = ok
}

// leaseStore is what a reflector of the leases fills.
type leaseStore Leases

func (s *leaseStore) Add(x any) error { return s.Update(x) }
func (s *leaseStore) Update(x any) error {
	if lease := x.(*item).value.(*coordinationv1.Lease); lease != nil {
		(*Leases)(s).see(lease.Name, lease)
	}
	return nil
}

func (s *leaseStore) Delete(x any) error {
	(*Leases)(s).see(x.(*item).Name, nil)
	return nil
}

func (s *leaseStore) Replace(list []any, _ string) error {
	(*Leases)(s).watched(true)
	there := map[string]bool{}
	for _, x := range list {
		there[x.(*item).Name] = true
		s.Update(x)
	}
	s.mu.Lock()
	var gone []string
	for name, seen := range s.seen {
		if !there[name] && seen.lease != nil && seen.lease.Labels[LabelLease] == s.o.Name {
			gone = append(gone, name)
		}
	}
	s.mu.Unlock()
	for _, name := range gone {
		// The list may be older than what we know: compete asks about each.
		(*Leases)(s).wake(name)
	}
	return nil
}

func (s *leaseStore) Resync() error { return nil }

var _ cache.ReflectorStore = (*leaseStore)(nil)

// see takes in how a lease is, nil: not there. Whose term that ends, ends now.
func (l *Leases) see(name string, lease *coordinationv1.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = true
	old := l.seen[name]
	switch {
	case old != nil && old.lease != nil && lease != nil && !newer(lease.ResourceVersion, old.lease.ResourceVersion):
		return // known, or older than what is known
	case old != nil && old.lease == nil && lease == nil:
		return
	}
	next := &seenLease{lease: lease, since: time.Now()}
	switch {
	case lease != nil && holder(lease) != "":
		next.holding = l.o.Duration
		if s := lease.Spec.LeaseDurationSeconds; s != nil {
			next.holding = time.Duration(*s) * time.Second
		}
	case lease == nil && old != nil:
		next.holding = old.holding // who has it may not know that somebody deleted it
	}
	l.seen[name] = next
	if t := l.terms[name]; t != nil && (lease == nil || holder(lease) != l.o.Identity) {
		why := "somebody has deleted it"
		if lease != nil {
			why = fmt.Sprintf("it is held by %q", holder(lease))
		}
		t.end(why)
	}
	l.signal(name)
}

func (l *Leases) wake(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signal(name)
}

// signal wakes who competes for a lease. l.mu is held.
func (l *Leases) signal(name string) {
	select {
	case l.wakes[name] <- struct{}{}:
	default: // also if nobody competes
	}
}

// claim is the decision whether a lease may be taken: now, or after which time.
func claim(s *seenLease, identity string, now time.Time) (take bool, wait time.Duration) {
	if s.lease != nil && (holder(s.lease) == "" || holder(s.lease) == identity) {
		return true, 0
	}
	// By the monotonic clock alone: a wall clock that jumps must take nothing.
	if left := s.holding - now.Sub(s.since); left > 0 {
		return false, left
	}
	return true, 0
}

// compete takes a lease whenever it can, and keeps it as long as it can.
func (l *Leases) compete(ctx context.Context, name string) {
	l.mu.Lock()
	woken := l.wakes[name]
	l.mu.Unlock()
	for ctx.Err() == nil {
		l.mu.Lock()
		s, watching := l.seen[name], l.watching
		l.mu.Unlock()
		wait := l.o.Retry
		if s == nil || !watching {
			if err := l.look(ctx, name); err != nil {
				l.trouble(ctx, "read", name, err)
			}
			l.mu.Lock()
			s = l.seen[name]
			l.mu.Unlock()
		}
		if s != nil {
			take, left := claim(s, l.o.Identity, time.Now())
			if take {
				t, err := l.take(ctx, name, s)
				if t != nil {
					l.trouble(ctx, "", name, nil)
					l.keep(ctx, t)
					continue
				}
				if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
					err = l.look(ctx, name) // somebody was faster
				}
				if err != nil {
					l.trouble(ctx, "take", name, err)
				}
			} else if watching {
				wait = left
			} else {
				wait = min(wait, left)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-woken:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// take tries to make a lease ours, as it was seen.
func (l *Leases) take(ctx context.Context, name string, s *seenLease) (*Term, error) {
	now := metav1.NowMicro()
	seconds, number := int32((l.o.Duration+time.Second-1)/time.Second), int32(0)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: l.o.Namespace}}
	if s.lease != nil {
		lease = s.lease.DeepCopy()
		if n := lease.Spec.LeaseTransitions; n != nil {
			number = *n
		}
		number++
	}
	if lease.Labels == nil {
		lease.Labels = map[string]string{}
	}
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Labels[LabelLease] = l.o.Name
	lease.Labels[render.LabelManagedBy] = render.ManagedBy
	if delete(lease.Annotations, annotationAddress); l.o.Address != "" {
		lease.Annotations[annotationAddress] = l.o.Address
	}
	lease.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: &l.o.Identity, LeaseDurationSeconds: &seconds, LeaseTransitions: &number,
		AcquireTime: &now, RenewTime: &now,
	}
	sent := time.Now()
	ctx, cancel := context.WithTimeout(ctx, l.o.Deadline)
	defer cancel()
	written, err := l.write(ctx, lease)
	if err != nil {
		return nil, err
	}
	t := newTerm(name, int(number), l.o.Deadline, sent)
	l.mu.Lock()
	l.terms[name] = t
	l.mu.Unlock()
	l.see(name, written)
	if t.Check() != nil {
		return nil, context.Cause(t.ctx) // the answer took too long
	}
	l.cluster.config.Logger.Info("lease taken", "lease", name, "identity", l.o.Identity, "term", number)
	l.tell()
	return t, nil
}

// keep renews a lease until it is lost or ctx ends; then the term is over.
func (l *Leases) keep(ctx context.Context, t *Term) {
	defer func() {
		t.end("the daemon gives it up") // unless it has ended before
		l.mu.Lock()
		delete(l.terms, t.Lease)
		l.mu.Unlock()
		l.tell()
		if ctx.Err() == nil {
			l.cluster.config.Logger.Warn("lease lost", "lease", t.Lease, "identity", l.o.Identity, "error", context.Cause(t.ctx))
		}
	}()
	wait := l.o.Retry
	for {
		timer := time.NewTimer(min(wait, max(0, t.left())))
		select {
		case <-timer.C:
		case <-t.Done():
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil || t.Check() != nil {
			return
		}
		l.mu.Lock()
		lease := l.seen[t.Lease].lease
		l.mu.Unlock()
		if lease == nil {
			return
		}
		lease = lease.DeepCopy()
		now := metav1.NowMicro()
		lease.Spec.RenewTime = &now
		sent := time.Now()
		call, cancel := context.WithTimeout(ctx, t.left())
		written, err := l.write(call, lease)
		switch {
		case err == nil:
			t.renew(sent)
			l.see(t.Lease, written)
			l.trouble(ctx, "", t.Lease, nil)
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			// Taken from us, or only touched: see tells.
			if err := l.look(call, t.Lease); err != nil {
				l.trouble(ctx, "read", t.Lease, err)
			}
		default:
			l.trouble(ctx, "renew", t.Lease, err)
		}
		cancel()
	}
}

// tell says that what is ours has changed.
func (l *Leases) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.told {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// trouble reports what keeps us from a lease, once.
func (l *Leases) trouble(ctx context.Context, op, name string, err error) {
	said := ""
	if err != nil && ctx.Err() == nil {
		said = l.failed(op, name, err).Error()
	}
	l.mu.Lock()
	news := said != l.troubles[name] && (err == nil || said != "")
	if news {
		l.troubles[name] = said
	}
	l.mu.Unlock()
	if news && said != "" {
		l.cluster.config.Logger.Error("a lease can't be had or kept; it is tried again", "lease", name, "error", said)
	}
}

func (l *Leases) failed(op, name string, err error) error {
	ref := render.Ref{Group: leases.Group, Kind: "Lease", Namespace: l.o.Namespace, Name: name}
	return classify(failure{op: op, ref: ref, group: leases.Group, version: leases.Version, kind: "Lease"}, err)
}

// look reads a lease.
func (l *Leases) look(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, l.o.Deadline)
	defer cancel()
	lease := &coordinationv1.Lease{}
	raw, err := rawOf(l.cluster.client.Get().AbsPath("apis", leases.Group, leases.Version, "namespaces", l.o.Namespace, leases.Resource, name).
		SetHeader("Accept", "application/json").MaxRetries(0).Do(ctx))
	if apierrors.IsNotFound(err) {
		l.see(name, nil)
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, lease)
	}
	if err == nil {
		l.see(name, lease)
	}
	return err
}

// write creates a lease, or replaces the version of it that was seen. It waits
// for no other request: all the others stand under the lease.
func (l *Leases) write(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	lease.APIVersion, lease.Kind, lease.ManagedFields = "coordination.k8s.io/v1", "Lease", nil
	body, err := json.Marshal(lease)
	if err != nil {
		return nil, err
	}
	path := []string{"apis", leases.Group, leases.Version, "namespaces", l.o.Namespace, leases.Resource}
	request := l.cluster.client.Post()
	if lease.ResourceVersion != "" {
		request, path = l.cluster.client.Put(), append(path, lease.Name)
	}
	raw, err := rawOf(request.AbsPath(path...).Param("fieldManager", Manager).
		SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").MaxRetries(0).Body(body).Do(ctx))
	if err != nil {
		return nil, err
	}
	written := &coordinationv1.Lease{}
	return written, json.Unmarshal(raw, written)
}
