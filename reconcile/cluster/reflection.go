package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// lostTolerance is how long a watch may take to be opened again, after its
// stream ended, before what it shows counts as out of date. The API server ends
// each stream after some minutes.
const lostTolerance = 5 * time.Second

// reflection is what is known of one place, kept up to date by a watch.
type reflection struct {
	place   place
	gvr     schema.GroupVersionResource   // guarded by Cluster.mu
	full    bool                          // guarded by Cluster.mu; whole objects are watched
	changed func(before, after *Observed) // called without mu held; either may be nil
	moved   func()                        // the state has changed
	cancel  context.CancelFunc            // guarded by Cluster.mu
	source  *source                       // guarded by Cluster.mu

	mu      sync.Mutex
	objects map[string]*Observed // guarded by mu; by name. An *Observed is never changed.
	state   state                // guarded by mu
	signal  chan struct{}        // guarded by mu; closed and replaced when state changes
	claimed map[string]bool      // guarded by mu; UIDs that we have applied though their Apply entry looks copied
	reached string               // guarded by mu; the resource version up to which the watch has come
	sound   time.Time            // guarded by mu; since when it can be believed without a gap, if it can
}

// state says how far a place's view can be believed.
type state struct {
	synced bool      // it has been listed
	err    error     // of the last list or watch, if it failed
	lost   time.Time // when the stream ended, zero while one is open
}

// why says why the view is not to be believed, or "".
func (s state) why(p place, now time.Time) string {
	switch {
	case s.err != nil:
		return s.err.Error()
	case !s.synced:
		return p.where() + " has not been listed yet"
	case !s.lost.IsZero() && now.Sub(s.lost) > lostTolerance:
		return fmt.Sprintf("the watch of %s was lost at %s", p.where(), s.lost.UTC().Format(time.RFC3339))
	}
	return ""
}

func newReflection(p place, gvr schema.GroupVersionResource) *reflection {
	return &reflection{
		place: p, gvr: gvr,
		objects: map[string]*Observed{},
		signal:  make(chan struct{}),
		claimed: map[string]bool{},
	}
}

// attach lets the source tell this view how it does. vanished is called when
// the resource was not found.
func (r *reflection) attach(s *source, vanished func()) {
	p := r.place
	f := failure{op: "watch " + p.where(), group: p.group, kind: p.kind, version: r.gvr.Version}
	s.failed = func(err error) {
		err = classify(f, err)
		var unknown *UnknownKindError
		first := false
		r.set(func(st *state) { first, st.err = st.err == nil, err })
		if first && errors.As(err, &unknown) {
			vanished()
		}
	}
	s.opened = func() { r.set(func(st *state) { st.err, st.lost = nil, time.Time{} }) }
	s.ended = func() { r.set(func(st *state) { st.lost = time.Now() }) }
}

// set changes the state, and wakes those who wait for it if it matters.
func (r *reflection) set(change func(*state)) {
	r.mu.Lock()
	before := r.state
	change(&r.state)
	now := time.Now()
	news := before.synced != r.state.synced || (before.err == nil) != (r.state.err == nil) ||
		(before.why(r.place, now) == "") != (r.state.why(r.place, now) == "")
	if before.why(r.place, now) != "" && r.state.why(r.place, now) == "" {
		r.sound = now
	}
	if news {
		close(r.signal)
		r.signal = make(chan struct{})
	}
	r.mu.Unlock()
	if news && r.moved != nil {
		r.moved()
	}
}

func (r *reflection) get() (state, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.signal
}

// run lists and watches until ctx ends.
func (r *reflection) run(ctx context.Context, s *source) { runReflector(ctx, s, r, r.place.where()) }

func runReflector(ctx context.Context, s *source, store cache.ReflectorStore, name string) {
	quiet := logr.Discard() // what matters is told to the source
	reflector := cache.NewReflectorWithOptions(s, nil, store, cache.ReflectorOptions{
		Logger: &quiet, Name: name, TypeDescription: name,
		Backoff: &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: 15 * time.Second},
	})
	reflector.WatchListPageSize = 500
	reflector.RunWithContext(klog.NewContext(ctx, quiet))
}

