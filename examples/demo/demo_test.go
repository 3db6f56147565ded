package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/pinion-cd/pinion/internal/devtest"
)

func TestMain(m *testing.M) { os.Exit(devtest.Main(m)) }

// The demo looks by itself at what it shows; that it gets to its end says most.
// The lines are those that a reader has to come by, in their order.
func TestDemo(t *testing.T) {
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "pinion"), "../../cmd/pinion")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build pinion: %v\n%s", err, out)
	}
	devcluster := os.Getenv("PINION_DEVCLUSTER")
	if devcluster == "" {
		devcluster = "../../bin/devcluster"
	}
	devcluster, err := filepath.Abs(devcluster)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(devcluster, filepath.Join(bin, "devcluster")); err != nil {
		t.Fatal(err)
	}

	t.Run("a throw-away control plane", func(t *testing.T) {
		t.Parallel()
		play(t, options{bin: bin}, playedCast,
			"1. A Kubernetes control plane to throw away.",
			"0 errors, 0 warnings",
			"ci$ pinion report staging api e2e success --version 1.0.0",
			"dana$ pinion pin dev web 1.1.0 --yes",
			"+    image: registry.example/shop/web:1.1.0",
			"Seen in the API server: Deployment shop-staging/web runs 1.1.0.",
			"Seen in the API server: Deployment shop-production/web runs 1.1.0.",
			"Back-off pulling image \"registry.example/shop/api:9.9.9\"",
			"Seen in the API server: ConfigMap shop-dev/api and Deployment shop-dev/api were written to",
			"Seen in the API server: Deployment shop-production/web runs 1.3.0.",
		)
	})
	t.Run("one namespace of a cluster", func(t *testing.T) {
		t.Parallel()
		kubeconfig := devtest.Cluster(t)
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "playground"}}
		if _, err := kubernetes.NewForConfigOrDie(config).CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		play(t, options{bin: bin, kubeconfig: kubeconfig, namespace: "playground"}, realCast,
			"1. Your cluster, as "+kubeconfig+" has it.",
			"+    image: docker.io/library/busybox:1.35.0",
			"Seen in the API server: Deployment playground/web-staging runs 1.35.0.",
			"Seen in the API server: ConfigMap playground/api-dev and Deployment playground/api-dev were written to",
			"kubectl -n playground delete deployments,configmaps -l app.kubernetes.io/managed-by=pinion",
		)
	})
}

// play plays the demo, and looks for what it has to tell in any case, and for
// more lines, both in their order.
func play(t *testing.T, o options, v cast, more ...string) {
	t.Helper()
	ctx := t.Context()
	if at, ok := t.Deadline(); ok { // in time to stop what it has started
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, at.Add(-time.Minute))
		defer cancel()
	}
	o.patience = 2 * time.Minute
	var out bytes.Buffer
	if err := run(ctx, io.MultiWriter(&out, t.Output()), o); err != nil {
		t.Fatal(err)
	}
	inOrder(t, out.String(), more)
	all := []string{
		"0 errors",
		"dana$ pinion pin dev web " + v.good + " --yes",
		"verified(dev): web " + moved(v.first, v.good),
		"ci$ pinion report staging web e2e success --version " + v.good,
		"verified(staging): web " + moved(v.first, v.good),
		"dana$ git fetch --quiet && pinion why production web",
		"waits for: release: 0 of 1 approval by release-managers",
		"dana$ pinion approve production web --version " + v.good,
		"dana chose",
		"exit code 4",
		"rosa$ pinion approve production web --version " + v.good,
		"verified(production): web " + moved(v.first, v.good),
		"promote(production): web " + moved(v.first, v.good),
		"Approved by rosa",
		"dana$ pinion pin dev web " + v.sick + " --yes",
		"failed(dev): web " + moved(v.good, v.sick),
		"verified(dev): web " + moved(v.sick, v.good),
		"GET /health: 500 no such table: carts",
		"dana$ pinion pin dev api " + v.missing + " --yes",
		"2 old pods still serve",
		"failed(dev): api " + moved(v.first, v.missing),
		"omar$ pinion hold freeze",
		"dana$ pinion pin dev web " + v.later + " --yes",
		"rosa$ pinion approve production web --version " + v.later,
		"dana$ git fetch --quiet && pinion why production web",
		"waits for: hold freeze: INC-431, checkout errors",
		"omar$ pinion release freeze --yes",
		"verified(production): web " + moved(v.good, v.later),
		"dana$ git fetch --quiet && pinion status",
		"dana$ pinion log production web",
		"origin/ledger/production",
		"approved(production): web " + v.later + " by rosa",
		"rosa <rosa@shop.example>",
		"Omar   release(freeze): production",
		"Pinion rollback(dev): web " + moved(v.sick, v.good),
		"Dana   pin(dev): web " + moved(v.first, v.good),
	}
	if _, err := exec.LookPath("ssh-keygen"); err == nil {
		all = append(all, `Good "git" signature for cd@shop.example`)
	} else {
		all = append(all, "The daemon's commits are not signed")
	}
	inOrder(t, out.String(), append(all, "That was all"))
}

func inOrder(t *testing.T, text string, lines []string) {
	t.Helper()
	for _, l := range lines {
		_, rest, ok := strings.Cut(text, l)
		if !ok {
			t.Fatalf("%q is not shown, or not in its place", l)
		}
		text = rest
	}
}
