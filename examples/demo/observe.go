package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// owned selects what Pinion applies.
const owned = "app.kubernetes.io/managed-by=pinion"

// until asks again and again until f says that it has seen what it looks for.
func (d *demo) until(ctx context.Context, what string, f func(context.Context) (bool, string, error)) error {
	last := "nothing"
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, d.patience, true, func(ctx context.Context) (bool, error) {
		ok, seen, err := f(ctx)
		if seen != "" {
			last = seen
		}
		return ok, err
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s was not seen within %s; the last thing seen was: %s\nthe daemon's last words:\n%s", what, d.patience, last, d.daemon.tail())
	}
	return err
}

// deployment returns a service's Deployment in an environment.
func (d *demo) deployment(ctx context.Context, env, service string) (*appsv1.Deployment, error) {
	ns, name := d.place(env, service)
	return d.kube.AppsV1().Deployments(ns).Get(ctx, name, metav1.GetOptions{})
}

// allRun waits until all of the first commit has rolled out.
func (d *demo) allRun(ctx context.Context) error {
	return d.until(ctx, "the rollout of the first commit", func(ctx context.Context) (bool, string, error) {
		for _, env := range environments {
			for _, service := range []string{"api", "web"} {
				switch x, err := d.deployment(ctx, env, service); {
				case apierrors.IsNotFound(err):
					return false, "there is no " + service + " in " + env, nil
				case err != nil:
					return false, "", err
				case !complete(x):
					return false, service + " rolls out in " + env, nil
				}
			}
		}
		return true, "", nil
	})
}

// complete tells whether the rollout of a Deployment is complete.
func complete(x *appsv1.Deployment) bool {
	want := int32(1)
	if x.Spec.Replicas != nil {
		want = *x.Spec.Replicas
	}
	s := x.Status
	return s.ObservedGeneration >= x.Generation && s.UpdatedReplicas == want && s.AvailableReplicas == want && s.Replicas == want
}

func image(x *appsv1.Deployment) string {
	return x.Spec.Template.Spec.Containers[0].Image
}

// specs returns, for each object that Pinion applied, what changes whenever
// somebody writes to it: the generation of what has one, and the version of
// what has no status that others write.
func (d *demo) specs(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for _, ns := range d.namespaces() {
		opts := metav1.ListOptions{LabelSelector: owned}
		deployments, err := d.kube.AppsV1().Deployments(ns).List(ctx, opts)
		if err != nil {
			return nil, err
		}
		for _, x := range deployments.Items {
			all["Deployment "+ns+"/"+x.Name] = fmt.Sprint(x.UID, x.Generation, x.Annotations["pinion.dev/commit"])
		}
		configMaps, err := d.kube.CoreV1().ConfigMaps(ns).List(ctx, opts)
		if err != nil {
			return nil, err
		}
		for _, x := range configMaps.Items {
			all["ConfigMap "+ns+"/"+x.Name] = fmt.Sprint(x.UID, x.ResourceVersion)
		}
	}
	return all, nil
}

// touched says which objects differ between two looks.
func touched(before, after map[string]string) []string {
	var names []string
	for name := range maps.Keys(after) {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	for name := range maps.Keys(before) {
		if _, ok := after[name]; !ok {
			names = append(names, name+" (gone)")
		}
	}
	slices.Sort(names)
	return names
}

// podTrouble returns what a container of the Deployment's pods waits for.
func (d *demo) podTrouble(ctx context.Context, x *appsv1.Deployment) (string, error) {
	pods, err := d.kube.CoreV1().Pods(x.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(x.Spec.Selector)})
	if err != nil {
		return "", err
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "ContainerCreating" {
				return fmt.Sprintf("%s of pod %s: %s", w.Reason, p.Name, w.Message), nil
			}
		}
	}
	return "", nil
}

// onlyTouched checks that nothing but one service of an environment has been
// written to.
func (d *demo) onlyTouched(ctx context.Context, before map[string]string, env, service string) error {
	after, err := d.specs(ctx)
	if err != nil {
		return err
	}
	names := touched(before, after)
	ns, name := d.place(env, service)
	for _, n := range names {
		if _, object, _ := strings.Cut(n, " "); object != ns+"/"+name {
			return fmt.Errorf("%s was touched, although only %s in %s has changed", n, service, env)
		}
	}
	d.tell("Seen in the API server: %s were written to, and none of the other %d objects.", strings.Join(names, " and "), len(after)-len(names))
	return nil
}

// checkNamespaces notes which of the environments' namespaces are there.
func (d *demo) checkNamespaces(ctx context.Context) error {
	if d.namespace != "" {
		return nil // who may not read namespaces may work in one
	}
	for _, ns := range d.namespaces() {
		_, err := d.kube.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			d.created = append(d.created, ns)
		case err == nil:
			d.created = nil // they are not ours
			return fmt.Errorf("the cluster already has a namespace %s; delete it first: kubectl delete namespace %s", ns, ns)
		default:
			return fmt.Errorf("look for namespace %s: %w", ns, err)
		}
	}
	return nil
}

// cleanCluster removes from a cluster that was there before what the demo has
// put into it.
func (d *demo) cleanCluster() error {
	if d.keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, ns := range d.created {
		if err := d.kube.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete namespace %s: %w", ns, err)
		}
	}
	if len(d.created) > 0 {
		d.tell("Deleted the namespaces %s.", strings.Join(d.created, ", "))
	}
	if d.namespace != "" {
		d.tell("Namespace %s was there before, so its objects stay; to delete them:", d.namespace)
		d.tell("kubectl -n %s delete deployments,configmaps -l %s", d.namespace, owned)
		d.tell("kubectl -n %s delete jobs -l pinion.dev/check", d.namespace)
	}
	return nil
}
