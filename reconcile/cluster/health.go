package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
)

// rulebook has the services' own rules of health. Objects are judged as a watch
// delivers them and are not kept, so what was judged before its rule came is
// read once more: by one list of its place, however many rules have come.
type rulebook struct {
	mu      sync.RWMutex
	rules   map[Key]*health.Rules // guarded by mu
	again   map[place]bool        // guarded by mu; that are being read again; true: and once more after that
	classes map[string]*class     // guarded by mu; StorageClasses by name
}

// class is what is known of a StorageClass.
type class struct {
	fact   health.Fact
	asking bool
	read   time.Time          // zero: never
	places map[place]struct{} // of the claims that wait for an answer
}

// How long it is believed how a class binds, and how soon one that could not be
// read is read again.
const (
	classAge   = 10 * time.Minute
	classRetry = 5 * time.Second
	againRetry = time.Second
)

func (b *rulebook) init() {
	b.rules, b.again, b.classes = map[Key]*health.Rules{}, map[place]bool{}, map[string]*class{}
}

// SetHealth takes in a service's rules of health; nil: it has none. Until an
// object has been judged by them it is in progress.
func (c *Cluster) SetHealth(key Key, rules *health.Rules) {
	b := &c.health
	b.mu.Lock()
	old := b.rules[key]
	if old.Same(rules) {
		b.mu.Unlock()
		return
	}
	if rules == nil {
		delete(b.rules, key)
	} else {
		b.rules[key] = rules
	}
	b.mu.Unlock()
	kinds := append(old.Kinds(), rules.Kinds()...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.places {
		if slices.Contains(kinds, p.String()) {
			c.judgeAgain(p)
		}
	}
}

// ruleFor returns the rule for a kind of a service's objects; nil: none.
func (b *rulebook) ruleFor(key Key, kind string) *health.Rule {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.rules) == 0 {
		return nil
	}
	return b.rules[key].For(kind)
}

// wants tells whether any service has a rule for a kind, and the version that
// all of them are written for; "" if they are not for the same.
func (b *rulebook) wants(kind string) (version string, any bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, rules := range b.rules {
		r := rules.For(kind)
		switch {
		case r == nil:
		case any && r.Version != version:
			return "", true
		default:
			version, any = r.Version, true
		}
	}
	return version, any
}

// unjudged tells whether an object was judged by other rules than those that
// its service has.
func (c *Cluster) unjudged(o *Observed) bool {
	return !o.pending && !o.Deleting && c.health.ruleFor(Key{o.Environment, o.Service}, placeOf(o.Ref).String()) != o.rule
}

// observe reduces a full object, judged by its service's rules.
func (c *Cluster) observe(p place, u *unstructured.Unstructured) *Observed {
	labels := u.GetLabels()
	key := Key{desired.EnvironmentName(labels[render.LabelEnvironment]), desired.ServiceName(labels[render.LabelService])}
	var fact health.Fact
	if name := health.ClassOf(u.Object); name != "" {
		fact = c.binding(name, p)
	}
	return observeObject(p, u, c.health.ruleFor(key, p.String()), fact)
}

// judgeAgain has a place read once more. It does not wait.
func (c *Cluster) judgeAgain(p place) {
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	if _, busy := c.health.again[p]; busy {
		c.health.again[p] = true
		return
	}
	c.health.again[p] = false
	c.wg.Go(func() {
		for {
			if err := c.readAgain(p); err != nil {
				after, _ := Retry(err)
				select {
				case <-time.After(max(after, againRetry)):
					continue
				case <-c.ctx.Done():
					return
				}
			}
			c.health.mu.Lock()
			if !c.health.again[p] {
				delete(c.health.again, p)
				c.health.mu.Unlock()
				return
			}
			c.health.again[p] = false
			c.health.mu.Unlock()
		}
	})
}

