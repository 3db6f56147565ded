package desired_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
)

func TestParseImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("2", 64)
	for _, c := range []struct{ reference, repository, version, digest string }{
		{"web:1.4.2", "web", "1.4.2", ""},
		{"ghcr.io/acme/web:1.4.2", "ghcr.io/acme/web", "1.4.2", ""},
		{"ghcr.io/acme/web@" + digest, "ghcr.io/acme/web", "", digest},
		{"ghcr.io/acme/web:1.4.2@" + digest, "ghcr.io/acme/web", "1.4.2", digest},
		{"localhost:5000/web:v1_2-rc.1", "localhost:5000/web", "v1_2-rc.1", ""},
		{"localhost:5000/web@" + digest, "localhost:5000/web", "", digest},
		{"127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000/a/b/c", "1", ""},
	} {
		got, err := desired.ParseImage(c.reference)
		if want := (desired.Image{Reference: c.reference, Repository: c.repository, Version: c.version, Digest: c.digest}); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", c.reference, got, err)
		}
	}
	for _, bad := range []string{
		"", " ", "web", "localhost:5000/web", "web:", "web@", "web:1@", "web@sha256:22", "web:1@md5:" + strings.Repeat("2", 32), ":1", "web:1:2", "web:a b", "Web:1", "web:-1", "web:.1",
		"https://ghcr.io/web:1", "web:" + strings.Repeat("1", 129), "web:1\n", "web@" + digest + "@" + digest, "a//b:1", "web:{tag}", "web:1 # x", `web:1"`, "web:1@sha256:" + strings.Repeat("G", 64),
	} {
		if got, err := desired.ParseImage(bad); err == nil {
			t.Errorf("%q was taken: %+v", bad, got)
		}
	}
}

