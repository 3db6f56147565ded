package health_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/util/json"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/health"
)

func decode(raw []byte) (map[string]any, error) {
	var o map[string]any
	return o, json.Unmarshal(raw, &o)
}

// tree is files whose ids are their contents.
type tree struct{ fstest.MapFS }

func (t tree) ID(name string) (string, error) {
	if f, ok := t.MapFS[name]; ok {
		return fmt.Sprintf("%x", f.Data), nil
	}
	return name, nil
}

// read reads a service with health rules, given as they are in its file.
func read(t *testing.T, rules string) *desired.Repository {
	t.Helper()
	repo, err := desired.Read(tree{fstest.MapFS{
		"environments/dev.yaml":     {Data: []byte("apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: dev\n")},
		"services/web/service.yaml": {Data: []byte("apiVersion: pinion.dev/v1\nkind: Service\nartifacts: []\nhealth:\n" + rules)},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func rulesOf(t *testing.T, rules string) *health.Rules {
	t.Helper()
	repo := read(t, rules)
	for _, p := range repo.Problems {
		t.Fatal(p)
	}
	compiled, err := health.Compile(repo.Services["web"].Health)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func TestRules(t *testing.T) {
	const database = "apiVersion: db.example.com/v1\nkind: Database\nmetadata: {name: a, generation: 2}\n"
	for _, test := range []struct{ name, rule, object, want string }{
		{"true", `current: object.status.phase == 'Ready'`, database + "status: {phase: Ready}", "# Current"},
		{"false", `current: object.status.phase == 'Ready'`, database + "status: {phase: Creating, message: a volume is made}",
			"# InProgress the health rule is not satisfied: object.status.phase == 'Ready' (Creating: a volume is made)"},
		{"a condition says why", `current: object.status.phase == 'Ready'`, database + "status: {phase: x, conditions: [{type: Ready, status: 'False', reason: NoQuota, message: no more}]}",
			"# InProgress the health rule is not satisfied: object.status.phase == 'Ready' (Ready is False: NoQuota: no more)"},
		{"no status yet", `current: object.status.phase == 'Ready'`, database,
			"# InProgress the health rule's current, object.status.phase == 'Ready', has no answer: no such key: status"},
		{"no field yet", `current: object.status.phase == 'Ready'`, database + "status: {}",
			"# InProgress the health rule's current, object.status.phase == 'Ready', has no answer: no such key: phase"},
		{"another type", `current: object.status.ready > 1`, database + "status: {ready: yes please}",
			"# InProgress the health rule's current, object.status.ready > 1, has no answer: no such overload"},
		{"has", `current: has(object.status.phase) && object.status.phase == 'Ready'`, database + "status: {}",
			"# InProgress the health rule is not satisfied: has(object.status.phase) && object.status.phase == 'Ready'"},
		{"optional", `current: object.?status.?phase.orValue('') == 'Ready'`, database,
			"# InProgress the health rule is not satisfied: object.?status.?phase.orValue('') == 'Ready'"},
		{"optional and there", `current: object.?status.?phase.orValue('') == 'Ready'`, database + "status: {phase: Ready}", "# Current"},
		{"failed first", "current: 'true'\n  failed: object.status.phase == 'Broken'", database + "status: {phase: Broken}",
			"# Failed the health rule says that it has failed: object.status.phase == 'Broken' (Broken)"},
		{"an error of failed is not healthy", "current: 'true'\n  failed: object.status.error != ''", database + "status: {phase: Ready}",
			"# InProgress the health rule's failed, object.status.error != '', has no answer: no such key: error"},
		{"on its way before current", "current: 'true'\n  inProgress: object.status.observedGeneration < object.metadata.generation", database + "status: {observedGeneration: 1}",
			"# InProgress the health rule says that it is on its way: object.status.observedGeneration < object.metadata.generation"},
		{"lists", `current: object.status.conditions.exists(c, c.type == 'Up' && c.status == 'True')`, database + "status: {conditions: [{type: Up, status: 'True'}]}", "# Current"},
		{"it goes before kstatus", `current: object.status.phase == 'Ready'`, database + "status: {phase: Ready, observedGeneration: 1, conditions: [{type: Ready, status: 'False'}]}", "# Current"},
		{"but not before a deletion", `current: 'true'`, strings.Replace(database, "name: a", "name: a, deletionTimestamp: '2026-01-01T00:00:00Z'", 1), "# Terminating it is being deleted"},
		{"another version", `current: 'true'`, strings.Replace(database, "/v1", "/v2", 1),
			"# InProgress the API server shows it in version v2, and the service's health rule is for v1; write the rule for v2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			rules := rulesOf(t, "- apiVersion: db.example.com/v1\n  kind: Database\n  "+test.rule+"\n")
			if got := describe(health.Of(objectOf(t, []byte(test.object)), rules.For("Database.db.example.com"), health.Fact{})); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// A rule of a service goes before what is known of a kind.
func TestRuleBeforeBuiltIn(t *testing.T) {
	job := objectOf(t, []byte("apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nstatus: {active: 1, startTime: '2026-01-01T00:00:00Z'}\n"))
	rules := rulesOf(t, "- apiVersion: batch/v1\n  kind: Job\n  current: object.?status.active.orValue(0) > 0\n")
	if got := describe(health.Of(job, nil, health.Fact{})); got != "# InProgress it runs (active: 1)" {
		t.Error(got)
	}
	if got := describe(health.Of(job, rules.For("Job.batch"), health.Fact{})); got != "# Current" {
		t.Error(got)
	}
}

// A rule that can't end in time does not end the process, nor is it healthy.
func TestRuleIsBounded(t *testing.T) {
	var items []string
	for i := range 3000 {
		items = append(items, fmt.Sprint(i))
	}
	o := objectOf(t, []byte("apiVersion: db.example.com/v1\nkind: Database\nstatus: {items: ["+strings.Join(items, ",")+"]}\n"))
	rules := rulesOf(t, "- {apiVersion: db.example.com/v1, kind: Database, current: \"object.status.items.all(x, x >= 0)\"}\n")
	got := describe(health.Of(o, rules.For("Database.db.example.com"), health.Fact{}))
	if !strings.HasPrefix(got, "# InProgress") || !strings.Contains(got, "it goes through more than 2000 elements") {
		t.Error(got)
	}
}

func TestMistakesHavePlaces(t *testing.T) {
	for _, test := range []struct{ name, rules, want string }{
		{"unknown name", "- apiVersion: db.example.com/v1\n  kind: Database\n  current: objct.status.ready == true\n",
			`services/web/service.yaml:7:12: health: undeclared reference to 'objct'; did you mean "object"?`},
		{"syntax", "- apiVersion: db.example.com/v1\n  kind: Database\n  current: object.status.phase ==\n",
			`services/web/service.yaml:7:34: health: syntax error: it ends too early`},
		{"type", "- apiVersion: db.example.com/v1\n  kind: Database\n  current: object.status.ready\n",
			`services/web/service.yaml:7:12: health: the expression is of any type, not a boolean; compare it with something: object.status.ready == true`},
		{"failed", "- apiVersion: db.example.com/v1\n  kind: Database\n  current: 'true'\n  failed: \"1 + 1\"\n",
			`services/web/service.yaml:8:12: health: the expression is a number, not a boolean; compare it with something`},
		{"block", "- apiVersion: db.example.com/v1\n  kind: Database\n  current: |\n    object.status.ready == true &&\n    objekt.x == 1\n",
			`services/web/service.yaml:9:5: health: undeclared reference to 'objekt'; did you mean "object"?`},
		{"too dear", "- apiVersion: db.example.com/v1\n  kind: Database\n  current: object.a.all(a, object.a.all(b, object.a.all(c, object.a.all(d, a == b))))\n",
			`services/web/service.yaml:7:12: health: the expression may take more than 2000000 steps; nest fewer all, exists, map and filter`},
	} {
		t.Run(test.name, func(t *testing.T) {
			repo := read(t, test.rules)
			problems := append(repo.Problems, health.Check(repo)...)
			var got []string
			for _, p := range problems {
				got = append(got, p.Error())
			}
			if strings.Join(got, "\n") != test.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), test.want)
			}
			if _, err := health.Compile(repo.Services["web"].Health); err == nil || err.Error() != test.want {
				t.Errorf("compiled: %v", err)
			}
		})
	}
}
