package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	ggcr "github.com/google/go-containerregistry/pkg/v1/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/internal/devtest"
)

func init() {
	resources["Kustomization"] = schema.GroupVersionResource{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Resource: "kustomizations"}
	resources["OCIRepository"] = schema.GroupVersionResource{Group: "source.toolkit.fluxcd.io", Version: "v1", Resource: "ocirepositories"}
	resources["GitRepository"] = schema.GroupVersionResource{Group: "source.toolkit.fluxcd.io", Version: "v1", Resource: "gitrepositories"}
	resources["CustomResourceDefinition"] = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// fluxSide runs Flux's own source-controller and kustomize-controller, with the
// settings of its benchmark (github.com/fluxcd/flux-benchmark, manifests/install).
//
// As that has it, each application has an OCIRepository of its own, all of one
// package, and a Kustomization of its own that fills in the variables, waits
// until the objects are healthy, and is changed by its own specification.
//
// With repository, they have one GitRepository, that which Pinion reads, each
// Kustomization has a folder of it and does not wait, and what changes is a
// commit. Flux is asked to look at it at once, as its command line does.
type fluxSide struct {
	bench      *bench
	repository bool

	dir, fast     string // fast is in memory
	remote, clone string
	url           string // of the source
	revision      string // what the Kustomizations have to have applied
	waits         int    // how many of them
	cluster       dynamic.Interface
	registry      *devtest.RegistryServer
	server        net.Listener // of git
	controllers   []*daemon
	followed      *follower
}

func (s *fluxSide) prepare(ctx context.Context, c *controlPlane) (err error) {
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	s.dir = s.bench.path("flux")
	if err := os.MkdirAll(filepath.Join(s.dir, "storage"), 0o755); err != nil {
		return err
	}
	if s.cluster, err = dynamic.NewForConfig(c.config); err != nil {
		return err
	}
	if err := s.define(ctx); err != nil {
		return err
	}
	if s.repository {
		err = s.serveRepository(ctx)
	} else {
		err = s.servePackage()
	}
	if err != nil {
		return err
	}
	if err := s.startControllers(ctx, c.kubeconfig); err != nil {
		return err
	}
	s.followed, err = c.follow(ctx, "Kustomization", s.standing)
	return err
}

// define lays Flux's own kinds into the cluster.
func (s *fluxSide) define(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(s.bench.bin, "flux", "crds", "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no definitions of Flux's kinds in %s; build them with: make bench-flux", filepath.Join(s.bench.bin, "flux"))
	}
	crds := s.cluster.Resource(resources["CustomResourceDefinition"])
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &u.Object); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if _, err := crds.Create(ctx, u, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := poll(ctx, "the definition "+u.GetName(), func() (bool, error) {
			got, err := crds.Get(ctx, u.GetName(), metav1.GetOptions{})
			return err == nil && condition(got, "Established"), err
		}); err != nil {
			return err
		}
	}
	return nil
}

// servePackage starts a registry that has the package.
func (s *fluxSide) servePackage() (err error) {
	dir := filepath.Join(s.dir, "registry")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if s.registry, err = devtest.StartRegistry(dir, devtest.RegistryOptions{}); err != nil {
		return err
	}
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	files := tar.NewWriter(zipped)
	text := manifests("${INDEX}", "${PODS:=0}", "${MCPU}")
	if err := files.WriteHeader(&tar.Header{Name: "podinfo.yaml", Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	if _, err := io.WriteString(files, text); err != nil {
		return err
	}
	if err := files.Close(); err != nil {
		return err
	}
	if err := zipped.Close(); err != nil {
		return err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, ggcr.OCIManifestSchema1), "application/vnd.cncf.flux.config.v1+json")
	image, err = mutate.AppendLayers(image, static.NewLayer(packed.Bytes(), "application/vnd.cncf.flux.content.v1.tar+gzip"))
	if err != nil {
		return err
	}
	s.url = s.registry.Host + "/manifests/podinfo"
	ref, err := name.ParseReference(s.url + ":latest")
	if err != nil {
		return err
	}
	return remote.Write(ref, image)
}

// serveRepository serves the deployment repository by git's own http-backend.
func (s *fluxSide) serveRepository(ctx context.Context) error {
	s.remote, s.clone = filepath.Join(s.dir, "applications.git"), filepath.Join(s.dir, "applications")
	if err := s.bench.publishApplications(ctx, s.remote, s.clone, "1m"); err != nil {
		return err
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return err
	}
	backend := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + s.dir, "GIT_HTTP_EXPORT_ALL=1"}}
	s.server, err = listen(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // the CGI handler refuses a chunked one
		if err != nil {
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		backend.ServeHTTP(w, r)
	}))
	if err != nil {
		return err
	}
	s.url = "http://" + s.server.Addr().String() + "/applications.git"
	return nil
}

