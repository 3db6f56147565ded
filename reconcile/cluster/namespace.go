package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pinion-cd/pinion/render"
)

var namespaceResource = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

// EnsureNamespace makes a namespace if it is not there. What it makes carries
// none of our labels and is never pruned. An account that may not read
// namespaces is taken to work in one that exists. A namespace that was seen is
// not asked for again until a request finds it gone.
func (c *Cluster) EnsureNamespace(ctx context.Context, name string) error {
	c.mu.Lock()
	_, seen := c.namespaces[name]
	c.mu.Unlock()
	if seen || name == "" {
		return nil
	}
	f := failure{op: "read", ref: render.Ref{Kind: "Namespace", Name: name}, version: "v1", kind: "Namespace"}
	var found *metav1.PartialObjectMetadata
	err := c.send(ctx, func(ctx context.Context) (err error) {
		found, err = c.metadata.Resource(namespaceResource).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	switch {
	case err == nil && found.DeletionTimestamp != nil:
		e := &NamespaceError{Op: "use namespace", Namespace: name, Terminating: true}
		e.Why = c.holds(ctx, name, found.DeletionTimestamp.Time)
		return e
	case err == nil:
		c.sawNamespace(name)
		return nil
	case apierrors.IsForbidden(err):
		return nil
	case !apierrors.IsNotFound(err):
		return classify(f, err)
	}
	f.op = "create"
	body, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}})
	if err != nil {
		return err
	}
	err = c.send(ctx, func(ctx context.Context) error {
		return c.client.Post().AbsPath("api", "v1", "namespaces").Param("fieldManager", Manager).
			SetHeader("Content-Type", "application/json").SetHeader("Accept", acceptMetadata).
			MaxRetries(0).Body(body).Do(ctx).Error()
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		err = classify(f, err)
		var forbidden *ForbiddenError
		if errors.As(err, &forbidden) {
			return errors.Join(&NamespaceError{Op: "use namespace", Namespace: name}, err)
		}
		return err
	}
	c.sawNamespace(name)
	return nil
}

func (c *Cluster) sawNamespace(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.namespaces[name] = struct{}{}
}

// holds says since when a namespace is being deleted, and what it waits for, as
// far as the API server says so.
func (c *Cluster) holds(ctx context.Context, name string, since time.Time) string {
	why := "since " + since.UTC().Format(time.RFC3339)
	var found *unstructured.Unstructured
	err := c.send(ctx, func(ctx context.Context) (err error) {
		found, err = c.dynamic.Resource(namespaceResource).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return why
	}
	conditions, _, _ := unstructured.NestedSlice(found.Object, "status", "conditions")
	for _, x := range conditions {
		condition, _ := x.(map[string]any)
		message, _ := condition["message"].(string)
		if condition["status"] == "True" && message != "" {
			why += "; " + message
		}
	}
	return why
}
