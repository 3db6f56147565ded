package cluster

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/render"
)

// Comparison is what a look at the API server's truth came to.
type Comparison struct {
	Objects int // that were listed
	// Missed are objects of which a watch has certainly not told the newest
	// version: it has told of later ones.
	Missed []render.Ref
}

// comparePage is how many objects one page of a list has at most. No more than
// one page is in memory at a time, and each object of it is reduced and let go.
const comparePage = 500

// Compare lists all that is watched for a scope, one kind after the other and
// page by page, and takes over what a watch has not told: so a change that was
// lost on the way is seen, as any other, by Lookup and Changes. Nothing is
// written. It does not mend the state of a view: one whose watch is broken
// stays incomplete.
func (c *Cluster) Compare(ctx context.Context, scope Scope) (Comparison, error) {
	c.mu.Lock()
	views := make([]*reflection, 0, len(c.scopes[scope]))
	sources := map[*reflection]*source{}
	for p := range c.scopes[scope] {
		if r := c.places[p]; r != nil {
			views = append(views, r)
			sources[r] = r.source
		}
	}
	c.mu.Unlock()
	slices.SortFunc(views, func(a, b *reflection) int { return compareText(a.place.where(), b.place.where()) })
	var all Comparison
	for _, r := range views {
		if st, _ := r.get(); !st.synced || st.err != nil {
			continue // its watch lists it anyway as soon as it can
		}
		n, missed, err := c.compare(ctx, r, sources[r])
		all.Objects += n
		all.Missed = append(all.Missed, missed...)
		if err != nil {
			return all, err
		}
	}
	slices.SortFunc(all.Missed, render.Ref.Compare)
	return all, nil
}

func (c *Cluster) compare(ctx context.Context, r *reflection, s *source) (objects int, missed []render.Ref, err error) {
	f := failure{op: "compare " + r.place.where(), group: r.place.group, kind: r.place.kind}
	options := metav1.ListOptions{Limit: comparePage}
	listed := map[string]struct{}{}
	version := ""
	for {
		var page []*Observed
		err := c.send(ctx, func(ctx context.Context) error {
			list, err := s.page(ctx, options)
			if err != nil {
				return err
			}
			m, err := meta.ListAccessor(list)
			if err != nil {
				return err
			}
			if version == "" {
				version = m.GetResourceVersion() // all pages are of this one
			}
			options.Continue = m.GetContinue()
			for _, x := range list.Items {
				if o, ok := x.(*item).value.(*Observed); ok && o != nil {
					page = append(page, o)
				}
			}
			return nil
		})
		if err != nil {
			return objects, missed, classify(f, err)
		}
		objects += len(page)
		for _, o := range page {
			listed[o.Ref.Name] = struct{}{}
			before, late, newer := r.meet(o)
			if late {
				missed = append(missed, o.Ref)
			}
			if newer {
				r.changed(before, o)
			}
		}
		if options.Continue == "" {
			break
		}
	}
	if version == "" {
		return objects, missed, fmt.Errorf("%s: the API server's list has no resource version", f.what())
	}
	for _, gone := range r.part(listed, version) {
		if gone.late {
			missed = append(missed, gone.object.Ref)
		}
		r.changed(gone.object, nil)
	}
	return objects, missed, nil
}

// meet takes over an object that was listed if it is newer than what is known.
// late says that the watch has passed its version without telling.
func (r *reflection) meet(o *Observed) (before *Observed, late, taken bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before = r.objects[o.Ref.Name]
	if before != nil && (before.ResourceVersion == o.ResourceVersion || !newer(o.ResourceVersion, before.ResourceVersion)) {
		return before, false, false
	}
	r.take(before, o)
	return before, r.passed(o.ResourceVersion), true
}

type parted struct {
	object *Observed
	late   bool
}

// part drops what a list of that version does not have.
func (r *reflection) part(listed map[string]struct{}, version string) []parted {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []parted
	for name, o := range r.objects {
		if _, there := listed[name]; there || newer(o.ResourceVersion, version) {
			continue
		}
		delete(r.objects, name)
		delete(r.claimed, string(o.UID))
		all = append(all, parted{o, r.passed(version)})
	}
	return all
}

// passed tells whether the watch has come to a version, or beyond. r.mu is held.
func (r *reflection) passed(version string) bool {
	return r.reached != "" && !newer(version, r.reached)
}