func TestParameters(t *testing.T) {
	r := read(t, fstest.MapFS{"environments/dev.yaml": {Data: []byte(environmentHead + `namespace: shop
parameters:
  int: 3
  negative: -9223372036854775808
  hex: 0xff
  float: 1.50
  exponent: 1e3
  zero: 0
  fraction: 0.5
  word: yes
  bool: true
  date: 2026-12-01
  time: 2026-12-01T09:00:00Z
  version: 1.4.2
  quoted: "3"
  none:
  tilde: ~
  list: [1, a, [], {}]
  map: {a: {b: null}}
  block: |
    two
    lines
`)}})
	if len(r.Problems) > 0 {
		t.Fatal(r.Problems)
	}
	want := map[string]any{
		"int": int64(3), "negative": int64(-9223372036854775808), "hex": int64(255), "float": 1.5, "exponent": 1000.0, "zero": int64(0), "fraction": 0.5,
		"word": "yes", "bool": true, "date": "2026-12-01", "time": "2026-12-01T09:00:00Z", "version": "1.4.2", "quoted": "3", "none": nil, "tilde": nil,
		"list": []any{int64(1), "a", []any{}, map[string]any{}}, "map": map[string]any{"a": map[string]any{"b": nil}}, "block": "two\nlines\n",
	}
	if diff := cmp.Diff(want, r.Environments["dev"].Parameters); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// The values of a whole repository, as the other packages get them.
func TestValues(t *testing.T) {
	r := read(t, tree(t, "shop"))
	pipeline := r.Pipelines["default"]
	want := &desired.Pipeline{
		Name: "default", File: "pipelines/default.yaml", Services: []desired.ServiceName{"*"},
		Stages: []desired.Stage{
			{Environment: "dev", Verify: []desired.PolicyName{"smoke", "soak"}, OnFailure: desired.OnFailureStop, Position: desired.Position{File: "pipelines/default.yaml", Line: 5, Column: 16}},
			{Environment: "staging", After: []desired.EnvironmentName{"dev"}, Verify: []desired.PolicyName{"e2e", "job", "error-rate"}, Admit: []desired.PolicyName{"approval", "hours", "only-one"}, OnFailure: desired.OnFailureRollback, Position: desired.Position{File: "pipelines/default.yaml", Line: 7, Column: 16}},
		},
	}
	if diff := cmp.Diff(want, pipeline); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if next := pipeline.Next("dev"); len(next) != 1 || next[0].Environment != "staging" || len(pipeline.Next("staging")) != 0 || r.StagesOf("web") != pipeline {
		t.Errorf("got %v", next)
	}
	policies := map[desired.PolicyName]*desired.Policy{
		"smoke":      {Check: desired.CheckHTTP, HTTP: &desired.HTTP{URL: "http://web.{namespace}.svc/healthz", Position: desired.Position{File: "policies/smoke.yaml", Line: 3, Column: 13}, Expect: "status == 200 && body.ready"}, Timeout: 10 * time.Minute, Expression: desired.Position{File: "policies/smoke.yaml", Line: 3, Column: 59}},
		"soak":       {Check: desired.CheckSoak, Soak: 30 * time.Minute},
		"e2e":        {Check: desired.CheckReport, Report: &desired.Report{By: []string{"ci"}}, Timeout: 2 * time.Hour},
		"job":        {Check: desired.CheckJob, Job: &desired.Job{Manifest: "policies/smoke-job.yaml"}},
		"error-rate": {Check: desired.CheckPrometheus, Prometheus: &desired.Prometheus{URL: "http://prometheus.monitoring", Position: desired.Position{File: "policies/error-rate.yaml", Line: 4, Column: 8}, Query: `sum(rate(errors{service="{service}"}[5m]))`, Expect: "value < 0.01", For: 10 * time.Minute}, Expression: desired.Position{File: "policies/error-rate.yaml", Line: 6, Column: 11}},
		"approval":   {Check: desired.CheckApproval, Approval: &desired.Approval{Groups: []string{"release-managers"}, Count: 2, AllowAuthor: true}},
		"hours": {Check: desired.CheckWindow, Window: &desired.Window{Allow: "Mon-Thu 09:00-16:00, Fri 09:00-24:00", Timezone: "Europe/Prague", Position: desired.Position{File: "policies/hours.yaml", Line: 3, Column: 67}, Spans: []desired.Span{
			{First: time.Monday, Last: time.Thursday, From: 9 * time.Hour, Until: 16 * time.Hour},
			{First: time.Friday, Last: time.Friday, From: 9 * time.Hour, Until: 24 * time.Hour},
		}}},
		"only-one": {Check: desired.CheckCEL, CEL: "deployment.pins.web.version.startsWith('1.')", Expression: desired.Position{File: "policies/only-one.yaml", Line: 3, Column: 6}},
	}
	for name, p := range policies {
		p.Name, p.File = name, "policies/"+string(name)+".yaml"
	}
	if diff := cmp.Diff(policies, r.Policies); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	hold := &desired.Hold{Name: "inc-431", File: "holds/inc-431.yaml", Environments: []desired.EnvironmentName{"staging"}, Services: []desired.ServiceName{"web"}, Reason: "INC-431, checkout errors", Owner: "on-call@example.com", Until: time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC), Position: desired.Position{File: "holds/inc-431.yaml", Line: 7, Column: 8}}
	if diff := cmp.Diff(hold, r.Holds["inc-431"]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !hold.Covers("staging", "web") || hold.Covers("dev", "web") || hold.Covers("staging", "api") || hold.Expired(hold.Until.Add(-1)) || !hold.Expired(hold.Until) || (&desired.Hold{}).Expired(hold.Until) || !(&desired.Hold{}).Covers("x", "y") {
		t.Error("the hold does not cover what it says")
	}
	services := map[desired.ServiceName]*desired.Service{
		"web": {Artifacts: []desired.ArtifactName{"web"}, Folder: "services/web/overlays/{environment}", DependsOn: []desired.ServiceName{"db", "api"}, Rollout: desired.Rollout{Timeout: 5 * time.Minute}, Conflicts: desired.ConflictsTake, Replace: desired.ReplaceReport, Plaintext: desired.PlaintextRefuse},
		"api": {Artifacts: []desired.ArtifactName{"api"}, Folder: "shared/api", Rollout: desired.Rollout{Timeout: 10 * time.Minute}, Conflicts: desired.ConflictsReport, Replace: desired.ReplaceReport, Plaintext: desired.PlaintextRefuse},
		"db":  {Folder: "services/db", Rollout: desired.Rollout{Timeout: 10 * time.Minute}, Conflicts: desired.ConflictsReport, Replace: desired.ReplaceReport, Plaintext: desired.PlaintextRefuse},
	}
	for name, s := range services {
		s.Name, s.File = name, "services/"+string(name)+"/service.yaml"
	}
	if diff := cmp.Diff(services, r.Services); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := desired.Expand("http://{service}.{namespace}.{environment}/{x}", r.Environments["staging"], "web"); got != "http://web.shop-staging.staging/{x}" {
		t.Errorf("expanded to %s", got)
	}
}

func TestSpan(t *testing.T) {
	weekend := desired.Span{First: time.Friday, Last: time.Monday, From: 9 * time.Hour, Until: 24 * time.Hour}
	days := map[time.Weekday]bool{time.Friday: true, time.Saturday: true, time.Sunday: true, time.Monday: true}
	for d := time.Sunday; d <= time.Saturday; d++ {
		if got := weekend.Has(d, 12*time.Hour); got != days[d] {
			t.Errorf("%s: %v", d, got)
		}
	}
	if weekend.Has(time.Friday, 9*time.Hour-1) || !weekend.Has(time.Friday, 9*time.Hour) || !weekend.Has(time.Friday, 24*time.Hour-1) {
		t.Error("the hours are not right at their ends")
	}
}

// Stages whose names can't be resolved must not move, and say why.
func TestStageProblems(t *testing.T) {
	r := read(t, tree(t, "dangling"))
	var got []string
	for _, s := range r.Pipelines["a"].Stages {
		for _, p := range s.Problems {
			got = append(got, string(s.Environment)+": "+p.Message)
		}
	}
	want := []string{
		"stagin: there is no environment stagin",
		"prod: after: there is no stage staging",
		"prod: there is no policy smok",
		"prod: the policy e2e can't be used: policies/e2e.yaml:3:17: there is no file policies/jobs/nope.yaml; the path is relative to the folder of this file",
		"prod: the policy broken can't be used: policies/broken.yaml:4:1: not valid YAML: did not find expected node content; check the indentation of this line and of the one before, and that brackets and quotes are closed",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if r.StagesOf("web") != nil || len(r.Holds["h"].Problems) != 2 {
		t.Errorf("web is claimed by %v, and the hold has %v", r.StagesOf("web"), r.Holds["h"].Problems)
	}
	if names := r.BrokenNames(desired.KindPolicy); !cmp.Equal(names, []string{"broken", "e2e"}) {
		t.Errorf("broken are %q", names)
	}
	if p := r.ProblemsOf(desired.KindPipeline, "a"); len(p) != 5 {
		t.Errorf("the pipeline has %d problems: %v", len(p), p)
	}

	contested := read(t, tree(t, "pipelines"))
	if contested.StagesOf("web") != nil || contested.StagesOf("bare") == nil || contested.StagesOf("api") != nil {
		t.Error("it is said who claims a contested service")
	}
}

// A hold that is there and can't be read says so, and one of which only the
// reason is missing counts.
func TestBrokenHolds(t *testing.T) {
	r := read(t, tree(t, "holds"))
	if h := r.Holds["a"]; h == nil || len(h.Problems) != 3 || !h.Covers("dev", "x") || h.Covers("prod", "x") || !h.Until.IsZero() {
		t.Errorf("got %+v", h)
	}
	if names := r.BrokenNames(desired.KindHold); !cmp.Equal(names, []string{"b", "c"}) || len(r.Holds) != 1 {
		t.Errorf("broken are %q, and there are %d", names, len(r.Holds))
	}
}
