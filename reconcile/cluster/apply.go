package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/pinion-cd/pinion/render"
)

// acceptMetadata asks for no more of an object than its metadata.
const acceptMetadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

// DryRun asks the API server whether an apply would be accepted. An admission
// webhook that can't take part in dry runs is not an error: the apply asks it.
func (c *Cluster) DryRun(ctx context.Context, o render.Object, commit string, opts ApplyOptions) (Trial, error) {
	m, a, err := c.patch(ctx, "validate", o, commit, opts, true)
	var invalid *InvalidError
	if errors.As(err, &invalid) && strings.Contains(invalid.Message, "does not support dry run") {
		return Trial{}, nil
	}
	var immutable *ImmutableError
	if errors.As(err, &immutable) {
		c.pinpoint(ctx, m, o, immutable)
	}
	if err != nil {
		return Trial{}, err
	}
	if size := sizeOf(o, a.object); size > mostStored {
		return Trial{}, &TooLargeError{Op: "validate", Ref: o.Ref, Size: size, Limit: mostStored}
	}
	t := Trial{Exists: !a.created}
	if t.Exists {
		t.Managers = otherManagers(a.object)
	}
	return t, nil
}

// mostStored is how large an object may be to be kept: what etcd takes by
// default. A dry run does not get that far.
const mostStored = 1_572_864

// sizeOf is about how many bytes an object has as it is kept: what was sent and
// what the API server keeps book with. Of small ones it is 0.
func sizeOf(o render.Object, answer *metav1.PartialObjectMetadata) int {
	if len(o.JSON) < mostStored/4 {
		return 0
	}
	size := len(o.JSON)
	for _, e := range answer.ManagedFields {
		if e.FieldsV1 != nil {
			size += len(e.FieldsV1.GetRawBytes())
		}
	}
	return size
}

// otherManagers names who else has written to an object, sorted; statuses do
// not count.
func otherManagers(m metav1.Object) []string {
	var names []string
	for _, e := range m.GetManagedFields() {
		if e.Manager != Manager && e.Subresource == "" && e.Manager != "" && !slices.Contains(names, e.Manager) {
			names = append(names, e.Manager)
		}
	}
	slices.Sort(names)
	return names
}

// Apply writes an object: one request. What the API server answers is known to
// Lookup and Observe at once.
func (c *Cluster) Apply(ctx context.Context, o render.Object, commit string, opts ApplyOptions) (Applied, error) {
	// Looked up first: a watch may be faster than the answer.
	before, known := c.Lookup([]render.Object{o})[o.Ref]
	m, answer, err := c.patch(ctx, "apply", o, commit, opts, false)
	if err != nil {
		return Applied{}, err
	}
	if o.Ref.Kind == "CustomResourceDefinition" {
		c.mapper.forget(false)
	}
	p := placeOf(m.Ref)
	seen := observePartial(p, m.GVR.Version, answer.object)
	if !seen.Deleting {
		seen.Health, seen.pending = Health{Status: InProgress, Message: "applied, not yet observed"}, true
	}
	seen.ignoring = ignoring(o)
	// Nobody came between: the API server's answer is what full coverage is.
	seen.remember()
	applied := Applied{Observed: *seen, Created: answer.created, Changed: true, Warnings: answer.warnings}
	r := c.viewOrBegin(ctx, m, seen)
	if r == nil {
		return applied, nil
	}
	applied.Observed = c.explained(r.applied(seen))
	if known && (before.Environment != seen.Environment || before.Service != seen.Service) {
		// The watch will show what is known already, so whose it was is told now.
		c.changes.add(Key{before.Environment, before.Service})
	}
	applied.Changed = answer.created || !known || before.UID != seen.UID || !unchanged(&before, seen)
	return applied, nil
}

// unchanged tells whether an apply wrote nothing: the version is what it was,
// or only others have written since.
func unchanged(before, after *Observed) bool {
	return before.ResourceVersion == after.ResourceVersion ||
		before.Applied.Equal(after.Applied) && before.Fields == after.Fields &&
			before.Digest == after.Digest && before.Commit == after.Commit
}

// viewOrBegin finds the view of an object's place. If there is none because
// its kind was not served until now, it begins one.
func (c *Cluster) viewOrBegin(ctx context.Context, m Mapped, o *Observed) *reflection {
	c.mu.Lock()
	r := c.places[placeOf(m.Ref)]
	var scopes []Scope
	if r == nil {
		for s, kinds := range c.absent {
			for k := range kinds {
				if s.Environment == o.Environment && k.Group == m.Ref.Group && k.Kind == m.Ref.Kind {
					scopes = append(scopes, s)
				}
			}
		}
	}
	c.mu.Unlock()
	for _, s := range scopes {
		if v, err := c.begin(ctx, s, Kind{Group: m.Ref.Group, Kind: m.Ref.Kind, Version: m.GVR.Version, Namespace: m.Ref.Namespace}); err == nil {
			r = v
		}
	}
	return r
}

