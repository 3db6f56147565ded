package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// The versions that the demo moves between. Both exist as public images; the
// broken one does not, so that its pods can't pull it anywhere.
const (
	oldVersion    = "3.9"
	newVersion    = "3.10"
	brokenVersion = "0.0.0-broken"
)

// startCluster starts a control plane, or connects to the one that was named.
func (d *demo) startCluster(ctx context.Context) error {
	if d.kubeconfig == "" {
		d.say("A Kubernetes control plane (etcd, API server, controllers, scheduler; pods are simulated)")
		begun := time.Now()
		d.kubeconfig = filepath.Join(d.dir, "kubeconfig")
		var err error
		d.cluster, err = start("devcluster", false, filepath.Join(d.bin, "devcluster"), "up", "--data-dir", filepath.Join(d.dir, "cluster"), "--kubeconfig", d.kubeconfig)
		if err != nil {
			return fmt.Errorf("%w; build it with: make build", err)
		}
		waitCtx, cancel := context.WithTimeout(ctx, d.patience)
		defer cancel()
		if _, err := d.cluster.line(waitCtx, 0, "ready"); err != nil {
			return err
		}
		d.tell("It is ready after %s.", d.since(begun))
	} else {
		d.say("Your cluster, as %s has it", d.kubeconfig)
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: d.kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: d.context}).ClientConfig()
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	config.QPS = -1
	if d.kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	version, err := d.kube.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("reach the API server: %w", err)
	}
	d.tell("The API server says it is Kubernetes %s.", version.GitVersion)
	d.namespaces = []string{"shop-dev", "shop-staging", "shop-production"}
	if d.namespace != "" {
		d.namespaces = []string{d.namespace}
	}
	return d.ensureNamespaces(ctx)
}

// makeRemote makes a bare repository of the example, and a developer's clone.
func (d *demo) makeRemote(ctx context.Context) error {
	d.say("A deployment repository, from %s", d.shop)
	d.remote, d.clone = filepath.Join(d.dir, "shop.git"), filepath.Join(d.dir, "shop")
	if err := os.CopyFS(d.clone, os.DirFS(d.shop)); err != nil {
		return err
	}
	if d.namespace != "" {
		if err := d.fitNamespace(); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--bare", "--initial-branch=main", d.remote},
		{"-C", d.clone, "init", "--quiet", "--initial-branch=main"},
		{"-C", d.clone, "add", "."},
		{"-C", d.clone, "commit", "--quiet", "-m", "The shop"},
		{"-C", d.clone, "remote", "add", "origin", d.remote},
		{"-C", d.clone, "push", "--quiet", "origin", "main"},
	} {
		if _, err := d.git(ctx, d.dir, args...); err != nil {
			return err
		}
	}
	files := 0
	err := filepath.WalkDir(d.clone, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && e.Name() == ".git" {
			return filepath.SkipDir
		}
		if err == nil && e.Type().IsRegular() {
			files++
		}
		return err
	})
	d.tell("%d files: services web (Jsonnet), api (Kustomize), db (plain YAML), queue (a CRD and an object of it).", files)
	return err
}

