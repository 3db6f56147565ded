package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	admission "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// badInput is a repository with a service web that is sound, and a service
// and an environment that the cases of TestDaemonBearsBadInput spoil.
const badInput = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE
pins:
  bad:
    image: registry.example/bad:1.0.0
  web:
    image: registry.example/web:0
-- environments/other.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE-other
pins:
  bad:
    image: registry.example/bad:1.0.0
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/web/main.jsonnet --
function(pinion) {
  apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web' },
  spec: {
    replicas: 1,
    selector: { matchLabels: { app: 'web' } },
    template: {
      metadata: { labels: { app: 'web' } },
      spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'main', image: pinion.pins.web.image }] },
    },
  },
}
-- services/bad/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/bad/bad.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: bad}
data: {image: sound}
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
  verify: [smoke]
- environment: other
-- policies/smoke.yaml --
apiVersion: pinion.dev/v1
kind: Policy
soak: 1000h
`

// canary stands for the value of a Secret.
const canary = "Y2FuYXJ5LWluLWEtc2VjcmV0"

// input is one thing that a hostile or clumsy author commits.
type input struct {
	name  string
	files string // an archive, written over badInput
	// spoil does what an archive can't to what is about to be committed.
	spoil func(w *world)
	// want are the words of the lines that the daemon must say of it.
	want [][]string
	// sound: nothing may be said of it.
	sound bool
}

func header(kind string) string { return "apiVersion: pinion.dev/v1\nkind: " + kind + "\n" }

const (
	otherFile     = "-- environments/other.yaml --\napiVersion: pinion.dev/v1\nkind: Environment\n"
	serviceFile   = "-- services/bad/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n"
	jsonnetFile   = "-- services/bad/main.jsonnet --\n"
	kustomizeFile = "-- services/bad/kustomization.yaml --\n"
	plainFile     = "-- services/bad/bad.yaml --\n"
)

func says(words ...string) [][]string { return [][]string{words} }

var inputs = []input{
	// Files of Pinion's own.
	{name: "unknown key", files: otherFile + "pinz: {}\n", want: says("environments/other.yaml:3:1", `the key "pinz" is not known`, `did you mean "pins"?`)},
	{name: "duplicate key", files: otherFile + "cluster: default\ncluster: default\nnamespace: a\n", want: says("environments/other.yaml:4:1", `"cluster" is there twice`, "line 3")},
	{name: "misspelt key", files: serviceFile + "rolout: {timeout: 5m}\n", want: says("services/bad/service.yaml:3:1", `did you mean "rollout"?`)},
	{name: "wrong type", files: serviceFile + "dependsOn: web\n", want: says("services/bad/service.yaml:3:12", "write [web]")},
	{name: "float for a version", files: otherFile + "cluster: default\nnamespace: NAMESPACE-other\npins: {bad: {image: 1.4}}\n", want: says("environments/other.yaml:5:21", "the number 1.4, not an image reference", "quote it")},
	{name: "dangling service", files: "-- pipelines/more.yaml --\n" + header("Pipeline") + "services: [bda]\nstages: [{environment: dev}]\n", want: says("pipelines/more.yaml:3:12", "bda", `bad`)},
	{name: "dangling policy", files: "-- pipelines/more.yaml --\n" + header("Pipeline") + "services: [bad]\nstages: [{environment: dev, verify: [smok]}]\n", want: says("pipelines/more.yaml:4:38", "smok", "smoke")},
	{name: "dangling environment", files: "-- pipelines/more.yaml --\n" + header("Pipeline") + "services: [bad]\nstages: [{environment: dve}]\n", want: says("pipelines/more.yaml:4:24", "dve", "dev")},
	{name: "dangling artifact", files: serviceFile + "artifacts: [bda]\n", want: says("environments/dev.yaml:6:3", `no service has the artifact bad; did you mean "bda"?`)},
	{name: "pin of nothing", files: otherFile + "cluster: default\nnamespace: NAMESPACE-other\npins:\n  bda: {image: \"registry.example/bad:1\"}\n", want: says("environments/other.yaml:6:3", "bda", "bad")},
	{name: "dangling dependency", files: serviceFile + "dependsOn: [wbe]\n", want: says("services/bad/service.yaml:3:13", "wbe", "web")},
	{name: "dangling cluster", files: otherFile + "cluster: defualt\nnamespace: NAMESPACE-other\npins: {bad: {image: \"registry.example/bad:1\"}}\n", want: says("environments/other.yaml:3:10", "defualt", "default")},
	{name: "dangling pipeline", files: "-- holds/h.yaml --\n" + header("Hold") + "services: [bda]\nreason: r\nowner: o\n", want: says("holds/h.yaml:3:12", "bda", "bad")},
	{name: "two pipelines", files: "-- pipelines/one.yaml --\n" + header("Pipeline") + "services: [bad]\nstages: [{environment: dev}]\n-- pipelines/two.yaml --\n" + header("Pipeline") + "services: [bad]\nstages: [{environment: dev}]\n", want: says("pipelines/two.yaml:3:12", "the pipelines one and two both claim the service bad")},
	{name: "cycle of stages", files: "-- pipelines/more.yaml --\n" + header("Pipeline") + "services: [bad]\nstages:\n- {environment: dev, after: [other]}\n- {environment: other, after: [dev]}\n", want: says("pipelines/more.yaml:", "dev → other → dev")},
	{name: "cycle of dependencies", files: serviceFile + "dependsOn: [bad2]\n-- services/bad2/service.yaml --\n" + header("Service") + "artifacts: [bad]\ndependsOn: [bad]\n", want: says("services/bad/service.yaml:3:13", "bad → bad2 → bad")},
	{name: "alias bomb", files: otherFile + "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n", want: says("environments/other.yaml:3:4", "an anchor (&a) is not accepted")},
	{name: "large file", files: "-- policies/large.yaml --\n" + strings.Repeat("# ten megabytes\n", 10<<16), want: says("policies/large.yaml", "the file has 10485760 bytes")},
	{name: "nesting", files: otherFile + "parameters: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n", want: says("environments/other.yaml:", "nested more than")},
	{name: "not UTF-8", files: otherFile + "cluster: \xff\n", want: says("environments/other.yaml:3:10", "0xff is not UTF-8")},
	{name: "UTF-16", files: "-- environments/other.yaml --\n\xff\xfea\x00p\x00\n", want: says("environments/other.yaml:1:1", "UTF-16")},
	{name: "empty", files: "-- environments/other.yaml --\n# nothing\n", want: says("environments/other.yaml:1:1", "the file is empty")},
	{name: "two documents", files: otherFile + "cluster: default\n---\nkind: Service\n", want: says("environments/other.yaml:5:1", "second document")},
	{name: "CRLF and a byte order mark", sound: true, want: says("applied dev/bad"), files: "-- services/bad/service.yaml --\n\xef\xbb\xbfapiVersion: pinion.dev/v1\r\nkind: Service\r\nrollout: {timeout: 9m}\r\n" + plainFile + "\xef\xbb\xbfapiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: bad}\r\ndata: {image: crlf}\r\n"},
	{name: "manifests outside", files: serviceFile + "manifests: ../../../etc\n", want: says("services/bad/service.yaml:3:12", "../../../etc")},
	{name: "manifests absolute", files: serviceFile + "manifests: /etc\n", want: says("services/bad/service.yaml:3:12", "/etc")},
	{name: "manifests missing", files: serviceFile + "manifests: overlays/{environment}\n", want: says("services/bad/overlays/dev", "there is no such folder")},
	{name: "names in another case", files: "-- environments/Other.yaml --\n" + header("Environment"), want: says("environments/Other.yaml", "differ in case only")},
	{name: "folder in another case", files: "-- Services/x/service.yaml --\n" + header("Service"), want: says("Services", "differs from services in case only")},

	// What git can hold besides files.
	{name: "link to a file", spoil: link("services/bad/bad.yaml", "/etc/passwd"), want: says("services/bad/bad.yaml", "symbolic link")},
	{name: "link to a service", spoil: link("services/linked", "bad"), want: says("services/linked", "symbolic link")},
	{name: "link for an environment", spoil: link("environments/other.yaml", "../../../../etc/passwd"), want: says("environments/other.yaml", "symbolic link")},
	{name: "link for the folder", spoil: func(w *world) { w.git("mv", "holds.txt", "holds") }, want: says("holds", "not a folder"), files: "-- holds.txt --\nx\n"},
	{name: "link within manifests", files: kustomizeFile + "resources: [../../linked/x.yaml]\n", spoil: link("linked", "/etc"), want: says("linked: is a symbolic link")},
	{name: "submodule for a service", spoil: submodule("services/sub"), want: says("services/sub", "submodule")},
	{name: "submodule for manifests", files: serviceFile + "manifests: sub\n", spoil: submodule("services/bad/sub"), want: says("services/bad/sub", "submodule")},
	{name: "file with a control character", spoil: entry("services/bad", "a\x01\x1b[31mb.yaml"), want: says(`services/bad/a\x01\x1b[31mb.yaml`, "not every system takes")},
	{name: "file with a backslash", spoil: entry("services/bad", `a\..\x.yaml`), want: says(`services/bad/a\..\x.yaml`, "not every system takes")},
	{name: "file named .git", spoil: entry("services/bad", ".git"), sound: true},
	{name: "file named git~1", spoil: entry("services", "git~1"), want: says("services/git~1", "not one that every system takes")},
	{name: "service with a newline", spoil: tree("services", "new\nline"), want: says(`services/new\nline`)},

	// Jsonnet.
	{name: "endless Jsonnet", files: jsonnetFile + "local f(n) = if n < 0 then n else f(n + 1) tailstrict;\nf(0)\n", want: says("services/bad/main.jsonnet", "overflows the stack")},
	{name: "long Jsonnet", files: jsonnetFile + "std.foldl(function(a, b) a + b, std.range(1, 1000000000), 0)\n", want: says("services/bad/main.jsonnet")},
	{name: "nested Jsonnet", files: jsonnetFile + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "\n", want: says("services/bad/main.jsonnet")},
	{name: "gigabyte of Jsonnet", files: jsonnetFile + "local d(n) = if n == 0 then 'xxxxxxxxxxxxxxxx' else d(n - 1) + d(n - 1);\n{apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 'bad'}, data: {a: d(26)}}\n", want: says("services/bad/main.jsonnet: rendering")},
	{name: "Jsonnet imports from outside", files: jsonnetFile + "import '../../../etc/passwd'\n", want: says("services/bad/main.jsonnet:1:", "../../../etc/passwd")},
	{name: "Jsonnet imports an absolute path", files: jsonnetFile + "\n{a: importstr '/etc/passwd'}\n", want: says("services/bad/main.jsonnet:2:", "/etc/passwd")},
	{name: "Jsonnet imports a URL", files: jsonnetFile + "import 'https://shop.example/lib.libsonnet'\n", want: says("services/bad/main.jsonnet:1:", "https://shop.example/lib.libsonnet")},
	{name: "Jsonnet asks for an unknown native function", files: jsonnetFile + "{a: std.native('exec')('id')}\n", want: says("services/bad/main.jsonnet:1:5", "std.native")},

	// Kustomize.
	{name: "base over HTTPS", files: kustomizeFile + "resources:\n- https://shop.example/base.yaml\n", want: says("services/bad/kustomization.yaml:2:3", "https://shop.example/base.yaml")},
	{name: "base on GitHub", files: kustomizeFile + "resources:\n- github.com/x//y?ref=z\n", want: says("services/bad/kustomization.yaml:2:3", "github.com/x//y?ref=z")},
	{name: "base over SSH", files: kustomizeFile + "bases: ['git@github.com:x/y']\n", want: says("services/bad/kustomization.yaml:1:9", "git@github.com:x/y")},
	{name: "exec function", files: kustomizeFile + "generators: [g.yaml]\n-- services/bad/g.yaml --\napiVersion: v1\nkind: G\nmetadata: {name: g, annotations: {config.kubernetes.io/function: \"exec: {path: ./x.sh}\"}}\n", want: says("services/bad/g.yaml:1:1", "another program")},
	{name: "container function", files: kustomizeFile + "transformers: [g.yaml]\n-- services/bad/g.yaml --\napiVersion: v1\nkind: H\nmetadata: {name: g, annotations: {config.k8s.io/function: \"container: {image: x}\"}}\n", want: says("services/bad/g.yaml:1:1", "another program")},
	{name: "Go plugin", files: kustomizeFile + "validators: [g.yaml]\n-- services/bad/g.yaml --\napiVersion: shop.example/v1\nkind: G\nmetadata: {name: g}\n", want: says("services/bad/g.yaml:1:1", "plugin of one's own")},
	{name: "openapi", files: kustomizeFile + "resources: [bad.yaml]\nopenapi: {path: schema.json}\n", want: says("services/bad/kustomization.yaml:2:1", "openapi: is not supported")},
	{name: "helm charts", files: kustomizeFile + "helmCharts: [{name: x, repo: 'https://shop.example'}]\n", want: says("services/bad/kustomization.yaml:1:1", "helm template")},
	{name: "base outside", files: kustomizeFile + "resources: [../../../base]\n", want: says("services/bad/kustomization.yaml:1:13", "../../../base")},
	{name: "cyclic bases", files: kustomizeFile + "resources: [a]\n-- services/bad/a/kustomization.yaml --\nresources: [../b]\n-- services/bad/b/kustomization.yaml --\nresources: [../a]\n", want: says("services/bad/", "cycle")},

	// Manifests.
	{name: "no object", files: plainFile + "hello\n", want: says("services/bad/bad.yaml:1")},
	{name: "no kind", files: plainFile + "a: b\n", want: says("services/bad/bad.yaml:1:1", "it has no apiVersion")},
	{name: "no name", files: plainFile + "apiVersion: v1\nkind: ConfigMap\n", want: says("services/bad/bad.yaml:1", "name")},
	{name: "generateName", files: plainFile + "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: bad-}\n", want: says("services/bad/bad.yaml:1", "generateName")},
	{name: "an object of another service", files: plainFile + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: bad}}\n  template: {metadata: {labels: {app: bad}}, spec: {containers: [{name: main, image: bad}]}}\n", want: says("bad", "Deployment", "web", "dev/web")},
	{name: "another namespace", files: plainFile + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad, namespace: kube-system}\n", want: says("services/bad/bad.yaml:1", "kube-system")},
	{name: "unknown kind", files: plainFile + "apiVersion: shop.example/v1\nkind: Basket\nmetadata: {name: bad}\n", want: says("dev/bad", "Basket", "shop.example/v1")},
	{name: "wrong type of a field", files: plainFile + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec:\n  replicas: two\n  selector: {matchLabels: {app: bad}}\n  template: {metadata: {labels: {app: bad}}, spec: {containers: [{name: main, image: bad}]}}\n", want: says("dev/bad", "Deployment", "replicas")},
	{name: "two megabytes", files: plainFile + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata:\n  image: sound\n  a: " + strings.Repeat("xxxxxxxxxxxxxxxx", 2<<16) + "\n", want: says("dev/bad", "ConfigMap")},
	{name: "Secret", sound: true, want: says("applied dev/bad"), files: serviceFile + "secrets: {plaintext: allow}\n-- services/bad/secret.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: bad}\ndata: {a: " + canary + "}\n"},
	{name: "Secret of bad base64", files: serviceFile + "secrets: {plaintext: allow}\n-- services/bad/secret.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: bad}\ndata: {a: '%" + canary + "%'}\n", want: says("dev/bad", "Secret")},
	{name: "Secret with a bad key", files: serviceFile + "secrets: {plaintext: allow}\n-- services/bad/secret.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: bad}\nstringData: {'a b': " + canary + "}\n", want: says("dev/bad", "Secret")},
	{name: "Secret with a wrong type", files: serviceFile + "secrets: {plaintext: allow}\n-- services/bad/secret.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: bad}\nstringData: {a: [" + canary + "]}\n", want: says("dev/bad", "Secret")},
	{name: "Secret that is no mapping", files: serviceFile + "secrets: {plaintext: allow}\n-- services/bad/secret.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: bad}\nstringData: " + canary + "\n", want: says("dev/bad", "Secret", "stringData")},
	{name: "Secret of bad YAML", files: serviceFile + "secrets: {plaintext: allow}\n-- services/bad/secret.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: bad}\nstringData: {a: " + canary + "\n", want: says("services/bad/secret.yaml:")},
	{name: "Secret with a number too large", files: serviceFile + "secrets: {plaintext: allow}\n-- services/bad/secret.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: bad}\nstringData:\n  a: 1e999\n  " + canary + ": a\n  " + canary + ": b\n", want: says("services/bad/secret.yaml:")},
	{name: "denied", files: plainFile + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {image: denied}\n", want: says("dev/bad", "ConfigMap", "no such image")},
}

// link commits a symbolic link.
func link(at, to string) func(*world) {
	return func(w *world) {
		path := filepath.Join(w.clone, at)
		w.must(os.RemoveAll(path))
		w.must(os.Symlink(to, path))
	}
}

// submodule commits a commit of another repository.
func submodule(at string) func(*world) {
	return func(w *world) {
		w.git("add", "-A")
		w.git("update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+","+at)
	}
}

// entry adds a manifest to a folder under a name that git itself may refuse.
func entry(dir, name string) func(*world) {
	return func(w *world) {
		id := w.hash("apiVersion: v1\nkind: [\n")
		w.graft(dir, "100644 blob "+id+"\t"+name)
	}
}

// tree adds an empty service to a folder.
func tree(dir, name string) func(*world) {
	return func(w *world) {
		inner := w.mktree("100644 blob " + w.hash(header("Service")) + "\tservice.yaml\x00")
		w.graft(dir, "040000 tree "+inner+"\t"+name)
	}
}

// hash stores a blob.
func (w *world) hash(content string) string { return w.gitIn(content, "hash-object", "-w", "--stdin") }

// mktree stores a tree, whatever the names of its entries.
func (w *world) mktree(entries string) string { return w.gitIn(entries, "mktree", "-z", "--missing") }

// graft adds an entry to a folder of what is about to be committed, and keeps
// the tree for the commit in graft.tree.
func (w *world) graft(dir, entry string) {
	w.git("add", "-A")
	id := w.git("write-tree")
	parts := strings.Split(dir, "/")
	for i := len(parts); i >= 0; i-- {
		at := id
		if i > 0 {
			at = w.git("rev-parse", id+":"+strings.Join(parts[:i], "/"))
		}
		lines := strings.Split(strings.TrimRight(w.git("ls-tree", "-z", at), "\x00"), "\x00")
		if i < len(parts) {
			for j, l := range lines {
				if strings.HasSuffix(l, "\t"+parts[i]) {
					lines[j] = entry
				}
			}
		} else {
			lines = append(lines, entry)
		}
		sub := w.mktree(strings.Join(lines, "\x00") + "\x00")
		if i > 0 {
			entry = "040000 tree " + sub + "\t" + parts[i-1]
			continue
		}
		w.must(os.WriteFile(filepath.Join(w.clone, ".git", "graft"), []byte(sub), 0o644))
	}
}

// gitIn runs git with an input.
func (w *world) gitIn(in string, args ...string) string {
	w.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = w.clone, strings.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		w.Fatalf("git %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// offend pushes a commit that has the tree of badInput, a bump of web, and a
// bad input. All that an earlier one did is taken back by it.
func (w *world) offend(base string, version int, in input) string {
	w.Helper()
	w.git("read-tree", base)
	w.git("checkout-index", "-fqa")
	w.git("clean", "-fdxq")
	w.write(in.files)
	env := filepath.Join(w.clone, "environments", "dev.yaml")
	data, err := os.ReadFile(env)
	w.must(err)
	w.must(os.WriteFile(env, bytes.Replace(data, []byte("web:0"), fmt.Appendf(nil, "web:%d", version), 1), 0o644))
	w.git("add", "-A")
	graft := filepath.Join(w.clone, ".git", "graft")
	os.Remove(graft)
	if in.spoil != nil {
		in.spoil(w)
	}
	tree := ""
	if data, err := os.ReadFile(graft); err == nil {
		tree = string(data)
	} else {
		if in.spoil != nil && w.git("ls-files", "-s") != "" && !strings.Contains(w.git("ls-files", "-s"), "160000") {
			w.git("add", "-A")
		}
		tree = w.git("write-tree")
	}
	commit := w.git("commit-tree", "-p", "HEAD", "-m", in.name, tree)
	w.git("update-ref", "HEAD", commit)
	w.git("push", "-q", "origin", "HEAD:main")
	return commit
}

func TestDaemonBearsBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, badInput)
	base := w.git("rev-parse", "HEAD^{tree}")
	config := filepath.Join(t.TempDir(), "config.yaml")
	w.must(os.WriteFile(config, []byte(header("Config")+"render: {processes: 2, timeout: 4s, memoryMiB: 256}\n"), 0o644))
	d := w.daemon(t.TempDir(), "--config", config)
	w.runs("web", "registry.example/web:0")
	w.until("bad is there", func(ctx context.Context) string {
		_, err := w.kube.CoreV1().ConfigMaps(w.namespace).Get(ctx, "bad", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		return ""
	})
	w.denyImages()
	uid := w.kept("bad").UID
	for i, in := range inputs {
		mark := d.mark()
		commit := w.offend(base, i+1, in)
		w.runs("web", fmt.Sprintf("registry.example/web:%d", i+1))
		for _, words := range in.want {
			d.line(mark, words...)
		}
		if in.sound {
			d.line(mark, "commit "+commit[:12], "mistakes 0")
			d.never(mark, "failed dev/bad")
		}
	}

	// All is as it was once the mistakes are taken back.
	mark := d.mark()
	commit := w.offend(base, len(inputs)+1, input{name: "sound again"})
	d.line(mark, "commit "+commit[:12], "mistakes 0")
	w.until("bad is as it was", func(context.Context) string {
		return strings.TrimSuffix(w.kept("bad").Data["image"], "sound")
	})
	if got := w.kept("bad"); got.UID != uid {
		t.Errorf("the ConfigMap was deleted on the way: %v", got)
	}

	resp, err := http.Get("http://" + d.address + "/metrics")
	w.must(err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if strings.Contains(string(body), canary) {
		t.Error("the metrics hold a Secret's value")
	}
	for _, line := range d.said(0) {
		// The key of a mapping is no value.
		if strings.Contains(line, canary) && !strings.Contains(line, "is there twice") {
			t.Errorf("the daemon has said a Secret's value: %s", line)
		}
	}
}

// kept returns a ConfigMap of the world's namespace.
func (w *world) kept(name string) *corev1.ConfigMap {
	w.Helper()
	x, err := w.kube.CoreV1().ConfigMaps(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
	w.must(err)
	return x
}

// denyImages has the API server refuse a ConfigMap with the image "denied".
func (w *world) denyImages() {
	w.Helper()
	meta := metav1.ObjectMeta{Name: "deny-" + w.namespace}
	policies := w.kube.AdmissionregistrationV1()
	_, err := policies.ValidatingAdmissionPolicies().Create(w.Context(), &admission.ValidatingAdmissionPolicy{
		ObjectMeta: meta,
		Spec: admission.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admission.MatchResources{ResourceRules: []admission.NamedRuleWithOperations{{RuleWithOperations: admission.RuleWithOperations{
				Operations: []admission.OperationType{admission.Create, admission.Update},
				Rule:       admission.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}}}},
			MatchConditions: []admission.MatchCondition{{Name: "ours", Expression: fmt.Sprintf("request.namespace == %q", w.namespace)}},
			Validations:     []admission.Validation{{Expression: "!has(object.data) || !('image' in object.data) || object.data.image != 'denied'", Message: "no such image is welcome"}},
		},
	}, metav1.CreateOptions{})
	w.must(err)
	_, err = policies.ValidatingAdmissionPolicyBindings().Create(w.Context(), &admission.ValidatingAdmissionPolicyBinding{
		ObjectMeta: meta,
		Spec:       admission.ValidatingAdmissionPolicyBindingSpec{PolicyName: meta.Name, ValidationActions: []admission.ValidationAction{admission.Deny}},
	}, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		policies.ValidatingAdmissionPolicyBindings().Delete(context.Background(), meta.Name, metav1.DeleteOptions{})
		policies.ValidatingAdmissionPolicies().Delete(context.Background(), meta.Name, metav1.DeleteOptions{})
	})
	probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "probe-"}, Data: map[string]string{"image": "denied"}}
	w.until("the policy is in force", func(ctx context.Context) string {
		_, err := w.kube.CoreV1().ConfigMaps(w.namespace).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return "the probe was taken"
		}
		return ""
	})
}
