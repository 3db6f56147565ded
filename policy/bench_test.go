package policy_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// A thousand services, each with a full history, gates of every kind that is
// found here, and a hold of something else.
const services = 1000

func benchmark(b *testing.B) (policy.Rules, map[desired.EnvironmentName]ledger.Record, time.Time) {
	tree := files(b)
	tree["pipelines/default.yaml"] = &fstest.MapFile{Data: []byte(`apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: staging
  verify: [e2e, soak, no-major, hours]
- environment: production
  admit: [approval, hours, no-major]
`)}
	tree["holds/x.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: pinion.dev/v1\nkind: Hold\nservices: [api]\nreason: x\nowner: y\n")}
	for i := range services {
		tree[fmt.Sprintf("services/s%d/service.yaml", i)] = &fstest.MapFile{Data: []byte("apiVersion: pinion.dev/v1\nkind: Service\nartifacts: [a" + fmt.Sprint(i) + "]\n")}
	}
	s := scene{Now: "2026-11-19T10:00:00Z", Records: map[string]recordText{"staging": {}, "production": {}}}
	staging := []deploymentText{{Commit: "c19", Version: "1.5.0", State: "verified", At: "09:00", Authors: []string{"Dana <dana@example.com>"}, Checks: map[string]string{"e2e": "success ci https://ci.example/5"}}}
	var production []deploymentText
	for n := 18; n > 0; n-- {
		d := deploymentText{Commit: fmt.Sprintf("c%d", n), Version: fmt.Sprintf("1.4.%d", n), State: "verified", At: "08:00"}
		staging = append(staging, d)
		d.Source, d.Cause = d.Commit, "promotion"
		production = append(production, d)
	}
	s.Records["staging"] = recordText{Deployments: staging}
	s.Records["production"] = recordText{Deployments: production, Candidate: &candidateText{Version: "1.5.0", Source: "c19", Offered: "09:10",
		Approvals: []approvalText{{By: "alice", Groups: []string{"release-managers"}}}}}
	now, rules, records := s.world(b, tree)
	return rules, records, now
}

func BenchmarkVerify(b *testing.B) {
	rules, records, now := benchmark(b)
	r := records["staging"]
	r.Deployment.State = ledger.StateCompleted
	v := policy.Verification{Now: now, Record: r, Rules: rules, Locations: locations(b), Health: policy.Health{Known: true, Healthy: true, Since: now.Add(-time.Minute)}}
	if j := policy.Verify(v); j.State != ledger.StateCompleted || len(j.Verdicts) != 5 {
		b.Fatal(verification(j))
	}
	for b.Loop() {
		for range services {
			policy.Verify(v)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	rules, records, now := benchmark(b)
	a := scene{Admit: "production"}.admission(b, now, rules, maps.Clone(records))
	if d := policy.Admit(a); d.Move != policy.Stay || d.Candidate == nil || len(d.Verdicts) != 5 {
		b.Fatal(decision(d))
	}
	for b.Loop() {
		for range services {
			policy.Admit(a)
		}
	}
}

// Most of the time, what is verified is there already.
func BenchmarkAdmitNothingNew(b *testing.B) {
	rules, records, now := benchmark(b)
	a := scene{Admit: "production"}.admission(b, now, rules, maps.Clone(records))
	a.Target.Candidate, a.Target.Deployment.Release = nil, records["staging"].Deployment.Release
	a.Pinned = nil
	if d, ok := rules.Repository.Deployment("production", "web"); ok {
		d.Source = a.Target.Deployment.Release.Source
		d.Pins = slices.Clone(d.Pins)
		d.Pins[0].Image.Reference = a.Target.Deployment.Release.Pins[0].Image
		a.Pinned = &d
	}
	if d := policy.Admit(a); d.Move != policy.Stay || d.Reason != "production has 1.5.0" {
		b.Fatal(decision(d))
	}
	for b.Loop() {
		for range services {
			policy.Admit(a)
		}
	}
}