// fitNamespace leaves of the example what one namespace can hold.
func (d *demo) fitNamespace() error {
	for _, path := range []string{
		"environments/staging.yaml", "environments/production.yaml", "pipelines", "policies", "holds", "services/queue",
	} {
		if err := os.RemoveAll(filepath.Join(d.clone, path)); err != nil {
			return err
		}
	}
	file := filepath.Join(d.clone, "environments/dev.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := regexp.MustCompile(`(?m)^namespace: .*$`).ReplaceAllString(string(data), "namespace: "+d.namespace)
	text = regexp.MustCompile(`(?m)^  queue:\n(    .*\n)+`).ReplaceAllString(text, "")
	return os.WriteFile(file, []byte(text), 0o644)
}

// startDaemon starts pinion against the remote.
func (d *demo) startDaemon(ctx context.Context) error {
	d.say("The daemon: pinion run --repo %s --kubeconfig %s", d.remote, d.kubeconfig)
	args := []string{"run", "--repo", d.remote, "--kubeconfig", d.kubeconfig, "--data-dir", filepath.Join(d.dir, "data"), "--listen", "127.0.0.1:0"}
	if d.context != "" {
		args = append(args, "--context", d.context)
	}
	var err error
	d.daemon, err = start("pinion", true, filepath.Join(d.bin, "pinion"), args...)
	if err != nil {
		return fmt.Errorf("%w; build it with: make build", err)
	}
	return nil
}

// firstRollout waits until all of the first commit runs.
func (d *demo) firstRollout(ctx context.Context) error {
	begun := time.Now()
	want := 0
	for _, env := range []string{"dev", "staging", "production"} {
		data, err := os.ReadFile(filepath.Join(d.clone, "environments", env+".yaml"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		want += strings.Count(string(data), "    image:")
	}
	err := d.until(ctx, fmt.Sprintf("the rollout of %d Deployments", want), func(ctx context.Context) (bool, string, error) {
		all, err := d.deployments(ctx)
		if err != nil {
			return false, "", err
		}
		done := 0
		for _, x := range all {
			if complete(x) {
				done++
			}
		}
		return done == want, fmt.Sprintf("%d of %d complete", done, want), nil
	})
	if err != nil {
		return err
	}
	d.say("Seen in the API server: all %d Deployments of the first commit have rolled out, %s after the daemon's start.", want, d.since(begun))
	return nil
}

// quiet waits until the daemon has nothing under way any more, and returns
// what the objects are like then.
func (d *demo) quiet(ctx context.Context) (map[string]string, error) {
	waitCtx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	total := 12
	if d.namespace != "" {
		total = 3
	}
	if _, err := d.daemon.line(waitCtx, 0, fmt.Sprintf("[%d/%d done]", total, total)); err != nil {
		return nil, err
	}
	return d.specs(ctx)
}

// goodBump bumps web in dev to a version that works.
func (d *demo) goodBump(ctx context.Context) error {
	before, err := d.quiet(ctx)
	if err != nil {
		return err
	}
	d.say("Dana bumps web in dev to %s", newVersion)
	from := d.daemon.said()
	commit, pushed, err := d.bump(ctx, "web", oldVersion, newVersion)
	if err != nil {
		return err
	}
	name := d.namespaces[0] + "/web"
	var changed time.Duration
	err = d.until(ctx, "the rollout of web "+newVersion, func(ctx context.Context) (bool, string, error) {
		all, err := d.deployments(ctx)
		if err != nil || all[name] == nil {
			return false, "", err
		}
		x := all[name]
		if !strings.Contains(image(x), ":"+newVersion) {
			return false, "web runs " + image(x), nil
		}
		if changed == 0 {
			changed = d.since(pushed)
		}
		if got := x.Annotations["pinion.dev/commit"]; got != commit {
			return false, "", fmt.Errorf("web says that it comes from commit %q, not from %s", got, commit)
		}
		return complete(x), "web " + newVersion + " is rolling out", nil
	})
	if err != nil {
		return err
	}
	took := d.since(pushed)
	waitCtx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	if _, err := d.daemon.line(waitCtx, from, "ready dev/web"); err != nil {
		return err
	}
	d.tell("Seen in the API server: Deployment %s was changed %s after the push, and its rollout was complete %s after the push.", name, changed, took)
	return d.onlyTouched(ctx, before, "web")
}

// onlyTouched checks that nothing but one service of dev has been written to.
func (d *demo) onlyTouched(ctx context.Context, before map[string]string, service string) error {
	after, err := d.specs(ctx)
	if err != nil {
		return err
	}
	names := touched(before, after)
	for _, n := range names {
		if _, object, _ := strings.Cut(n, " "); object != d.namespaces[0]+"/"+service && !strings.HasPrefix(object, d.namespaces[0]+"/"+service+"-") {
			return fmt.Errorf("%s was touched, although only %s in dev has changed", n, service)
		}
	}
	d.tell("Touched: %s. None of the other %d objects was written to.", strings.Join(names, ", "), len(after)-len(names))
	return nil
}

// brokenBump bumps api in dev to a version whose image does not exist.
func (d *demo) brokenBump(ctx context.Context) error {
	before, err := d.specs(ctx)
	if err != nil {
		return err
	}
	d.say("Dana bumps api in dev to %s, which does not exist", brokenVersion)
	from := d.daemon.said()
	_, pushed, err := d.bump(ctx, "api", oldVersion, brokenVersion)
	if err != nil {
		return err
	}
	name := d.namespaces[0] + "/api"
	trouble := ""
	err = d.until(ctx, "a pod of api that can't start", func(ctx context.Context) (bool, string, error) {
		all, err := d.deployments(ctx)
		if err != nil || all[name] == nil {
			return false, "", err
		}
		x := all[name]
		if !strings.Contains(image(x), ":"+brokenVersion) {
			return false, "api runs " + image(x), nil
		}
		trouble, err = d.podTrouble(ctx, x)
		return trouble != "", "no pod of api is in trouble", err
	})
	if err != nil {
		return err
	}
	d.tell("Seen in the API server, %s after the push: %s", d.since(pushed), trouble)
	d.tell("Now the daemon waits for the rollout, as long as the service allows.")
	waitCtx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	line, err := d.daemon.line(waitCtx, from, "failed dev/api")
	if err != nil {
		return err
	}
	if !strings.Contains(line, "ImagePullBackOff") && !strings.Contains(line, "ErrImagePull") {
		return fmt.Errorf("the daemon does not say why api has failed: %s", line)
	}
	all, err := d.deployments(ctx)
	if err != nil {
		return err
	}
	if x := all[name]; x == nil || complete(x) {
		return errors.New("the broken rollout of api is complete")
	} else if x.Status.AvailableReplicas == 0 {
		return errors.New("no pod of api is left to serve")
	} else {
		d.tell("It failed after %s, and says why. %d of its old pods still serve.", d.since(pushed), x.Status.AvailableReplicas)
	}
	return d.onlyTouched(ctx, before, "api")
}

// summary shows what the command line says of all this.
func (d *demo) summary(ctx context.Context) error {
	d.say("pinion status dev")
	if _, err := d.git(ctx, d.clone, "pull", "--quiet", "origin", "main"); err != nil {
		return err
	}
	args := []string{"status", "dev", "--repo", d.clone, "--kubeconfig", d.kubeconfig}
	if d.context != "" {
		args = append(args, "--context", d.context)
	}
	p, err := start("status", false, filepath.Join(d.bin, "pinion"), args...)
	if err != nil {
		return err
	}
	<-p.done
	d.tell("%s", p.tail())
	if code := p.cmd.ProcessState.ExitCode(); code != 1 {
		return fmt.Errorf("pinion status exits with %d, although api is not ready (want 1)", code)
	}
	d.tell("(exit code 1: not all is ready)")
	return nil
}
