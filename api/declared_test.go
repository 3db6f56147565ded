package api

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
)

// A pipeline is told with all that its file says of its stages.
func TestPipelineOf(t *testing.T) {
	tree := fstest.MapFS{}
	for name, text := range map[string]string{
		"environments/dev.yaml":     "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: dev\npins:\n  web:\n    image: ghcr.io/acme/web:1.0.0\n",
		"environments/prod.yaml":    "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: prod\npins:\n  web:\n    image: ghcr.io/acme/web:1.0.0\n",
		"services/web/service.yaml": "apiVersion: pinion.dev/v1\nkind: Service\n",
		"pipelines/default.yaml": `apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
  track:
  - {artifacts: [web], semver: ">=1.0.0 <2", pattern: "{branch}-{version}", branch: main, prereleases: true, publishers: [ci], watch: true, signed: {keys: [release]}}
  - {semver: ">=1.0.0"}
- environment: prod
  by: pullRequest
  merge: auto
  onFailure: rollback
  manifests: head
`,
	} {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	repo, err := desired.Read(desired.Hashed(tree), nil)
	if err != nil || repo.Pipelines["default"] == nil {
		t.Fatalf("%v, %v", err, repo.Problems)
	}
	p := pipelineOf(repo, "default")
	for i := range p.Stages {
		p.Stages[i].Problems = nil
	}
	want := []Stage{
		{Environment: "dev", OnFailure: "stop", By: "commit", Track: []Track{
			{Artifacts: []desired.ArtifactName{"web"}, Semver: ">=1.0.0 <2", Pattern: "{branch}-{version}", Branch: "main", Prereleases: true, Publishers: []string{"ci"}, Watch: true, Signed: []desired.KeyName{"release"}},
			{Semver: ">=1.0.0", Watch: true}}},
		{Environment: "prod", After: []desired.EnvironmentName{"dev"}, By: "pullRequest", Merge: "auto", OnFailure: "rollback", ManifestsHead: true},
	}
	if d := cmp.Diff(want, p.Stages); d != "" {
		t.Error(d)
	}
}
