package render_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

func TestFolder(t *testing.T) {
	for folder, want := range map[string]string{
		"services/web":                                 "services/web",
		"services/web/overlays/{environment}":          "services/web/overlays/staging",
		"services/web/{environment}/../{environment}/": "services/web/staging",
		".": ".",
	} {
		if got := render.Folder(&desired.Service{Folder: folder}, "staging"); got != want {
			t.Errorf("%s: %s", folder, got)
		}
	}
}

// The commit is no part of what the object is.
func TestStamp(t *testing.T) {
	tree := files(map[string]string{"services/web/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {n: \"<1>\"}\nbig: 9007199254740993\nfloat: 0.1\n"})
	result, err := render.Build(t.Context(), tree, request())
	if err != nil {
		t.Fatal(err)
	}
	o := result.Objects[0]
	stamped := o.Stamp("4f1c2aa90b7e")
	if bytes.Contains(o.JSON, []byte(render.AnnotationCommit)) {
		t.Error("Stamp changed the object")
	}
	want := strings.Replace(string(o.JSON), `"annotations":{`, `"annotations":{"pinion.dev/commit":"4f1c2aa90b7e",`, 1)
	if string(stamped) != want {
		t.Errorf("got  %s\nwant %s", stamped, want)
	}
	o.JSON = stamped
	if again := o.Stamp("other"); !bytes.Contains(again, []byte(`"pinion.dev/commit":"other"`)) || bytes.Contains(again, []byte("4f1c2aa90b7e")) {
		t.Errorf("stamped again: %s", again)
	}
}

// The rules of an aggregated ClusterRole are a controller's, an empty list too.
func TestAggregatedClusterRole(t *testing.T) {
	for _, test := range []struct {
		name, fields  string
		rules, warned bool
	}{
		{"empty", "aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: all}}]}\nrules: []\n", false, false},
		{"own", "aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: all}}]}\nrules: [{apiGroups: [x], resources: [y], verbs: [get]}]\n", false, true},
		{"none", "aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: all}}]}\n", false, false},
		{"not aggregated", "rules: []\n", true, false},
		{"null", "aggregationRule: null\nrules: []\n", true, false},
	} {
		tree := files(map[string]string{"services/web/a.yaml": "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: a}\n" + test.fields})
		result, err := render.Build(t.Context(), tree, request())
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(result.Objects[0].JSON, []byte(`"rules"`)); got != test.rules {
			t.Errorf("%s: rules: %v", test.name, got)
		}
		warned := strings.Contains(strings.Join(result.Warnings, "\n"), "rules are dropped")
		if warned != test.warned {
			t.Errorf("%s: %q", test.name, result.Warnings)
		}
	}
}

// A version, a label or the order of the files does not hide behind a digest.
func TestDigest(t *testing.T) {
	object := func(text string) map[string]string { return map[string]string{"services/web/a.yaml": text} }
	const cm = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	digests := map[string]string{}
	for name, c := range map[string]struct {
		tree map[string]string
		req  func(*render.Request)
	}{
		"plain":       {object(cm), func(*render.Request) {}},
		"data":        {object(cm + "data: {a: b}\n"), func(*render.Request) {}},
		"name":        {object(strings.Replace(cm, "name: a", "name: b", 1)), func(*render.Request) {}},
		"kind":        {object(strings.Replace(cm, "ConfigMap", "Secret", 1)), func(*render.Request) {}},
		"version":     {object(strings.Replace(cm, "v1", "v2", 1)), func(*render.Request) {}},
		"environment": {object(cm), func(r *render.Request) { r.Environment = "dev" }},
		"service":     {object(cm), func(r *render.Request) { r.Service = "api" }},
		"namespace":   {object(cm), func(r *render.Request) { r.Namespace = "other" }},
	} {
		req := request()
		c.req(&req)
		result, err := render.Build(t.Context(), files(c.tree), req)
		if err != nil {
			t.Fatal(name, err)
		}
		if other, ok := digests[result.Digest]; ok {
			t.Errorf("%s and %s have one digest", name, other)
		}
		digests[result.Digest] = name
	}
	// The same object, written in another way.
	result, err := render.Build(t.Context(), files(map[string]string{"services/web/z.json": `{"metadata":{"name":"a","uid":"x"},"kind":"ConfigMap","apiVersion":"v1","status":{}}`}), request())
	if err != nil {
		t.Fatal(err)
	}
	if digests[result.Digest] != "plain" {
		t.Error("the way it is written shows in the digest")
	}
}

func TestImages(t *testing.T) {
	pin := func(artifact, reference, repository string) desired.Pin {
		return desired.Pin{Artifact: desired.ArtifactName(artifact), Image: desired.Image{Reference: reference, Repository: repository}}
	}
	req := request()
	req.Pins = []desired.Pin{
		pin("web", "localhost:5000/web:2@sha256:22", "localhost:5000/web"),
		pin("api", "ghcr.io/acme/api:3", "ghcr.io/acme/api"),
	}
	for image, want := range map[string]string{
		"web":                        "localhost:5000/web:2@sha256:22",
		"web:1":                      "localhost:5000/web:2@sha256:22",
		"web@sha256:11":              "localhost:5000/web:2@sha256:22",
		"localhost:5000/web":         "localhost:5000/web:2@sha256:22",
		"localhost:5000/web:1":       "localhost:5000/web:2@sha256:22",
		"localhost:5000/web:1@sha:1": "localhost:5000/web:2@sha256:22",
		"localhost:5000/website:1":   "localhost:5000/website:1",
		"other/web":                  "other/web",
		"ghcr.io/acme/api":           "ghcr.io/acme/api:3",
		"api:dev":                    "ghcr.io/acme/api:3",
		"apis":                       "apis",
	} {
		for _, kustomize := range []bool{false, true} {
			m := map[string]string{"services/web/cron.yaml": fmt.Sprintf(`
apiVersion: batch/v1
kind: CronJob
metadata: {name: a}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: %q}], volumes: [{image: {reference: web}}]}}}}}
`, image)}
			if kustomize {
				m["services/web/kustomization.yaml"] = "resources: [cron.yaml]"
			}
			result, err := render.Build(t.Context(), files(m), req)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(result.Objects[0].JSON); !strings.Contains(got, fmt.Sprintf(`[{"image":%q,"name":"a"}]`, want)) {
				t.Errorf("%s: want %s in %s", image, want, got)
			}
		}
	}
}

func TestLargeObjects(t *testing.T) {
	text := func(n int) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a" + fmt.Sprint(n) + "}\ndata: {a: " + strings.Repeat("x", n) + "}\n"
	}
	result, err := render.Build(t.Context(), files(map[string]string{"services/web/a.yaml": text(1 << 20), "services/web/b.yaml": text(1 << 19)}), request())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(strings.Join(result.Warnings, "\n"), "larger than 1 MiB"); n != 1 {
		t.Errorf("%d warnings: %q", n, result.Warnings)
	}
	m := map[string]string{}
	for i := range 5 {
		m[fmt.Sprintf("services/web/%d.yaml", i)] = text(8<<20 + i)
	}
	if _, err := render.Build(t.Context(), files(m), request()); err == nil || !strings.Contains(err.Error(), "larger than 32 MiB together") {
		t.Errorf("40 MiB: %v", err)
	}
}
