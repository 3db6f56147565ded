package examples_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/pinion-cd/pinion/desired"
)

// Renovate's own code finds exactly the pins of the environment that its
// configuration names, and moves each by its line alone.
func TestRenovate(t *testing.T) {
	modules, err := filepath.Abs("../.cache/renovate/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "renovate")); err != nil {
		t.Fatal("Renovate is not there; fetch it with: make renovate")
	}
	const version, digest = "9.8.7-rc.1", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	// Forms that the example does not have: a comment, a digest, a port, quotes.
	const more = `
  legacy:
    image: registry.k8s.io:443/legacy/pause:1.0  # until March
  quoted:
    image: "registry.k8s.io/pause:3.9@sha256:7031c1b283388d2c2e09b57badb803c05ebed362dc88d84b480cc47f72a21097"
`
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("shop")); err != nil {
		t.Fatal(err)
	}
	const file = "environments/dev.yaml"
	before, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	before = append(bytes.TrimRight(before, "\n"), more...)
	if err := os.WriteFile(filepath.Join(dir, file), before, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/renovate.js", dir, "bots/renovate.json", version, digest)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.Bytes())
	}
	var got struct {
		Errors, Warnings []any
		Files            map[string]struct {
			Deps  []struct{ DepName, CurrentValue, CurrentDigest, SkipReason string }
			After string
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(got.Errors)+len(got.Warnings) > 0 {
		t.Errorf("Renovate says of the configuration: %v %v", got.Errors, got.Warnings)
	}
	if _, ok := got.Files[file]; !ok || len(got.Files) != 1 {
		t.Fatalf("Renovate looks at %v", got.Files)
	}
	pins := pinsOf(t, file, before)
	var found, want []string
	for _, d := range got.Files[file].Deps {
		found = append(found, d.DepName+" "+d.CurrentValue+" "+d.CurrentDigest+d.SkipReason)
	}
	for _, p := range pins {
		want = append(want, p.Image.Repository+" "+p.Image.Version+" "+p.Image.Digest)
	}
	slices.Sort(found)
	slices.Sort(want)
	if d := cmp.Diff(want, found); d != "" {
		t.Errorf("the pins (-), and what Renovate finds (+):\n%s", d)
	}
	after := got.Files[file].After
	for name, p := range pinsOf(t, file, []byte(after)) {
		if p.Image.Repository != pins[name].Image.Repository || p.Image.Version != version || p.Image.Digest != digest {
			t.Errorf("%s is at %+v", name, p.Image)
		}
	}
	changed := 0
	lines := strings.Split(after, "\n")
	for i, l := range strings.Split(string(before), "\n") {
		if i < len(lines) && l != lines[i] {
			changed++
		}
	}
	if changed != len(pins) || strings.Count(after, "\n") != bytes.Count(before, []byte("\n")) {
		t.Errorf("%d of %d pins moved, and %d lines are others:\n%s", len(pins), len(pins), changed, after)
	}
}

// pinsOf reads the pins of an environment's file.
func pinsOf(t *testing.T, name string, data []byte) map[desired.ArtifactName]desired.Pin {
	t.Helper()
	repo, err := desired.Read(desired.Hashed(fstest.MapFS{name: {Data: data}}), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range repo.Problems {
		if p.Severity == desired.SeverityError && !strings.Contains(p.Error(), "service") {
			t.Error(p)
		}
	}
	return repo.Environments["dev"].Pins
}

// Dependabot can't be run here; its configuration says which folders it looks
// at, and they have to be those of the environments.
func TestDependabotConfiguration(t *testing.T) {
	data, err := os.ReadFile("bots/dependabot.yml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Version int
		Updates []struct {
			Ecosystem string `yaml:"package-ecosystem"`
			Directory string
		}
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	if config.Version != 2 || len(config.Updates) != 1 || config.Updates[0].Ecosystem != "docker" || config.Updates[0].Directory != "/environments" {
		t.Errorf("%+v", config)
	}
}
