package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// variant is manifests that run several replicas.
type variant struct {
	dir      string
	replicas int
	args     []string
	leases   []string // that are held in the end
}

// TestInstallReplicas applies the manifests of several replicas, looks what the
// account may do besides, and runs as many daemons as that account.
func TestInstallReplicas(t *testing.T) {
	program := filepath.Join(t.TempDir(), "pinion")
	command(t, "..", "go", "build", "-o", program, "./cmd/pinion")
	for _, v := range []variant{
		{"install-replicas", 2, []string{"--leader-elect"}, []string{"pinion"}},
		{"install-shards", 3, []string{"--shard"}, []string{"pinion-dev", "pinion-production", "pinion-staging"}},
	} {
		t.Run(v.dir, func(t *testing.T) {
			kubeconfig := devtest.Start(t).Kubeconfig
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				t.Fatal(err)
			}
			config.QPS = -1
			kube := kubernetes.NewForConfigOrDie(config)
			applyKustomization(t, config, v.dir)
			t.Run("its pods are admitted", func(t *testing.T) { v.admitted(t, kube) })
			t.Run("it may do its work", func(t *testing.T) {
				mayDoItsWork(t, config)
				for _, verb := range []string{"get", "list", "watch", "create", "update"} {
					if !may(t, kube, verb, "leases.coordination.k8s.io", "pinion", "") {
						t.Errorf("the daemon may not %s Leases", verb)
					}
				}
			})
			t.Run("it may do nothing else", func(t *testing.T) {
				mayDoNothingElse(t, kube)
				for _, verb := range []string{"delete", "patch", "deletecollection"} {
					if may(t, kube, verb, "leases.coordination.k8s.io", "pinion", "pinion") {
						t.Errorf("the daemon may %s Leases, and needs not", verb)
					}
				}
				for _, verb := range []string{"get", "create", "update"} {
					for _, namespace := range []string{"kube-system", "shop-dev", "kube-node-lease"} {
						if may(t, kube, verb, "leases.coordination.k8s.io", namespace, "") {
							t.Errorf("the daemon may %s Leases in %s, and needs not", verb, namespace)
						}
					}
				}
			})
			t.Run("as its account they share the work", func(t *testing.T) { v.share(t, program, kubeconfig, kube) })
		})
	}
}

// admitted waits until all pods are ready, and looks at what guards them.
func (v variant) admitted(t *testing.T, kube kubernetes.Interface) {
	seen := ""
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		pods, err := kube.CoreV1().Pods("pinion").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=pinion"})
		if err != nil {
			return false, err
		}
		ready := 0
		seen = ""
		for _, p := range pods.Items {
			seen += fmt.Sprintln(p.Name, p.Status.Conditions)
			for _, c := range p.Status.Conditions {
				if c.Type == "Ready" && c.Status == "True" {
					ready++
				}
			}
		}
		return ready == v.replicas && len(pods.Items) == v.replicas, nil
	})
	if err != nil {
		t.Fatalf("%v: %s", err, seen)
	}
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		b, err := kube.PolicyV1().PodDisruptionBudgets("pinion").Get(ctx, "pinion", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		seen = fmt.Sprintf("%+v", b.Status)
		return b.Status.ExpectedPods == int32(v.replicas) && b.Status.DisruptionsAllowed == 1, nil
	})
	if err != nil {
		t.Errorf("the disruption budget: %v: %s", err, seen)
	}
	deployments, err := kube.AppsV1().Deployments("pinion").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sets, err := kube.AppsV1().StatefulSets("pinion").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(deployments.Items)+len(sets.Items) != 1 {
		t.Errorf("there are %d Deployments and %d StatefulSets of the daemon, want one of them", len(deployments.Items), len(sets.Items))
	}
}

// share runs the daemons, and waits until they have applied the shop's
// namespaces between them.
func (v variant) share(t *testing.T, program, kubeconfig string, kube kubernetes.Interface) {
	repo := t.TempDir()
	if err := os.CopyFS(repo, os.DirFS("shop")); err != nil {
		t.Fatal(err)
	}
	initialise(t, repo)
	remote := filepath.Join(t.TempDir(), "remote.git")
	command(t, repo, "git", "clone", "--quiet", "--bare", repo, remote)
	as := asTheDaemon(t, kubeconfig, kube)

	var mu sync.Mutex
	var said bytes.Buffer // guarded by mu
	for i := range v.replicas {
		args := append([]string{"run", "--repo", remote, "--kubeconfig", as, "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0"}, v.args...)
		if len(v.leases) > 1 {
			args = append(args, fmt.Sprintf("%d/%d", i, v.replicas))
		}
		cmd := exec.Command(program, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			for s := bufio.NewScanner(out); s.Scan(); {
				mu.Lock()
				fmt.Fprintf(&said, "%d: %s\n", i, s.Text())
				mu.Unlock()
			}
		}()
		t.Cleanup(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			<-read
			if err := cmd.Wait(); err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
		})
	}
	text := func() string {
		mu.Lock()
		defer mu.Unlock()
		return said.String()
	}
	missing := ""
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		missing = ""
		for _, name := range v.leases {
			l, err := kube.CoordinationV1().Leases("pinion").Get(ctx, name, metav1.GetOptions{})
			if err != nil || l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" {
				missing += "nobody has lease " + name + "; "
			}
		}
		for _, env := range []string{"dev", "staging", "production"} {
			list, err := kube.AppsV1().Deployments("shop-"+env).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=pinion"})
			if err != nil {
				return false, err
			}
			if len(list.Items) < 4 {
				missing += fmt.Sprintf("shop-%s has %d Deployments; ", env, len(list.Items))
			}
		}
		return missing == "", nil
	})
	if err != nil {
		t.Errorf("%v: %s\n%s", err, missing, text())
	}
	if strings.Contains(text(), "may not") {
		t.Errorf("a permission is missing:\n%s", text())
	}
}