// readAgain reads the objects of a place and judges them. A place of which only
// the metadata was watched, or another version than the rules are for, is
// watched anew instead, which reads it, too.
func (c *Cluster) readAgain(p place) error {
	version, wanted := c.health.wants(p.String())
	var gvr schema.GroupVersionResource
	changed := false
	if version != "" {
		m, err := c.resolve(c.ctx, "watch "+p.where(), render.Ref{Group: p.group, Kind: p.kind, Namespace: p.namespace}, version)
		var unknown *UnknownKindError
		switch {
		case errors.As(err, &unknown): // what is shown is in another version, and the rule says so
		case err != nil:
			return err
		default:
			gvr = m.GVR
		}
	}
	c.mu.Lock()
	r := c.places[p]
	if r == nil {
		c.mu.Unlock()
		return nil
	}
	if gvr.Resource != "" && gvr != r.gvr {
		r.gvr, changed = gvr, true
	}
	if changed || wanted && !r.full {
		c.feed(r)
		c.mu.Unlock()
		return nil
	}
	full := r.full
	gvr = r.gvr
	c.mu.Unlock()
	if !full {
		return nil // nobody judges it any more
	}
	options := metav1.ListOptions{LabelSelector: selector, Limit: 500}
	for {
		var list *unstructured.UnstructuredList
		err := c.send(c.ctx, func(ctx context.Context) (err error) {
			list, err = c.dynamic.Resource(gvr).Namespace(p.namespace).List(ctx, options)
			return err
		})
		if apierrors.IsResourceExpired(err) && options.Continue != "" {
			options.Continue = ""
			continue
		}
		if err != nil {
			return classify(failure{op: "list " + p.where(), group: p.group, kind: p.kind, version: gvr.Version}, err)
		}
		for i := range list.Items {
			o := c.observe(p, &list.Items[i])
			list.Items[i].Object = nil
			// What is not there any more is left to the watch.
			if before, taken := r.judged(o); taken {
				c.changed(r, before, o)
			}
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// judged takes an object over that was read once more, if it is still there and
// not older.
func (r *reflection) judged(o *Observed) (before *Observed, taken bool) {
	r.mu.Lock()
	before = r.objects[o.Ref.Name]
	r.mu.Unlock()
	if before == nil || before.UID != o.UID {
		return nil, false
	}
	return r.put(o)
}

// feed begins to fill a place's view, in place of the watch that there may be:
// with whole objects if their health says anything, else with their metadata.
// c.mu is held.
func (c *Cluster) feed(r *reflection) {
	if r.cancel != nil {
		r.cancel()
	}
	p, gvr := r.place, r.gvr
	ctx, cancel := context.WithCancel(c.ctx)
	r.cancel = cancel
	_, judged := c.health.wants(p.String())
	r.full = judged || !noStatus[p.String()]
	s := &source{}
	r.source = s
	r.attach(s, func() { c.wg.Go(func() { c.vanished(r) }) })
	s.onlyUntil(ctx)
	version := gvr.Version
	inventory := p.kind == "ConfigMap" && p.group == ""
	if r.full {
		s.reduce = func(o runtime.Object) any {
			u := o.(*unstructured.Unstructured)
			if inventory {
				c.sawInventory(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
					Name: u.GetName(), Namespace: u.GetNamespace(), Labels: u.GetLabels(), ResourceVersion: u.GetResourceVersion(),
				}})
			}
			return c.observe(p, u)
		}
		c.full(s, gvr, p.namespace, selector)
	} else {
		s.reduce = func(o runtime.Object) any {
			m := o.(*metav1.PartialObjectMetadata)
			if inventory {
				c.sawInventory(m)
			}
			return observePartial(p, version, m)
		}
		c.partial(s, gvr, p.namespace, selector)
	}
	c.wg.Go(func() { r.run(ctx, s) })
}

// onlyUntil keeps a source from telling anything once ctx has ended: another
// one has taken its place.
func (s *source) onlyUntil(ctx context.Context) {
	failed, opened, ended := s.failed, s.opened, s.ended
	s.failed = func(err error) {
		if ctx.Err() == nil {
			failed(err)
		}
	}
	s.opened = func() {
		if ctx.Err() == nil {
			opened()
		}
	}
	s.ended = func() {
		if ctx.Err() == nil {
			ended()
		}
	}
}

// binding returns how a StorageClass binds, as far as it is known now. What is
// not known is asked for, and the claims of the place are judged again when it
// is.
func (c *Cluster) binding(name string, p place) health.Fact {
	b := &c.health
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.classes[name]
	if k == nil {
		k = &class{places: map[place]struct{}{}}
		b.classes[name] = k
	}
	fresh := !k.read.IsZero() && (k.fact.Unread == "" && time.Since(k.read) < classAge || k.fact.Unread != "" && time.Since(k.read) < classRetry)
	if !fresh {
		k.places[p] = struct{}{}
		if !k.asking && c.ctx.Err() == nil {
			k.asking = true
			c.wg.Go(func() { c.readClass(name) })
		}
	} else if k.fact.Unread != "" {
		k.places[p] = struct{}{}
	}
	return k.fact
}

// readClass reads a StorageClass, and again as long as that fails and somebody
// waits for it.
func (c *Cluster) readClass(name string) {
	fact := health.Fact{}
	var k storagev1.StorageClass
	err := c.send(c.ctx, func(ctx context.Context) error {
		raw, err := rawOf(c.client.Get().AbsPath("apis", "storage.k8s.io", "v1", "storageclasses", name).
			SetHeader("Accept", "application/json").MaxRetries(0).Do(ctx))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &k)
	})
	switch {
	case apierrors.IsNotFound(err):
		fact.Unread = fmt.Sprintf("there is no StorageClass %s", name)
	case err != nil:
		fact.Unread = classify(failure{op: "read", ref: render.Ref{Group: "storage.k8s.io", Kind: "StorageClass", Name: name}, group: "storage.k8s.io", version: "v1", kind: "StorageClass"}, err).Error()
	case k.VolumeBindingMode == nil:
		fact.Binding = string(storagev1.VolumeBindingImmediate)
	default:
		fact.Binding = string(*k.VolumeBindingMode)
	}
	b := &c.health
	b.mu.Lock()
	known := b.classes[name]
	changed := known.fact != fact
	known.fact, known.read, known.asking = fact, time.Now(), false
	places := known.places
	known.places = map[place]struct{}{}
	b.mu.Unlock()
	if fact.Unread != "" {
		// The next look at the claims asks again.
		select {
		case <-time.After(classRetry):
			changed = true
		case <-c.ctx.Done():
			return
		}
	}
	for p := range places {
		if changed {
			c.judgeAgain(p)
		}
	}
}
