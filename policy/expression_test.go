package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

func TestHTTPExpectations(t *testing.T) {
	body := `{"ready": true, "count": 3, "rate": 0.5, "id": 9007199254740993, "items": [{"ok": true}, {"ok": false}], "huge": 1e999}`
	for src, want := range map[string]string{
		`status == 200`:                        "true",
		`status == 200 && body.ready`:          "true",
		`status in [200, 204]`:                 "true",
		`body.count > 2.5 && body.count == 3`:  "true",
		`body.rate < 1`:                        "true",
		`body.id == 9007199254740993`:          "true",
		`body.id == 9007199254740992`:          "false",
		`body.items.all(x, x.ok)`:              "false",
		`body.items.exists(x, x.ok)`:           "true",
		`has(body.version)`:                    "false",
		`body.version == "1"`:                  "error: no such key: version",
		`body.ready == "yes"`:                  "false",
		`body.contains("x")`:                   "error: no such overload",
		`headers["content-type"] == "text/x"`:  "true",
		`headers["x"] == ""`:                   "error: no such key: x",
		`body.huge > 1e300`:                    "true",
		`headers["content-type"].matches("t")`: "true",
	} {
		x, err := policy.CompileHTTP(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		ok, err := x.Eval(policy.HTTPVariables(200, map[string]string{"Content-Type": "text/x"}, []byte(body)))
		got := fmt.Sprint(ok)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", src, got, want)
		}
	}
	for text, want := range map[string]string{
		`ok`: `body == "ok"`, ``: `body == ""`, `{"a": 1} {"b": 2}`: `body.startsWith("{")`, `{"a": 1,}`: `body.endsWith("}")`,
		"\xff": `body == "\uFFFD"`, `null`: `body == null`, `[1, 2]`: `body[1] == 2`, `"x"`: `body == "x"`, `12`: `body == 12`,
		strings.Repeat("[", 20_000): `body.startsWith("[[")`,
	} {
		x, err := policy.CompileHTTP(want)
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		if ok, err := x.Eval(policy.HTTPVariables(200, nil, []byte(text))); !ok || err != nil {
			t.Errorf("%.40s: not %s: %v", text, want, err)
		}
	}
}

func TestDeploymentExpressions(t *testing.T) {
	d := deployed
	digest := "sha256:" + strings.Repeat("2", 64)
	d.Release.Pins = []ledger.Pin{
		{Artifact: "api", Image: "registry.example:5000/acme/api:2.0.1"},
		{Artifact: "db", Image: "registry.example:5000/acme/db@" + digest},
		{Artifact: "web", Image: "ghcr.io/acme/web:1.4.2@" + digest},
	}
	d.Manifests = "sha256:aa"
	for src, want := range map[string]string{
		`deployment.environment == "staging" && deployment.service == "web" && deployment.cause == "pin"`:              "true",
		`deployment.version == "api 2.0.1, db sha256:222222222222, web 1.4.2"`:                                         "true",
		`deployment.commit == deployment.source && deployment.manifests == "sha256:aa"`:                                "true",
		`deployment.actor == "Dana <dana@example.com>" && deployment.authors == [deployment.actor]`:                    "true",
		`deployment.pins.api.repository == "registry.example:5000/acme/api" && deployment.pins.api.version == "2.0.1"`: "true",
		`deployment.pins.api.digest == "" && deployment.pins.api.image == "registry.example:5000/acme/api:2.0.1"`:      "true",
		`deployment.pins.db.repository == "registry.example:5000/acme/db" && deployment.pins.db.version == ""`:         "true",
		`deployment.pins.web.repository == "ghcr.io/acme/web" && deployment.pins.web.version == "1.4.2"`:               "true",
		`deployment.pins.web.digest == "` + digest + `" && deployment.pins.db.digest == deployment.pins.web.digest`:    "true",
		`deployment.pins.all(name, deployment.pins[name].digest != "")`:                                                "false",
		`size(deployment.pins) == 3 && "web" in deployment.pins && !("x" in deployment.pins)`:                          "true",
		`deployment.pins.x.version == ""`: "error: no such key: x",
		`deployment.pins.web.version.split(".")[0] == "1" && sets.contains(["staging"], [deployment.environment])`: "true",
	} {
		x, err := policy.CompileDeployment(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		ok, err := x.Eval(policy.DeploymentVariables("staging", "web", d))
		got := fmt.Sprint(ok)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", src, got, want)
		}
	}
	// References are taken apart as package desired does it.
	for _, p := range d.Release.Pins {
		img, err := desired.ParseImage(p.Image)
		if err != nil {
			t.Fatal(err)
		}
		x, err := policy.CompileDeployment(fmt.Sprintf(`deployment.pins.%s == policy.pin{image: %q, repository: %q, version: %q, digest: %q}`, p.Artifact, img.Reference, img.Repository, img.Version, img.Digest))
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := x.Eval(policy.DeploymentVariables("staging", "web", d)); !ok || err != nil {
			t.Errorf("%s: %v", p.Image, err)
		}
	}
}

