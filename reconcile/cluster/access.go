package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	authorization "k8s.io/api/authorization/v1"
	"k8s.io/klog/v2"

	"github.com/pinion-cd/pinion/render"
)

// RouteLogs sends what the Kubernetes libraries log to logger. It concerns the
// whole process.
func RouteLogs(logger *slog.Logger) { klog.SetSlogLogger(logger.With("from", "client-go")) }

// Clock returns the API server's time, to the second.
func (c *Cluster) Clock(ctx context.Context) (time.Time, error) {
	f := failure{op: "ask cluster " + c.config.Name + " for the time"}
	var date string
	err := c.send(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.client.Get().AbsPath("version").URL().String(), nil)
		if err != nil {
			return err
		}
		response, err := c.client.Client.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		date = response.Header.Get("Date")
		return nil
	})
	if err != nil {
		return time.Time{}, classify(f, err)
	}
	at, err := http.ParseTime(date)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: it does not say: %w", f.op, err)
	}
	return at, nil
}

// Denied says, in words, what our account may not do with an object's kind and
// must be able to: apply, watch and delete it.
func (c *Cluster) Denied(ctx context.Context, namespace string, o render.Object) ([]string, error) {
	m, err := c.resolve(ctx, "look at the permissions for", o.Ref, o.Version)
	if err != nil {
		return nil, err
	}
	if m.Namespaced && o.Ref.Namespace != "" {
		namespace = o.Ref.Namespace
	}
	if !m.Namespaced {
		namespace = ""
	}
	return c.denied(ctx, m.GVR.Group, m.GVR.Resource, namespace, "get", "list", "watch", "create", "patch", "delete")
}

// DeniedOwn says what our account may not do with what Pinion itself needs in
// a namespace: to write the inventory, and to read pods.
func (c *Cluster) DeniedOwn(ctx context.Context, namespace string) ([]string, error) {
	denied, err := c.denied(ctx, "", "configmaps", namespace, "get", "list", "watch", "create", "patch")
	if err != nil {
		return denied, err
	}
	for _, r := range []struct{ group, resource string }{{"", "pods"}, {"apps", "replicasets"}} {
		more, err := c.denied(ctx, r.group, r.resource, namespace, "list", "watch")
		denied = append(denied, more...)
		if err != nil {
			return denied, err
		}
	}
	return denied, nil
}

// DeniedLeases says what our account may not do with Leases in a namespace and
// must be able to, to run beside other replicas.
func (c *Cluster) DeniedLeases(ctx context.Context, namespace string) ([]string, error) {
	return c.denied(ctx, leases.Group, leases.Resource, namespace, "get", "list", "watch", "create", "update")
}

func (c *Cluster) denied(ctx context.Context, group, resource, namespace string, verbs ...string) ([]string, error) {
	return c.deniedNamed(ctx, group, resource, namespace, "", verbs...)
}

// deniedNamed is denied for one object; name "" stands for all.
func (c *Cluster) deniedNamed(ctx context.Context, group, resource, namespace, object string, verbs ...string) ([]string, error) {
	var denied []string
	for _, verb := range verbs {
		review := &authorization.SelfSubjectAccessReview{Spec: authorization.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorization.ResourceAttributes{Group: group, Resource: resource, Namespace: namespace, Name: object, Verb: verb},
		}}
		review.APIVersion, review.Kind = "authorization.k8s.io/v1", "SelfSubjectAccessReview"
		body, err := json.Marshal(review)
		if err != nil {
			return denied, err
		}
		var answer authorization.SelfSubjectAccessReview
		err = c.send(ctx, func(ctx context.Context) error {
			raw, err := rawOf(c.client.Post().AbsPath("apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews").
				SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(body).Do(ctx))
			if err != nil {
				return err
			}
			return json.Unmarshal(raw, &answer)
		})
		if err != nil {
			return denied, classify(failure{op: "ask cluster " + c.config.Name + " for our permissions"}, err)
		}
		if answer.Status.Allowed {
			continue
		}
		name := resource
		if group != "" {
			name += "." + group
		}
		where := "in the whole cluster"
		if namespace != "" {
			where = "in namespace " + namespace
		}
		if object != "" {
			name += " " + object
		}
		denied = append(denied, fmt.Sprintf("%s %s %s", verb, name, where))
	}
	return denied, nil
}
