package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/pinion-cd/pinion/render"
)

// mappingAge is how old what is known of the API server's kinds must be before
// it is read again because a kind was not found.
const mappingAge = 3 * time.Second

// Mapped says where objects of a kind are.
type Mapped struct {
	GVR        schema.GroupVersionResource
	Namespaced bool
	// Ref is the object's; without a namespace if the kind has none.
	Ref render.Ref
}

// mapper knows the kinds that the API server serves. It reads them when it is
// first asked, and again when a kind is not found.
type mapper struct {
	lock   chan struct{} // of capacity one; held while known is read or replaced
	known  *kinds
	loaded time.Time
	stale  bool // it is known that kinds have changed
}

// kinds is what discovery said, in one answer.
type kinds struct {
	served map[schema.GroupVersionKind]metav1.APIResource
	// versions are those of a kind, the API server's preferred one first.
	versions map[schema.GroupKind][]string
	// failed are groups of which discovery could not read everything.
	failed map[string]error
}

// Map says where an object is to be sent. An unknown kind is an
// *UnknownKindError, but only if the API server surely has no such kind.
func (c *Cluster) Map(ctx context.Context, o render.Object) (Mapped, error) {
	return c.resolve(ctx, "map", o.Ref, o.Version)
}

// resolve finds the resource of ref's kind in a version; "" means the
// preferred one.
func (c *Cluster) resolve(ctx context.Context, op string, ref render.Ref, version string) (Mapped, error) {
	m := &c.mapper
	select {
	case m.lock <- struct{}{}:
	case <-ctx.Done():
		return Mapped{}, ctx.Err()
	}
	defer func() { <-m.lock }()
	if m.known != nil {
		if mapped, ok := m.known.find(ref, version); ok {
			return mapped, nil
		}
		if !m.stale && time.Since(m.loaded) < mappingAge {
			return Mapped{}, m.known.missing(op, ref, version)
		}
	}
	known, err := c.discover(ctx)
	if err != nil {
		return Mapped{}, classify(failure{op: "ask cluster " + c.config.Name + " for its kinds"}, err)
	}
	m.known, m.loaded, m.stale = known, time.Now(), false
	if mapped, ok := known.find(ref, version); ok {
		return mapped, nil
	}
	return Mapped{}, known.missing(op, ref, version)
}

// forget makes the next kind that is not found ask the API server at once;
// gone also drops what is known.
func (m *mapper) forget(gone bool) {
	m.lock <- struct{}{}
	m.stale = true
	if gone {
		m.known = nil
	}
	<-m.lock
}

func (c *Cluster) discover(ctx context.Context) (*kinds, error) {
	ctx, done, err := c.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	groups, lists, err := discovery.ServerGroupsAndResourcesWithContext(ctx, c.discovery)
	k := &kinds{
		served:   map[schema.GroupVersionKind]metav1.APIResource{},
		versions: map[schema.GroupKind][]string{},
		failed:   map[string]error{},
	}
	if err != nil {
		var partial *discovery.ErrGroupDiscoveryFailed
		if !errors.As(err, &partial) {
			return nil, err
		}
		for gv, err := range partial.Groups {
			k.failed[gv.Group] = err
		}
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") {
				continue // a subresource
			}
			kind := gv.WithKind(r.Kind)
			if r.Group != "" || r.Version != "" { // as if served by another group
				kind.Group, kind.Version = r.Group, cmp.Or(r.Version, gv.Version)
			}
			if have, ok := k.served[kind]; ok && slices.Contains(have.Verbs, "patch") {
				continue
			}
			if _, ok := k.served[kind]; !ok {
				k.versions[kind.GroupKind()] = append(k.versions[kind.GroupKind()], kind.Version)
			}
			k.served[kind] = r
		}
	}
	rank := map[schema.GroupVersion]int{}
	for _, g := range groups {
		for i, v := range g.Versions {
			rank[schema.GroupVersion{Group: g.Name, Version: v.Version}] = i + 1
		}
		rank[schema.GroupVersion{Group: g.Name, Version: g.PreferredVersion.Version}] = 0
	}
	for gk, versions := range k.versions {
		slices.SortStableFunc(versions, func(a, b string) int {
			return cmp.Compare(rank[gk.WithVersion(a).GroupVersion()], rank[gk.WithVersion(b).GroupVersion()])
		})
	}
	return k, nil
}

func (k *kinds) find(ref render.Ref, version string) (Mapped, bool) {
	gk := schema.GroupKind{Group: ref.Group, Kind: ref.Kind}
	if version == "" {
		versions := k.versions[gk]
		if len(versions) == 0 {
			return Mapped{}, false
		}
		version = versions[0]
	}
	r, ok := k.served[gk.WithVersion(version)]
	if !ok {
		return Mapped{}, false
	}
	m := Mapped{GVR: gk.WithVersion(version).GroupVersion().WithResource(r.Name), Namespaced: r.Namespaced, Ref: ref}
	if !m.Namespaced {
		m.Ref.Namespace = ""
	}
	return m, true
}

// missing says that a kind is not there, or that this can't be said.
func (k *kinds) missing(op string, ref render.Ref, version string) error {
	if err := k.failed[ref.Group]; err != nil {
		if errors.As(err, new(discovery.StaleGroupVersionError)) {
			err = errors.New("the server that its APIService names does not answer")
		}
		return &RetryableError{Op: op, Ref: ref, Err: fmt.Errorf("the API server can't say which kinds group %s has: %w", ref.Group, &UnavailableError{Group: ref.Group, Why: err.Error()})}
	}
	e := &UnknownKindError{Op: op, Ref: ref, Group: ref.Group, Version: version, Kind: ref.Kind}
	if versions := k.versions[schema.GroupKind{Group: ref.Group, Kind: ref.Kind}]; len(versions) > 0 {
		e.Suggestion = "it has the kind in " + strings.Join(apiVersions(ref.Group, versions), ", ")
		return e
	}
	var elsewhere []string
	nearest, distance := "", 3
	for _, gk := range slices.SortedFunc(maps.Keys(k.versions), func(a, b schema.GroupKind) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind))
	}) {
		if gk.Kind == ref.Kind {
			elsewhere = append(elsewhere, apiVersions(gk.Group, k.versions[gk])[0])
		}
		if d := editDistance(strings.ToLower(gk.Kind), strings.ToLower(ref.Kind)); gk.Group == ref.Group && d < distance {
			nearest, distance = gk.Kind, d
		}
	}
	switch {
	case len(elsewhere) > 0:
		e.Suggestion = "it has the kind in " + strings.Join(elsewhere, ", ")
	case nearest != "":
		e.Suggestion = "did you mean " + nearest + "?"
	}
	return e
}

func apiVersions(group string, versions []string) []string {
	var all []string
	for _, v := range versions {
		all = append(all, schema.GroupVersion{Group: group, Version: v}.String())
	}
	return all
}

// editDistance counts the letters to insert, remove or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
