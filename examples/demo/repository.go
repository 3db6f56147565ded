package main

import (
	"context"
	"embed"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

//go:embed shop
var shop embed.FS

// environments of the shop, in the order of its pipeline.
var environments = []string{"dev", "staging", "production"}

// cast are the versions of the story, as the shop's files have them.
type cast struct {
	first, good, sick, later string
	missing                  string // of api
}

// On a cluster of one's own containers run, so the images have to exist: they
// are of BusyBox, which is small, serves pages and has a shell. None has the
// tag 9.9.9. There, an image that can't be pulled needs longer to be told.
var (
	playedCast = cast{"1.0.0", "1.1.0", "1.2.0", "1.3.0", "9.9.9"}
	realCast   = cast{"1.34.0", "1.35.0", "1.36.0", "1.37.0", "9.9.9"}

	toReal = strings.NewReplacer(
		"registry.example/shop/web", "docker.io/library/busybox",
		"registry.example/shop/api", "docker.io/library/busybox",
		playedCast.first, realCast.first, playedCast.good, realCast.good, playedCast.sick, realCast.sick, playedCast.later, realCast.later,
		"rollout: {timeout: 12s}", "rollout: {timeout: 30s}",
	)
)

// place returns where a service's objects are in an environment.
func (d *demo) place(env, service string) (namespace, name string) {
	if d.namespace != "" {
		return d.namespace, service + "-" + env
	}
	return "shop-" + env, service
}

// namespaces of the environments.
func (d *demo) namespaces() []string {
	if d.namespace != "" {
		return []string{d.namespace}
	}
	var all []string
	for _, env := range environments {
		ns, _ := d.place(env, "")
		all = append(all, ns)
	}
	return all
}

// writeShop writes the deployment repository's files.
func (d *demo) writeShop() error {
	return fs.WalkDir(shop, "shop", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := shop.ReadFile(name)
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(name, "shop/")
		to := filepath.Join(d.clone, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, []byte(d.fit(name, string(data))), 0o644)
	})
}

// fit makes a file of the shop fit for the cluster that is played on.
func (d *demo) fit(name, text string) string {
	if d.own {
		text = toReal.Replace(text)
	}
	if d.namespace == "" {
		return text
	}
	// In one namespace, the names tell the environments apart.
	parts := strings.Split(name, "/")
	switch {
	case parts[0] == "environments":
		env := strings.TrimSuffix(parts[1], ".yaml")
		return strings.Replace(text, "namespace: shop-"+env, "namespace: "+d.namespace+"\nparameters: {suffix: -"+env+"}", 1)
	case len(parts) == 5 && parts[2] == "overlays":
		return text + "nameSuffix: -" + parts[3] + "\nlabels:\n- {pairs: {environment: " + parts[3] + "}, includeSelectors: true}\n"
	case name == "policies/jobs/smoke.yaml":
		return strings.Replace(text, `name: "{service}"`, `name: "{service}-{environment}"`, 1)
	}
	return text
}

// anchor has the later stages read the services' manifests from the commit
// that is checked out, until promotions move them on.
func (d *demo) anchor(ctx context.Context) error {
	commit, err := d.git(ctx, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	for _, env := range environments[1:] {
		file := filepath.Join(d.clone, "environments", env+".yaml")
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text := string(data) + "manifests:\n  api: " + commit + "\n  web: " + commit + "\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