// startControllers starts both, and waits until they work.
func (s *fluxSide) startControllers(ctx context.Context, kubeconfig string) (err error) {
	if _, err = os.Stat("/dev/shm"); err == nil {
		s.fast, err = os.MkdirTemp("/dev/shm", "pinion-bench-")
	} else {
		s.fast, err = os.MkdirTemp(s.dir, "tmp-")
	}
	if err != nil {
		return err
	}
	storage, err := freeAddress()
	if err != nil {
		return err
	}
	for _, controller := range []struct {
		name string
		args []string
		tmp  string
	}{
		{"source-controller", []string{"--concurrent=10", "--storage-path=" + filepath.Join(s.dir, "storage"), "--storage-addr=" + storage, "--storage-adv-addr=" + storage}, s.dir},
		{"kustomize-controller", []string{"--concurrent=20", "--feature-gates=ExternalArtifact=true"}, s.fast},
	} {
		metrics, err := freeAddress()
		if err != nil {
			return err
		}
		health, err := freeAddress()
		if err != nil {
			return err
		}
		log, err := os.Create(filepath.Join(s.dir, controller.name+".log"))
		if err != nil {
			return err
		}
		defer log.Close()
		d := &daemon{address: metrics, cmd: exec.Command(filepath.Join(s.bench.bin, "flux", controller.name), append(controller.args,
			"--watch-all-namespaces", "--log-level=info", "--log-encoding=json", "--metrics-addr="+metrics, "--health-addr="+health)...)}
		d.cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "RUNTIME_NAMESPACE=flux-system", "GOMEMLIMIT=1GiB",
			"TMPDIR="+controller.tmp, "TUF_ROOT="+filepath.Join(s.dir, "sigstore"))
		d.cmd.Stdout, d.cmd.Stderr = log, log
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := d.cmd.Start(); err != nil {
			return fmt.Errorf("start Flux's %s: %w; build it with: make bench-flux", controller.name, err)
		}
		s.controllers = append(s.controllers, d)
		if err := poll(ctx, "Flux's "+controller.name, func() (bool, error) {
			workers, err := d.metric("controller_runtime_max_concurrent_reconciles")
			return err == nil && workers > 0, nil // it does not listen yet
		}); err != nil {
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%w\n%.2000s", err, said)
		}
	}
	return nil
}

// freeAddress is one of the loopback interface that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// poll waits until something is so.
func poll(ctx context.Context, what string, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := so()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready in time: %w", what, ctx.Err())
		}
	}
}

func condition(u *unstructured.Unstructured, kind string) bool {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == kind {
			return c["status"] == "True"
		}
	}
	return false
}

// standing is what a Kustomization is ready at, "" if it is not.
func (s *fluxSide) standing(u *unstructured.Unstructured) string {
	observed, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	if !condition(u, "Ready") || observed != u.GetGeneration() {
		return ""
	}
	at := []string{"spec", "postBuild", "substitute", "MCPU"}
	if s.repository {
		at = []string{"status", "lastAppliedRevision"}
	}
	revision, _, _ := unstructured.NestedString(u.Object, at...)
	return revision
}

