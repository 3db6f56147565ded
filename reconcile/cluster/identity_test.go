package cluster_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// sawWrites counts what a proxy was sent that could write.
func sawWrites(p *devtest.Proxy) int {
	return p.Requests(http.MethodPatch) + p.Requests(http.MethodPost) + p.Requests(http.MethodDelete) + p.Requests(http.MethodPut)
}

// copyKubeconfig makes one file what another is, at once.
func copyKubeconfig(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, config cluster.Config) *cluster.Cluster {
	t.Helper()
	config.Name, config.Repository, config.Timeout = "test", "https://git.example/deploy.git", 10*time.Second
	c, err := cluster.Connect(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A kubeconfig that suddenly leads to another cluster, whether it was changed or
// not, gets no write.
func TestAnotherCluster(t *testing.T) {
	ours, theirs := devtest.NewSwitch(t, devtest.Cluster(t)), devtest.Start(t)
	s := newStand(t, "")
	uid, _, err := s.c.Identity(s.ctx)
	if err != nil || uid == "" {
		t.Fatalf("%q, %v", uid, err)
	}
	for _, configured := range []string{uid, ""} {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		copyKubeconfig(t, ours.Kubeconfig, file)
		record := filepath.Join(t.TempDir(), "clusters", "test")
		config := cluster.Config{Kubeconfig: &cluster.Kubeconfig{Path: file}, Identity: configured, Record: record}
		c := open(t, config)
		o := s.object("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {a: b}")
		try := func(c *cluster.Cluster) error {
			_, err := c.Apply(s.ctx, o, commit, cluster.ApplyOptions{})
			return err
		}
		if err := try(c); err != nil {
			t.Fatal(err)
		}
		refuses := func(what string, c *cluster.Cluster, words ...string) {
			t.Helper()
			s.becomes("what was sent on an old connection has failed", func() bool {
				_, passing := cluster.Retry(try(c))
				return !passing
			})
			e := as[*cluster.IdentityError](t, try(c), append(words, "nothing is written", uid)...)
			if e.Want != uid || e.Got == uid || e.Got == "" {
				t.Errorf("%s: %+v", what, e)
			}
		}
		accept := "identity: "
		if configured == "" {
			accept = "remove " + record
		}

		// Another server answers at the same address.
		ours.Turn(theirs.Kubeconfig)
		refuses("another server", c, accept)
		if n := ours.Writes(); n != 0 {
			t.Errorf("the other cluster got %d requests that write", n)
		}
		ours.Turn(devtest.Cluster(t))
		s.becomes("it is written again", func() bool { return try(c) == nil })

		// The file is another one.
		proxy := devtest.NewProxy(t, theirs.Kubeconfig)
		copyKubeconfig(t, proxy.Kubeconfig, file)
		s.becomes("the kubeconfig is read again", func() bool { return proxy.Requests(http.MethodGet) > 0 || try(c) != nil })
		refuses("another kubeconfig", c, accept)
		// After a restart, too.
		refuses("after a restart", open(t, config), accept)
		if n := sawWrites(proxy); n != 0 {
			t.Errorf("the other cluster got %d requests that write", n)
		}
		copyKubeconfig(t, ours.Kubeconfig, file)
		s.becomes("it is written again", func() bool { return try(c) == nil })

		// What is meant is said, or forgotten.
		other := open(t, cluster.Config{Kubeconfig: &cluster.Kubeconfig{Path: proxy.Kubeconfig}})
		if err := other.EnsureNamespace(s.ctx, s.namespace); err != nil {
			t.Error(err)
		}
		if err := try(other); err != nil {
			t.Error(err)
		}
	}
}

// An account that may not see who a cluster is is held to nothing, unless it is
// known who it must be.
func TestUnprovenCluster(t *testing.T) {
	proxy := devtest.NewProxy(t, devtest.Cluster(t))
	proxy.Do(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/namespaces/kube-system") {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"namespaces \"kube-system\" is forbidden: User \"meek\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"kube-system\""}`))
		return true
	})
	s := newStand(t, "")
	o := s.object("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {a: b}")
	k := &cluster.Kubeconfig{Path: proxy.Kubeconfig}
	if _, err := open(t, cluster.Config{Kubeconfig: k}).Apply(s.ctx, o, commit, cluster.ApplyOptions{}); err != nil {
		t.Error(err)
	}
	before := sawWrites(proxy)
	_, err := open(t, cluster.Config{Kubeconfig: k, Identity: "00000000-1111-2222-3333-444444444444"}).Apply(s.ctx, o, commit, cluster.ApplyOptions{})
	as[*cluster.IdentityError](t, err, "00000000-1111-2222-3333-444444444444", "meek")
	if n := sawWrites(proxy) - before; n != 0 {
		t.Errorf("%d requests that write", n)
	}
}

// What makes a kubeconfig more than data is refused by its key, and allowed by
// its word.
func TestStrictKubeconfig(t *testing.T) {
	plain, err := clientcmd.LoadFromFile(devtest.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	certificate := filepath.Join(t.TempDir(), "ca.crt")
	var ca []byte
	for _, c := range plain.Clusters {
		ca = c.CertificateAuthorityData
	}
	if err := os.WriteFile(certificate, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		allow  cluster.Allowance
		key    string
		change func(*api.AuthInfo, *api.Cluster)
	}{
		{cluster.AllowExec, ".exec starts the program \"aws\"", func(u *api.AuthInfo, _ *api.Cluster) {
			u.Exec = &api.ExecConfig{Command: "aws", APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: api.NeverExecInteractiveMode}
		}},
		{cluster.AllowAuthProvider, ".auth-provider uses the plugin \"oidc\"", func(u *api.AuthInfo, _ *api.Cluster) { u.AuthProvider = &api.AuthProviderConfig{Name: "oidc"} }},
		{cluster.AllowFiles, ".tokenFile reads the file", func(u *api.AuthInfo, _ *api.Cluster) { u.TokenFile = certificate }},
		{cluster.AllowFiles, ".certificate-authority reads the file", func(_ *api.AuthInfo, c *api.Cluster) {
			c.CertificateAuthorityData, c.CertificateAuthority = nil, certificate
		}},
	} {
		config := plain.DeepCopy()
		for _, u := range config.AuthInfos {
			for _, c := range config.Clusters {
				test.change(u, c)
			}
		}
		k := cluster.Kubeconfig{Path: filepath.Join(t.TempDir(), "kubeconfig"), Strict: true}
		if err := clientcmd.WriteToFile(*config, k.Path); err != nil {
			t.Fatal(err)
		}
		_, err := cluster.Connect(t.Context(), cluster.Config{Name: "east", Kubeconfig: &k})
		for _, want := range []string{k.Path, test.key, "allow: [" + string(test.allow) + "]", "clusters.east"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
		k.Allow = []cluster.Allowance{test.allow}
		if c, err := cluster.Connect(t.Context(), cluster.Config{Name: "east", Kubeconfig: &k}); err != nil && test.allow != cluster.AllowAuthProvider {
			t.Errorf("%s: %v", test.allow, err)
		} else if err == nil {
			c.Close()
		}
	}
}

// New credentials are taken over without a restart, and one that can't be read
// leaves what was there.
func TestKubeconfigIsReadAgain(t *testing.T) {
	first, second := devtest.NewProxy(t, devtest.Cluster(t)), devtest.NewProxy(t, devtest.Cluster(t))
	file := filepath.Join(t.TempDir(), "kubeconfig")
	c := open(t, cluster.Config{Kubeconfig: &cluster.Kubeconfig{Path: file}, Lenient: true})
	s := newStand(t, "")
	if err := c.Reach(s.ctx); err == nil || !strings.Contains(err.Error(), "read kubeconfig") {
		t.Errorf("without a kubeconfig: %v", err)
	}
	copyKubeconfig(t, first.Kubeconfig, file)
	s.becomes("the kubeconfig is read", func() bool { return c.Reach(s.ctx) == nil })
	if err := c.Watch(s.ctx, s.scope, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("clusters: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Reach(s.ctx); err != nil {
		t.Errorf("after a bad file: %v", err)
	}
	copyKubeconfig(t, second.Kubeconfig, file)
	s.becomes("the watches have moved", func() bool { return second.Requests(http.MethodGet) > 0 && c.Observe(s.scope).Complete })
	before := first.Requests(http.MethodGet)
	if err := c.Reach(s.ctx); err != nil || first.Requests(http.MethodGet) != before {
		t.Errorf("%v; the old address is still asked", err)
	}
}

// The rate of requests has a bound.
func TestRequestsPerSecond(t *testing.T) {
	c := open(t, cluster.Config{Kubeconfig: &cluster.Kubeconfig{Path: devtest.Cluster(t)}, PerSecond: 5})
	start := time.Now()
	for range 15 {
		if err := c.Reach(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 1500*time.Millisecond {
		t.Errorf("15 requests at 5 per second took %s", took)
	}
}

// becomes waits until something is so.
func (s *stand) becomes(what string, so func() bool) {
	s.Helper()
	s.untilSeen(func() string {
		if so() {
			return ""
		}
		return "not so: " + what
	})
}
