package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// startCluster starts a control plane, or connects to the one that was named.
func (d *demo) startCluster(ctx context.Context) error {
	fmt.Fprintln(d.out, `A small shop runs web and api in three environments: dev, staging, production.
Which version runs where is a line in a git repository. Pinion is the daemon
that makes the clusters follow it, and that moves a version on when the shop's
rules are met. Commands are what you would type; lines behind "pinion │" are
what the daemon says meanwhile.`)
	if d.cast = realCast; !d.own {
		d.cast = playedCast
		d.say("A Kubernetes control plane to throw away.")
		begun := time.Now()
		d.kubeconfig = filepath.Join(d.dir, "kubeconfig")
		var err error
		d.cluster, err = start("devcluster", filepath.Join(d.bin, "devcluster"), "up", "--data-dir", filepath.Join(d.dir, "cluster"), "--kubeconfig", d.kubeconfig)
		if err != nil {
			return fmt.Errorf("%w; build it with: make build", err)
		}
		waitCtx, cancel := context.WithTimeoutCause(ctx, d.patience, fmt.Errorf("not within %s", d.patience))
		defer cancel()
		for i, line := 0, ""; !strings.HasPrefix(line, "ready"); i++ {
			if line, err = d.cluster.next(waitCtx, i); err != nil {
				return fmt.Errorf("wait for the control plane: %w\n%s", err, d.cluster.tail())
			}
		}
		d.tell("It is ready after %s. API server, controllers and scheduler are real; containers are\nnot run, but played.", time.Since(begun).Round(100*time.Millisecond))
	} else {
		d.say("Your cluster, as %s has it.", d.kubeconfig)
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
	d.tell("The API server says that it is Kubernetes %s.", version.GitVersion)
	return d.checkNamespaces(ctx)
}

// makeRepository makes a bare repository of the shop, and the clone that all
// people share.
func (d *demo) makeRepository(ctx context.Context) error {
	d.say("A deployment repository: what runs where, and by which rules it moves.")
	d.people = newPeople()
	d.remote, d.clone = filepath.Join(d.dir, "shop.git"), filepath.Join(d.dir, "shop")
	if err := d.writeShop(); err != nil {
		return err
	}
	git := func(args ...string) error {
		_, err := d.git(ctx, args...)
		return err
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--bare", "--initial-branch=main", d.remote},
		{"init", "--quiet", "--initial-branch=main"},
		{"remote", "add", "origin", d.remote},
		{"add", "."},
		{"commit", "--quiet", "-m", "The shop, at " + d.cast.first + " everywhere"},
	} {
		if err := git(args...); err != nil {
			return err
		}
	}
	// A commit can't name itself, so a second one does.
	if err := d.anchor(ctx); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"commit", "--quiet", "-a", "-m", "Manifests move like versions"},
		{"push", "--quiet", "--set-upstream", "origin", "main"},
	} {
		if err := git(args...); err != nil {
			return err
		}
	}
	sound := "0 errors, 0 warnings"
	if d.namespace != "" {
		sound = "0 errors"
	}
	for _, c := range []command{
		{line: []string{"cat", "environments/dev.yaml"}, shows: []string{":" + d.cast.first}},
		{line: []string{"cat", "pipelines/default.yaml"}},
		{line: []string{"pinion", "lint"}, shows: []string{sound}},
	} {
		c.by = d.people.dana
		if err := d.do(ctx, c); err != nil {
			return err
		}
	}
	if d.namespace != "" {
		d.tell("(The three share a namespace because you asked for one; the names of their objects differ.)")
	}
	d.look("A deployment is a change of one line image:. The pipeline says what a version has to pass on\nits way; smoke, e2e, soak and release are files in policies/.")
	return nil
}