// newer tells whether resource version a is later than b, as numbers. What is
// no number is always taken for later: the newest word counts.
func newer(a, b string) bool {
	if a == b {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order > 0
}

// put takes an object over if it is newer than what is known, and returns what
// was known before.
func (r *reflection) put(o *Observed) (before *Observed, taken bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before = r.objects[o.Ref.Name]
	if before != nil && before.ResourceVersion != o.ResourceVersion && !newer(o.ResourceVersion, before.ResourceVersion) {
		return before, false
	}
	r.take(before, o)
	return before, true
}

// take keeps an object that a watch or a list has shown. r.mu is held, and o is
// not shared yet.
func (r *reflection) take(before, o *Observed) {
	r.adopt(o)
	o.outlive(before)
	if before != nil && before.pending && before.UID == o.UID && before.ResourceVersion == o.ResourceVersion {
		written := *o
		written.ignoring = before.ignoring
		written.remember() // this very version is the one that we wrote
	}
	r.objects[o.Ref.Name] = o
}

// outlive notes of an object, which is not shared yet, when it was last seen
// other than healthy: also that which took its place under its name.
func (o *Observed) outlive(before *Observed) {
	if before != nil {
		o.Unwell = before.Unwell
	}
	if o.Health.Status != Current || before != nil && before.UID != o.UID {
		o.Unwell = time.Now()
	}
}

// adopt counts an object as ours that we have applied in this process, however
// old its Apply entry is. o is not shared yet.
func (r *reflection) adopt(o *Observed) {
	if !o.Owned && !o.controlled && r.claimed[string(o.UID)] && o.copied() {
		o.Owned = true
	}
}

// Add implements [cache.ReflectorStore].
func (r *reflection) Add(x any) error { return r.Update(x) }

// Update implements [cache.ReflectorStore].
func (r *reflection) Update(x any) error {
	o, ok := x.(*item).value.(*Observed)
	if !ok || o == nil {
		return nil
	}
	if before, taken := r.put(o); taken {
		r.changed(before, o)
	}
	return nil
}

// Delete implements [cache.ReflectorStore].
func (r *reflection) Delete(x any) error {
	i := x.(*item)
	r.mu.Lock()
	before := r.objects[i.Name]
	if before == nil || newer(before.ResourceVersion, i.ResourceVersion) {
		r.mu.Unlock()
		return nil
	}
	delete(r.objects, i.Name)
	delete(r.claimed, string(before.UID))
	r.mu.Unlock()
	r.changed(before, nil)
	return nil
}

// Replace implements [cache.ReflectorStore].
func (r *reflection) Replace(list []any, version string) error {
	type pair struct{ before, after *Observed }
	var pairs []pair
	r.mu.Lock()
	listed := make(map[string]bool, len(list))
	for _, x := range list {
		o, ok := x.(*item).value.(*Observed)
		if !ok || o == nil {
			continue
		}
		listed[o.Ref.Name] = true
		before := r.objects[o.Ref.Name]
		if before != nil && newer(before.ResourceVersion, o.ResourceVersion) {
			continue
		}
		r.take(before, o)
		pairs = append(pairs, pair{before, o})
	}
	for name, o := range r.objects {
		// What was applied after the list was made is not gone.
		if !listed[name] && !newer(o.ResourceVersion, version) {
			delete(r.objects, name)
			delete(r.claimed, string(o.UID))
			pairs = append(pairs, pair{o, nil})
		}
	}
	r.reached = version
	r.mu.Unlock()
	for _, p := range pairs {
		r.changed(p.before, p.after)
	}
	r.set(func(s *state) { *s = state{synced: true} })
	return nil
}

// Resync implements [cache.ReflectorStore].
func (r *reflection) Resync() error { return nil }

// UpdateResourceVersion implements [cache.ResourceVersionUpdater].
func (r *reflection) UpdateResourceVersion(version string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reached = version
}

// applied takes over what an apply has answered, before any watch shows it.
func (r *reflection) applied(o *Observed) *Observed {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.copied() && !o.controlled && !o.Owned {
		r.claimed[string(o.UID)] = true
	}
	r.adopt(o)
	before := r.objects[o.Ref.Name]
	o.outlive(before)
	switch {
	case before == nil:
		if r.state.synced && r.reached != "" && !newer(o.ResourceVersion, r.reached) {
			return o // the watch is past it, and it is gone again
		}
	case before.ResourceVersion == o.ResourceVersion:
		written := *before
		written.ignoring = o.ignoring
		written.remember() // nothing had to be written
		if before.Owned == o.Owned {
			return before
		}
		kept := *before
		kept.Owned = o.Owned
		r.objects[o.Ref.Name] = &kept
		return &kept
	case !newer(o.ResourceVersion, before.ResourceVersion):
		return before
	}
	r.objects[o.Ref.Name] = o
	return o
}