func (s *fluxSide) install(ctx context.Context) error {
	s.waits, s.revision = s.bench.services, "1m"
	if s.repository {
		if err := s.atCommit(ctx); err != nil {
			return err
		}
		if err := s.create(ctx, "GitRepository", "applications", map[string]any{
			"url": s.url, "interval": "60m", "ref": map[string]any{"branch": "main"}, "ignore": "/environments\nservice.yaml\n",
		}); err != nil {
			return err
		}
	}
	return s.each(nil, func(i int) error {
		spec := map[string]any{
			"interval": "60m", "retryInterval": "2m", "timeout": "1m", "prune": true,
			"serviceAccountName": deployer, "targetNamespace": "bench",
		}
		if s.repository {
			spec["path"] = "./services/" + application(i)
			spec["sourceRef"] = map[string]any{"kind": "GitRepository", "name": "applications"}
		} else {
			if err := s.create(ctx, "OCIRepository", application(i), map[string]any{
				"url": "oci://" + s.url, "interval": "60m", "insecure": true, "ref": map[string]any{"tag": "latest"},
			}); err != nil {
				return err
			}
			spec["path"], spec["wait"] = "/", true
			spec["sourceRef"] = map[string]any{"kind": "OCIRepository", "name": application(i)}
			spec["postBuild"] = map[string]any{"substitute": map[string]any{"INDEX": fmt.Sprintf("%dapp", i), "PODS": "0", "MCPU": "1m"}}
		}
		return s.create(ctx, "Kustomization", application(i), spec)
	})
}

func (s *fluxSide) create(ctx context.Context, kind, name string, spec map[string]any) error {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetGroupVersionKind(resources[kind].GroupVersion().WithKind(kind))
	u.SetName(name)
	_, err := s.cluster.Resource(resources[kind]).Namespace("bench").Create(ctx, u, metav1.CreateOptions{})
	return err
}

// each does something for these applications, or for all if there are none,
// over as many connections as Pinion has.
func (s *fluxSide) each(applications []int, do func(i int) error) error {
	if len(applications) == 0 {
		for i := range s.bench.services {
			applications = append(applications, i)
		}
	}
	work := make(chan int)
	errs := make(chan error, len(applications))
	var wait sync.WaitGroup
	for range s.bench.connections {
		wait.Go(func() {
			for i := range work {
				if err := do(i); err != nil {
					errs <- err
				}
			}
		})
	}
	for _, i := range applications {
		work <- i
	}
	close(work)
	wait.Wait()
	close(errs)
	return <-errs
}

func (s *fluxSide) change(ctx context.Context, cpu string, applications ...int) (func() error, error) {
	if !s.repository {
		s.revision, s.waits = cpu, s.bench.services
		if len(applications) > 0 {
			s.waits = len(applications)
		}
		return func() error {
			return s.each(applications, func(i int) error {
				return s.patch(ctx, "Kustomization", application(i), fmt.Sprintf(`{"spec":{"postBuild":{"substitute":{"MCPU":%q}}}}`, cpu))
			})
		}, nil
	}
	if _, err := s.bench.commitApplications(ctx, s.clone, cpu, applications); err != nil {
		return nil, err
	}
	return func() error {
		if err := s.bench.git(ctx, "-C", s.clone, "push", "-q", "origin", "main"); err != nil {
			return err
		}
		return s.patch(ctx, "GitRepository", "applications",
			fmt.Sprintf(`{"metadata":{"annotations":{"reconcile.fluxcd.io/requestedAt":%q}}}`, time.Now().Format(time.RFC3339Nano)))
	}, s.atCommit(ctx)
}

func (s *fluxSide) patch(ctx context.Context, kind, name, text string) error {
	_, err := s.cluster.Resource(resources[kind]).Namespace("bench").Patch(ctx, name, types.MergePatchType, []byte(text), metav1.PatchOptions{})
	return err
}

// atCommit expects the commit of the clone: all Kustomizations come to have it,
// also those of which it changes nothing.
func (s *fluxSide) atCommit(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "git", "-C", s.clone, "rev-parse", "HEAD").Output()
	s.revision = "main@sha1:" + strings.TrimSpace(string(out))
	return err
}

func (s *fluxSide) ready(ctx context.Context) error {
	return s.followed.until(ctx, s.waits, s.revision)
}

// What a Kustomization's status says is written down.
func (s *fluxSide) recorded(context.Context) error { return nil }

func (s *fluxSide) processes() ([]*daemon, string) {
	return s.controllers, "rest_client_requests_total"
}

// All Kustomizations of a repository are at work for one commit, which takes as
// long as an upgrade.
func (s *fluxSide) changes() int {
	if s.repository {
		return 1
	}
	return 5
}

func (s *fluxSide) stop() {
	if s.followed != nil {
		s.followed.stop()
	}
	for _, d := range s.controllers {
		d.stop()
	}
	if s.registry != nil {
		s.registry.Kill()
	}
	if s.server != nil {
		s.server.Close()
	}
	if s.fast != "" {
		os.RemoveAll(s.fast)
	}
}
