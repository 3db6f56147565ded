package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Delete deletes the object that was observed, and no other: the request names
// its UID and its version. If it has changed since, it is looked at again, and
// deleted only if it is still ours and of the same service. That it is gone
// already is no error.
func (c *Cluster) Delete(ctx context.Context, o Observed, how Propagation) error {
	if !o.Owned {
		return &NotOursError{o.Ref, "it was not applied by us"}
	}
	m, err := c.resolve(ctx, "delete", o.Ref, o.Version)
	if err != nil {
		return err
	}
	f := failure{op: "delete", ref: m.Ref, group: m.GVR.Group, version: m.GVR.Version, kind: m.Ref.Kind, unread: sealed(o)}
	version, propagation := o.ResourceVersion, metav1.DeletionPropagation(how)
	for range 3 {
		err = c.send(ctx, func(ctx context.Context) error {
			return c.metadata.Resource(m.GVR).Namespace(m.Ref.Namespace).Delete(ctx, m.Ref.Name, metav1.DeleteOptions{
				Preconditions:     &metav1.Preconditions{UID: &o.UID, ResourceVersion: &version},
				PropagationPolicy: &propagation,
			})
		})
		if err == nil {
			c.deleted(m, o)
			return nil
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return classify(f, err)
		}
		var now *metav1.PartialObjectMetadata
		getErr := c.send(ctx, func(ctx context.Context) (err error) {
			now, err = c.metadata.Resource(m.GVR).Namespace(m.Ref.Namespace).Get(ctx, m.Ref.Name, metav1.GetOptions{})
			return err
		})
		if apierrors.IsNotFound(getErr) {
			return nil
		}
		if getErr != nil {
			return classify(f, getErr)
		}
		seen := observePartial(placeOf(m.Ref), m.GVR.Version, now)
		switch {
		case seen.UID != o.UID:
			return nil // what we saw is gone; this is another
		case seen.Deleting:
			return nil
		case !seen.Owned && (seen.Applied.IsZero() || seen.controlled):
			return &NotOursError{o.Ref, "someone else has taken it over"}
		case seen.Environment != o.Environment || seen.Service != o.Service:
			return &NotOursError{o.Ref, fmt.Sprintf("it belongs to %s/%s now", seen.Environment, seen.Service)}
		}
		version = seen.ResourceVersion
	}
	return classify(f, err)
}

// sealed tells whether an object holds values that are not to be shown: as far as
// can be seen from outside, for its content is not read.
func sealed(o Observed) bool {
	return o.Ref.Kind == "Secret" && o.Ref.Group == "" || strings.HasPrefix(o.Digest, "hmac-")
}

// deleted marks an object as going, until the watch shows that it is gone.
func (c *Cluster) deleted(m Mapped, o Observed) {
	r, _ := c.view(m.Ref)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.objects[o.Ref.Name]; have != nil && have.UID == o.UID {
		going := *have
		going.Deleting, going.Gone = true, time.Now().UTC()
		going.Health = Health{Status: Terminating, Message: "it is being deleted"}
		r.objects[o.Ref.Name] = &going
	}
}

// send carries out one request in one of the slots.
func (c *Cluster) send(ctx context.Context, request func(context.Context) error) error {
	ctx, done, err := c.slot(ctx)
	if err != nil {
		return err
	}
	defer done()
	return request(ctx)
}