func TestPrometheusExpectations(t *testing.T) {
	for src, want := range map[string]bool{"value < 0.01": false, "value < 1": true, "value >= 0.5 && value <= 0.5": true, "value != value": false} {
		x, err := policy.CompilePrometheus(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if ok, err := x.Eval(policy.PrometheusVariables(0.5)); ok != want || err != nil {
			t.Errorf("%s: %v, %v", src, ok, err)
		}
	}
}

func TestWhatDoesNotCompile(t *testing.T) {
	deployment, http, prometheus := policy.CompileDeployment, policy.CompileHTTP, policy.CompilePrometheus
	for _, test := range []struct {
		compile   func(string) (*policy.Expression, error)
		src, want string
	}{
		{deployment, `deploymnt.version == "1"`, `undeclared reference to 'deploymnt'; did you mean "deployment"?`},
		{deployment, `deployment.pins.web.verson == "1"`, `undefined field 'verson'; did you mean "version"?`},
		{deployment, `artifact.test == "passed"`, `undefined field 'test'; did you mean "tests"?`},
		{deployment, `artifact.created > "2026"`, `found no matching overload for '_>_' applied to '(timestamp, string)'`},
		{deployment, `deployment.version == 1`, `found no matching overload for '_==_' applied to '(string, int)'`},
		{deployment, `deployment.pins.web.version`, `the expression is text, not a boolean; compare it with something`},
		{deployment, `deployment.pins`, `the expression is a mapping, not a boolean; compare it with something`},
		{deployment, `deployment.authors`, `the expression is a list, not a boolean; compare it with something`},
		{deployment, `1`, `the expression is a number, not a boolean; compare it with something`},
		{deployment, `null`, `the expression is null, not a boolean; compare it with something`},
		{deployment, `status == 200`, `undeclared reference to 'status'; known are deployment, `},
		{deployment, `now > timestamp("2026-01-01T00:00:00Z")`, `undeclared reference to 'now'`},
		{deployment, `timestamp("2026-01-01T00:00:00Z").getHours("Europe/Prague") == 1`, `undeclared reference to 'getHours'`},
		{deployment, `deployment.version.matches("(")`, `the text that matches is given does not have the form that it takes`},
		{deployment, `1 +`, `syntax error: it ends too early`},
		{deployment, `deployment.version = "1"`, `syntax error: token recognition error at: '= '`},
		{deployment, ``, `syntax error: it ends too early`},
		{deployment, strings.Repeat("(", 3000) + "true" + strings.Repeat(")", 1000), `expression recursion limit exceeded: 64`},
		{deployment, "true" + strings.Repeat(" && true", 1000), `the expression has 8004 bytes, more than 4096`},
		{deployment, "\xff", `the expression is not UTF-8`},
		{http, `body.ready`, `the expression is of any type, not a boolean; compare it with something: body.ready == true`},
		{http, `statis == 200`, `undeclared reference to 'statis'; did you mean "status"?`},
		{http, `body.a.all(x, body.a.all(y, body.a.all(z, body.a.all(u, u > z))))`, `the expression may take more than 10000000 steps; nest fewer all, exists, map and filter`},
		{prometheus, `value == 0`, `found no matching overload for '_==_' applied to '(double, int)'; write the whole number with a point: 0.0`},
		{prometheus, `vale < 1`, `undeclared reference to 'vale'; did you mean "value"?`},
	} {
		x, err := test.compile(test.src)
		var bad *policy.ExpressionError
		if !errors.As(err, &bad) || len(bad.Faults) == 0 || x != nil {
			t.Errorf("%.60s: %v", test.src, err)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.60s:\n%s, want\n%s", test.src, err, test.want)
		}
	}
}

// An evaluation that takes too long ends with an error, soon: whatever there is
// of what it goes through.
func TestLimitsOfAnEvaluation(t *testing.T) {
	for src, want := range map[string]string{
		`body.all(a, a > 0)`:                             "it goes through more than 5000 elements",
		`body.all(a, body.all(b, a + b > 0))`:            "it goes through more than 5000 elements",
		`body.map(a, string(a)).join("").size() > 0`:     "it goes through more than 5000 elements",
		`body.filter(a, body.exists(b, b == -a)) == []`:  "it goes through more than 5000 elements",
		doubled(40) + `[0].size() > 0`:                   "it takes more than 1000000 steps",
		`[body, body].all(l, sets.contains(l, l + [0]))`: "it takes more than 1000000 steps",
	} {
		x, err := policy.CompileHTTP(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		vars := policy.HTTPVariables(200, nil, []byte("["+strings.Repeat("1,", 100_000)+"1]"))
		began := time.Now()
		ok, err := x.Eval(vars)
		if ok || err == nil || err.Error() != want {
			t.Errorf("%s: %v, %v, want %s", src, ok, err, want)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s took %s", src, took)
		}
	}
}

// doubled is a text that is doubled n times.
func doubled(n int) string { return "['0123456789']" + strings.Repeat(".map(a, a + a)", n) }

func TestNoExpression(t *testing.T) {
	for _, x := range []*policy.Expression{nil, {}} {
		if ok, err := x.Eval(nil); ok || err == nil {
			t.Error("nothing is true")
		}
	}
}

func TestExpressionsAreShared(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				src := fmt.Sprintf("value < %d.0", (i+g)%7)
				x, err := policy.CompilePrometheus(src)
				if err != nil {
					t.Error(err)
					return
				}
				if ok, err := x.Eval(policy.PrometheusVariables(3)); ok != ((i+g)%7 > 3) || err != nil {
					t.Errorf("%s: %v, %v", src, ok, err)
				}
			}
		})
	}
	wg.Wait()
	a, _ := policy.CompilePrometheus("value < 1.0")
	if b, _ := policy.CompilePrometheus("value < 1.0"); a != b {
		t.Error("the same expression is compiled twice")
	}
	for i := range 3000 { // the memory of what was compiled is bounded
		if _, err := policy.CompilePrometheus(fmt.Sprintf("value < %d.5", i)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckExpressions(t *testing.T) {
	head := "apiVersion: pinion.dev/v1\nkind: Policy\n"
	r := read(t, fstest.MapFS{
		"policies/good.yaml":     {Data: []byte(head + "cel: deployment.version == '1'\n")},
		"policies/default.yaml":  {Data: []byte(head + "http: {url: \"http://x\"}\n")},
		"policies/report.yaml":   {Data: []byte(head + "report: {by: [ci]}\n")},
		"policies/plain.yaml":    {Data: []byte(head + "cel: deployment.verson == '1'\n")},
		"policies/quoted.yaml":   {Data: []byte(head + "http: {url: \"http://x\", expect: \"status == 200 && \\\"x\\\" == bdy\"}\n")},
		"policies/block.yaml":    {Data: []byte(head + "cel: |\n  deployment.version == '1' &&\n    deployment.versio == '2'\n")},
		"policies/two.yaml":      {Data: []byte(head + "prometheus: {url: \"http://x\", query: x, expect: vale < othr}\n")},
		"policies/type.yaml":     {Data: []byte(head + "prometheus: {url: \"http://x\", query: x, expect: value + 1.0}\n")},
		"policies/unsound.yaml":  {Data: []byte(head + "cel: 3\n")},
		"policies/umlauts.yaml":  {Data: []byte(head + "cel: \"'äöü' == deploymen.version\"\n")},
		"policies/verylong.yaml": {Data: []byte(head + "cel: '" + strings.Repeat("true && ", 1000) + "true'\n")},
	})
	var got []string
	for _, p := range policy.CheckExpressions(r) {
		got = append(got, p.Error())
		if p.Severity != desired.SeverityError || p.Kind != desired.KindPolicy || p.File != "policies/"+p.Name+".yaml" {
			t.Errorf("%#v", p)
		}
	}
	want := []string{
		`policies/block.yaml:5:16: undefined field 'versio'; did you mean "version"?`,
		`policies/plain.yaml:3:17: undefined field 'verson'; did you mean "version"?`,
		`policies/quoted.yaml:3:60: undeclared reference to 'bdy'; did you mean "body"?`,
		`policies/two.yaml:3:49: undeclared reference to 'vale'; did you mean "value"?`,
		`policies/two.yaml:3:56: undeclared reference to 'othr'; known are value`,
		`policies/type.yaml:3:49: the expression is a number, not a boolean; compare it with something`,
		`policies/umlauts.yaml:3:16: undeclared reference to 'deploymen'; did you mean "deployment"?`,
		`policies/verylong.yaml:3:7: the expression has 8004 bytes, more than 4096; say less in one policy`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if all := policy.CheckExpressions(&desired.Repository{}); len(all) != 0 {
		t.Error(all)
	}
	// One that was read from no file has no better place than its own.
	bare := &desired.Repository{Policies: map[desired.PolicyName]*desired.Policy{"x": {Name: "x", Check: desired.CheckCEL, CEL: "x", Expression: desired.Position{File: "f", Line: 1, Column: 2}}}}
	if all := policy.CheckExpressions(bare); len(all) != 1 || all[0].Position.String() != "f:1:2" {
		t.Error(all)
	}
}

// Whatever is written as an expression, compiling it and evaluating it ends,
// with an answer or with an error.
func FuzzExpression(f *testing.F) {
	for _, src := range []string{
		"status == 200 && body.ready", "deployment.pins.web.version.startsWith('1.')", "value < 0.01", "[1,2].all(x, x > 0)",
		"deployment.pins.all(k, deployment.pins[k].digest != '')", "'%s'.format([body])", "{'a': 1}.a == 1", "b'\\xff' == b''", "body[0][1u].x",
		"deployment.authors.map(a, a.split('@')).exists(a, size(a) > 1)", "policy.facts{version: 'x'}.version == ''", "sets.contains([1], [1])",
		"duration('1s') < duration('2s')", "type(body) == string", "dyn(1) == 1.0", "((((((((true))))))))", "-9223372036854775808 / -1 == 0",
	} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		body := []byte(`{"ready": true, "a": [1, 2.5, null, "x", {"b": []}]}`)
		for _, x := range []struct {
			compile func(string) (*policy.Expression, error)
			vars    map[string]any
		}{
			{policy.CompileDeployment, policy.DeploymentVariables("staging", "web", deployed)},
			{policy.CompileHTTP, policy.HTTPVariables(200, nil, body)},
			{policy.CompilePrometheus, policy.PrometheusVariables(0.5)},
		} {
			compiled, err := x.compile(src)
			if (compiled == nil) == (err == nil) {
				t.Fatalf("neither an expression nor an error, or both: %v", err)
			}
			if compiled == nil {
				continue
			}
			ok, err := compiled.Eval(x.vars)
			if ok && err != nil {
				t.Fatalf("true, and an error: %v", err)
			}
		}
	})
}

func TestArtifactExpressions(t *testing.T) {
	r := artifact.Record{Repository: "ghcr.io/acme/web", Version: "1.4.2", Digest: "sha256:" + strings.Repeat("2", 64), Origin: artifact.FromPublisher, By: "ci",
		Facts: artifact.Facts{Commit: "4f1c2aa", Branch: "main", Tests: artifact.Passed}, Found: time.Date(2026, 11, 19, 10, 0, 0, 0, time.UTC)}
	for src, want := range map[string]string{
		`artifact.name == "web" && artifact.repository == "ghcr.io/acme/web" && artifact.version == "1.4.2" && artifact.digest.startsWith("sha256:22")`: "true",
		`artifact.commit == "4f1c2aa" && artifact.branch == "main" && artifact.tests == "passed" && artifact.publisher == "ci"`:                         "true",
		`artifact.origin == "publisher" && artifact.found == timestamp("2026-11-19T10:00:00Z") && !artifact.moved`:                                      "true",
		`artifact.tests == "failed"`:                                      "false",
		`artifact.quality == "passed"`:                                    "error: nothing is known of artifact.quality",
		`artifact.quality != "failed" && artifact.build != ""`:            "error: nothing is known of artifact.build, artifact.quality",
		`artifact.quality == "passed" || artifact.branch == "main"`:       "true",
		`artifact.quality == "passed" && artifact.branch == "fix"`:        "false",
		`"release" in artifact.signed`:                                    "error: nothing is known of artifact.signed",
		`artifact.created > timestamp("2026-01-01T00:00:00Z")`:            "error: nothing is known of artifact.created",
		`[artifact].all(a, a.tests == "passed") && artifact.branch != ""`: "error: nothing is known of artifact", // as a whole
		`deployment.pins[artifact.name].version == artifact.version`:      "true",
	} {
		x, err := policy.CompileDeployment(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if !x.Mentions("artifact") {
			t.Errorf("%s does not mention it", src)
		}
		vars := policy.DeploymentVariables("staging", "web", deployed)
		var unsaid []string
		vars["artifact"], unsaid = policy.ArtifactVariables("web", r, nil)
		ok, err := x.EvalWithout(vars, "artifact", unsaid)
		got := fmt.Sprint(ok)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", src, got, want)
		}
	}
}
