package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// drift measures how long an object that somebody has changed by hand stays
// changed, and how long one that was deleted is away, while the daemon has
// b.services services. The floor is the change and one apply that takes it back.
func (b *bench) drift(ctx context.Context) error {
	remote, clone, err := b.makeRepository(ctx)
	if err != nil {
		return err
	}
	objects, err := b.rendered(ctx, clone)
	if err != nil {
		return err
	}
	c, err := b.startControlPlane(ctx, "drift")
	if err != nil {
		return err
	}
	defer c.stop()
	d, err := b.startDaemon(0, remote, c.kubeconfig)
	if err != nil {
		return err
	}
	defer d.stop()
	waitCtx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := c.allApplied(waitCtx, objects); err != nil {
		return err
	}
	if err := b.settled(ctx, d); err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return err
	}
	deployments := client.Resource(resources["Deployment"]).Namespace("bench")
	w, err := deployments.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	requests, err := d.metric("pinion_kubernetes_requests_total")
	if err != nil {
		return err
	}
	var changed, deleted, floors []float64
	for n := range b.bumps {
		name := service((n * 37) % b.services)
		begun := time.Now()
		if _, err := deployments.Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"revisionHistoryLimit":3,"template":{"spec":{"serviceAccountName":"other"}}}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
			return err
		}
		if err := back(ctx, w, name); err != nil {
			return err
		}
		changed = append(changed, time.Since(begun).Seconds())
		// The floor, on an object of its own.
		o := floorObjects(name, "1.0.0")[2]
		if err := c.apply(ctx, o); err != nil {
			return err
		}
		begun = time.Now()
		if _, err := deployments.Patch(ctx, o.Metadata.Name, types.MergePatchType, []byte(`{"spec":{"template":{"spec":{"serviceAccountName":"other"}}}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
			return err
		}
		if err := c.apply(ctx, o); err != nil {
			return err
		}
		floors = append(floors, time.Since(begun).Seconds())
	}
	if err := b.settled(ctx, d); err != nil {
		return err
	}
	after, err := d.metric("pinion_kubernetes_requests_total")
	if err != nil {
		return err
	}
	for n := range b.bumps {
		name := service((n*37 + 18) % b.services)
		begun := time.Now()
		if err := deployments.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		if err := back(ctx, w, name); err != nil {
			return err
		}
		deleted = append(deleted, time.Since(begun).Seconds())
	}
	fmt.Printf("%d services: an object changed by hand is as it was after %s (median of %d; longest %s), floor %s; %.1f requests each\n",
		b.services, seconds(median(changed)), b.bumps, seconds(slices.Max(changed)), seconds(median(floors)), (after-requests)/float64(b.bumps))
	fmt.Printf("%d services: an object deleted by hand is there again after %s (median of %d; longest %s)\n",
		b.services, seconds(median(deleted)), b.bumps, seconds(slices.Max(deleted)))
	entries, err := d.metric("pinion_ledger_entries_total")
	if err != nil {
		return err
	}
	fmt.Printf("%d services: %.0f ledger entries by then, with four for each service before\n", b.services, entries)
	return nil
}

// back waits until a Deployment has its own account again.
func back(ctx context.Context, w watch.Interface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	away := false
	for {
		select {
		case ev, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("watch of Deployments ended")
			}
			u, ok := ev.Object.(*unstructured.Unstructured)
			if !ok || u.GetName() != name {
				continue
			}
			account, _, _ := unstructured.NestedString(u.Object, "spec", "template", "spec", "serviceAccountName")
			switch {
			case ev.Type == watch.Deleted || !strings.HasPrefix(account, "service-"):
				away = true
			case away:
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("deployment %s was not as it was in time: %w", name, ctx.Err())
		}
	}
}