// startDaemon starts pinion against the remote, and waits until all of the
// first commit runs and is verified.
func (d *demo) startDaemon(ctx context.Context) error {
	d.say("The daemon. All that it is told is where the repository is, where the cluster is, and whom to trust.")
	unsigned := d.makeKey(ctx)
	config := "apiVersion: pinion.dev/v1\nkind: Config\nidentity:\n  name: Pinion\n  email: cd@shop.example\n"
	if d.signed {
		config += "  signingKeyFile: " + d.keyFile() + "\n"
	}
	file := filepath.Join(d.dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config+d.people.tokens()), 0o600); err != nil {
		return err
	}
	args := []string{"run", "--repo", d.remote, "--kubeconfig", d.kubeconfig, "--config", file, "--data-dir", filepath.Join(d.dir, "data"), "--listen", "127.0.0.1:0"}
	if d.context != "" {
		args = append(args, "--context", d.context)
	}
	d.strong("   $ " + quote(append([]string{"pinion"}, args...)))
	begun := time.Now()
	var err error
	if d.daemon, err = start("pinion", filepath.Join(d.bin, "pinion"), args...); err != nil {
		return fmt.Errorf("%w; build it with: make build", err)
	}
	d.tell("The configuration has the tokens of CI and of two people, as hashes. %s", unsigned)
	if err := d.listen(ctx, false, []string{"pinion is up"}); err != nil {
		return err
	}
	line, err := d.daemon.next(ctx, d.heard-1)
	if err != nil {
		return err
	}
	m := regexp.MustCompile(`listen=(\S+)`).FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("the daemon does not say where it listens: %s", line)
	}
	d.server = m[1]
	if err := d.allRun(ctx); err != nil {
		return err
	}
	first := d.cast.first
	if err := d.listen(ctx, false, []string{"completed(staging): web " + first, "completed(staging): api " + first}); err != nil {
		return err
	}
	d.tell("Seen in the API server: both services have rolled out in all three environments, %s after\nits start. Staging waits for its end-to-end tests, which CI runs elsewhere:", time.Since(begun).Round(100*time.Millisecond))
	for _, service := range []string{"api", "web"} {
		if err := d.do(ctx, command{by: d.people.ci, line: []string{"pinion", "report", "staging", service, "e2e", "success", "--version", first}, shows: []string{"recorded in ledger/staging"}}); err != nil {
			return err
		}
	}
	if err := d.listen(ctx, false, []string{"verified(staging): web " + first, "verified(staging): api " + first}); err != nil {
		return err
	}
	if err := d.do(ctx, command{by: d.people.dana, line: []string{"pinion", "status"}, fresh: true, shows: []string{first + " verified"}}); err != nil {
		return err
	}
	d.look("Everything is at %s and verified. pinion status reads it from git, and asks no daemon.", first)
	return nil
}

func (d *demo) keyFile() string { return filepath.Join(d.dir, "signing-key") }

// makeKey makes the key with which the daemon signs its commits, and has the
// clone know whose it is. It says what there is to say about that.
func (d *demo) makeKey(ctx context.Context) string {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		return "There is no ssh-keygen here\nto make a key with, so the daemon's commits are not signed."
	}
	out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "Pinion", "-f", d.keyFile()).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("\nssh-keygen has made no key (%s), so the daemon's commits are not signed.", strings.TrimSpace(string(out)+" "+err.Error()))
	}
	key, err := os.ReadFile(d.keyFile() + ".pub")
	if err == nil {
		err = os.WriteFile(d.signersFile(), []byte("cd@shop.example namespaces=\"git\" "+string(key)), 0o644)
	}
	if err == nil {
		_, err = d.git(ctx, "config", "gpg.ssh.allowedSignersFile", d.signersFile())
	}
	if err != nil {
		return fmt.Sprintf("\nThe daemon's commits are not signed: %v.", err)
	}
	d.signed = true
	return "The daemon\nhas a key of its own, and signs its commits."
}

func (d *demo) signersFile() string { return filepath.Join(d.dir, "signers") }
