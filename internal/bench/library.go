package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// libraryUsers is how many services import the library that is changed, and
// changedUsers for how many of them that changes anything.
const (
	libraryUsers = 500
	changedUsers = 50
)

// library measures a commit that changes a Jsonnet library which half of the
// services import: each of them is rendered once, and only what comes out
// differently is applied.
func (b *bench) library(ctx context.Context) error {
	remote, clone := b.path("library.git"), b.path("library")
	files := map[string]string{"lib/shared.libsonnet": sharedLibrary("plain")}
	pins := "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: bench\npins:\n"
	for i := range max(b.services, libraryUsers) {
		name := service(i)
		pins += fmt.Sprintf("  %s:\n    image: registry.example/%[1]s:1.0.0\n", name)
		files["services/"+name+"/service.yaml"] = "apiVersion: pinion.dev/v1\nkind: Service\n"
		text := "function(pinion) {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: pinion.service}, data: {image: pinion.pins[pinion.service].image}}\n"
		if i < libraryUsers {
			tier := "silver"
			if i < changedUsers {
				tier = "gold"
			}
			text = fmt.Sprintf("local shared = import 'shared.libsonnet';\nfunction(pinion) shared.settings(pinion, %q)\n", tier)
		}
		files["services/"+name+"/main.jsonnet"] = text
	}
	files["environments/bench.yaml"] = pins
	if err := b.publish(ctx, remote, clone, files); err != nil {
		return err
	}
	c, err := b.startControlPlane(ctx, "library-cluster")
	if err != nil {
		return err
	}
	defer c.stop()
	d, err := b.startDaemon(200, remote, c.kubeconfig)
	if err != nil {
		return err
	}
	defer d.stop()
	if err := b.settled(ctx, d); err != nil {
		return err
	}
	maps := c.meta.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("bench")
	w, err := maps.Watch(ctx, metav1.ListOptions{LabelSelector: "pinion.dev/service"})
	if err != nil {
		return err
	}
	defer w.Stop()
	applies, err := d.metric("pinion_kubernetes_requests_total", `verb="apply"`)
	if err != nil {
		return err
	}
	renders, err := d.metric("pinion_renders_total")
	if err != nil {
		return err
	}
	cpu, _, err := d.process()
	if err != nil {
		return err
	}
	if err := b.commit(ctx, clone, "lib/shared.libsonnet", sharedLibrary("polished")); err != nil {
		return err
	}
	begun := time.Now()
	if err := b.git(ctx, "-C", clone, "push", "-q", "origin", "main"); err != nil {
		return err
	}
	seen := map[string]bool{}
	late := time.After(5 * time.Minute)
	for len(seen) < changedUsers {
		select {
		case ev, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("the watch of ConfigMaps ended")
			}
			if x, ok := ev.Object.(metav1.Object); ok && ev.Type == "MODIFIED" {
				seen[x.GetName()] = true
			}
		case <-late:
			return fmt.Errorf("%d of %d objects were changed in time", len(seen), changedUsers)
		}
	}
	took := time.Since(begun)
	if err := b.settled(ctx, d); err != nil {
		return err
	}
	applied, err := d.metric("pinion_kubernetes_requests_total", `verb="apply"`)
	if err != nil {
		return err
	}
	rendered, err := d.metric("pinion_renders_total")
	if err != nil {
		return err
	}
	used, _, err := d.process()
	if err != nil {
		return err
	}
	fmt.Printf("a library that %d services import is changed, and %d of them come out differently: %s from git push to the last object; %.0f renderings, %.0f objects applied; %s of CPU time\n",
		libraryUsers, changedUsers, took.Round(time.Millisecond), rendered-renders, applied-applies, (used - cpu).Round(10*time.Millisecond))
	return nil
}

// sharedLibrary makes a ConfigMap; only that of the gold tier has a finish.
func sharedLibrary(finish string) string {
	return fmt.Sprintf(`{
  settings(pinion, tier):: {
    apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: pinion.service },
    data: { image: pinion.pins[pinion.service].image, tier: tier } + (if tier == 'gold' then { finish: %q } else {}),
  },
}
`, finish)
}