type answer struct {
	object   *metav1.PartialObjectMetadata
	created  bool
	warnings []string
}

// patch sends one server-side apply patch, and again if the object is not what
// it was made for any more.
func (c *Cluster) patch(ctx context.Context, op string, o render.Object, commit string, opts ApplyOptions, dryRun bool) (Mapped, answer, error) {
	for n := 1; ; n++ {
		m, a, err := c.patchOnce(ctx, op, o, commit, opts, dryRun)
		if n == mostYields || !wasModified(err) {
			return m, a, err
		}
	}
}

func (c *Cluster) patchOnce(ctx context.Context, op string, o render.Object, commit string, opts ApplyOptions, dryRun bool) (Mapped, answer, error) {
	m, err := c.resolve(ctx, op, o.Ref, o.Version)
	if err != nil {
		return m, answer{}, err
	}
	body := plainSecret(o.Ref, o.Stamp(commit))
	f := failure{op: op, ref: m.Ref, body: body, group: m.GVR.Group, version: m.GVR.Version, kind: m.Ref.Kind}
	if body, err = c.yield(ctx, f, m, o, body); err != nil {
		return m, answer{}, err
	}
	ctx, done, err := c.slot(ctx)
	if err != nil {
		return m, answer{}, fmt.Errorf("%s: %w", f.what(), err)
	}
	defer done()
	request := c.client.Patch(types.ApplyPatchType).
		AbsPath(pathOf(m)...).
		Param("fieldManager", Manager).
		SetHeader("Accept", acceptMetadata).
		MaxRetries(0). // the caller has the queue
		Body(body)
	if opts.Force {
		request.Param("force", "true")
	} else {
		request.Param("force", "false")
	}
	if dryRun {
		request.Param("dryRun", metav1.DryRunAll)
	}
	var status int
	result := request.Do(ctx).StatusCode(&status)
	a := answer{created: status == http.StatusCreated}
	for _, w := range result.Warnings() {
		a.warnings = append(a.warnings, w.Text)
	}
	err = result.Error()
	if err == nil {
		a.object, err = metadataOf(result)
	}
	if err != nil {
		err = classify(f, err)
		c.learn(err)
		return m, answer{}, err
	}
	return m, a, nil
}

// learn drops what an error has refuted.
func (c *Cluster) learn(err error) {
	var unknown *UnknownKindError
	var namespace *NamespaceError
	switch {
	case errors.As(err, &unknown):
		c.mapper.forget(true)
	case errors.As(err, &namespace):
		c.mu.Lock()
		delete(c.namespaces, namespace.Namespace)
		c.mu.Unlock()
	}
}

func pathOf(m Mapped) []string {
	var path []string
	if m.GVR.Group == "" {
		path = append(path, "api", m.GVR.Version)
	} else {
		path = append(path, "apis", m.GVR.Group, m.GVR.Version)
	}
	if m.Ref.Namespace != "" {
		path = append(path, "namespaces", m.Ref.Namespace)
	}
	path = append(path, m.GVR.Resource)
	if m.Ref.Name != "" {
		path = append(path, m.Ref.Name)
	}
	return path
}

// metadataOf reads an answer that was asked to be PartialObjectMetadata. An API
// server that does not know it (an aggregated one may not) sends the object.
func metadataOf(r rest.Result) (*metav1.PartialObjectMetadata, error) {
	object, err := r.Get()
	if err == nil {
		if m, ok := object.(*metav1.PartialObjectMetadata); ok {
			return m, nil
		}
		return nil, fmt.Errorf("the API server answered with %T", object)
	}
	if !runtime.IsNotRegisteredError(err) {
		return nil, err
	}
	raw, err := r.Raw()
	if err != nil {
		return nil, err
	}
	m := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(raw, m); err != nil || m.UID == "" {
		return nil, errors.New("the API server's answer is not an object")
	}
	return m, nil
}

// rawOf returns an answer's bytes, or the error with all that the API server
// says of it, which [rest.Result.Raw] alone does not.
func rawOf(r rest.Result) ([]byte, error) {
	if err := r.Error(); err != nil {
		return nil, err
	}
	return r.Raw()
}
