package policy_test

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

var update = flag.Bool("update", false, "rewrite what the tests want to what they get")

// scene is what a case begins with. Commits are written c1, c2, … in their
// order on main; a time of day is one of the day of now.
type scene struct {
	Now     string                `json:"now"`
	Verify  string                `json:"verify,omitempty"`  // an environment
	Admit   string                `json:"admit,omitempty"`   // an environment
	Fall    string                `json:"fall,omitempty"`    // an environment
	Health  *health               `json:"health,omitempty"`  // nil: not known
	Forced  string                `json:"forced,omitempty"`  // version, or version@source
	Unknown []string              `json:"unknown,omitempty"` // environments without a record
	Files   map[string]string     `json:"files,omitempty"`   // what the environments' files say, if not what their records do
	Records map[string]recordText `json:"records"`
	// Unrecorded is a commit of main that the record does not tell of.
	Unrecorded string `json:"unrecorded,omitempty"`
	// Known are the versions of web that are known: "1.4.3", or with what is known
	// besides, "1.4.3 branch=main by=ci moved".
	Known []string `json:"known,omitempty"`
}

type health struct {
	Bad   string `json:"bad,omitempty"`
	Since string `json:"since,omitempty"`
}

type recordText struct {
	Deployments []deploymentText `json:"deployments,omitempty"` // newest first
	Refused     []refusalText    `json:"refused,omitempty"`
	Candidate   *candidateText   `json:"candidate,omitempty"`
	Retired     string           `json:"retired,omitempty"`
}

type deploymentText struct {
	Commit    string            `json:"commit"`
	Version   string            `json:"version"`          // or several: "web 1, api 2"
	Source    string            `json:"source,omitempty"` // default: the commit
	State     string            `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	Cause     string            `json:"cause,omitempty"` // default: pin
	Actor     string            `json:"actor,omitempty"`
	Authors   []string          `json:"authors,omitempty"`
	Manifests string            `json:"manifests,omitempty"`
	At        string            `json:"at,omitempty"` // of its last state
	Completed string            `json:"completed,omitempty"`
	Never     bool              `json:"never,omitempty"`  // it never started
	Checks    map[string]string `json:"checks,omitempty"` // "success ci https://ci.example/5"
	Approvals []approvalText    `json:"approvals,omitempty"`
}

type refusalText struct {
	Version, Source, Reason, At string
}

type candidateText struct {
	Version   string            `json:"version"`
	Source    string            `json:"source"`
	Offered   string            `json:"offered"`
	Authors   []string          `json:"authors,omitempty"`
	Checks    map[string]string `json:"checks,omitempty"`
	Approvals []approvalText    `json:"approvals,omitempty"`
}

type approvalText struct {
	Policy string   `json:"policy"`
	By     string   `json:"by"`
	Email  string   `json:"email,omitempty"`
	Groups []string `json:"groups,omitempty"`
	At     string   `json:"at,omitempty"`
}

const commits = 20

// commit returns the id of the commit that a case calls c1, c2, ….
func commit(name string) string {
	if name == "" {
		return ""
	}
	var n int
	if _, err := fmt.Sscanf(name, "c%d", &n); err != nil || n < 1 || n > commits {
		panic("not a commit: " + name)
	}
	return strings.Repeat(fmt.Sprintf("%02dc0ffee", n), 5)
}

// brief writes commits as the cases do.
func brief(text string) string {
	for n := 1; n <= commits; n++ {
		c := fmt.Sprintf("c%d", n)
		text = strings.ReplaceAll(text, commit(c), c)
		text = strings.ReplaceAll(text, commit(c)[:12], c)
	}
	return text
}

func older(c, than string) bool {
	order := func(id string) int {
		for n := 1; n <= commits; n++ {
			if commit(fmt.Sprintf("c%d", n)) == id {
				return n
			}
		}
		return 0
	}
	return order(c) < order(than)
}

func release(version, source string) ledger.Release {
	r := ledger.Release{Source: commit(source)}
	for part := range strings.SplitSeq(version, ",") {
		artifact, v, several := strings.Cut(strings.TrimSpace(part), " ")
		if !several {
			artifact, v = "web", artifact
		}
		if version != "" {
			r.Pins = append(r.Pins, ledger.Pin{Artifact: desired.ArtifactName(artifact), Image: "ghcr.io/acme/" + artifact + ":" + v})
		}
	}
	slices.SortFunc(r.Pins, func(a, b ledger.Pin) int { return cmp.Compare(a.Artifact, b.Artifact) })
	return r
}

type clock struct {
	t   testing.TB
	now time.Time
}

func (c clock) read(text string) time.Time {
	c.t.Helper()
	if text == "" {
		return time.Time{}
	}
	for _, layout := range []string{time.RFC3339, "15:04:05", "15:04"} {
		if at, err := time.Parse(layout, text); err == nil {
			if layout != time.RFC3339 {
				y, m, d := c.now.Date()
				at = time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
			}
			return at
		}
	}
	c.t.Fatalf("not a time: %s", text)
	return time.Time{}
}

func (c clock) checks(texts map[string]string) []ledger.Check {
	var checks []ledger.Check
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		words := strings.SplitN(texts[name], " ", 4)
		by, groups, grouped := strings.Cut(words[1], "@") // "ci-7@ci,builders"
		x := ledger.Check{Policy: desired.PolicyName(name), Result: ledger.Result(words[0]), By: by, Time: c.now.Add(-time.Minute)}
		if grouped {
			x.Groups = strings.Split(groups, ",")
		}
		if len(words) > 2 && words[2] != "-" {
			x.URL = words[2]
		}
		if len(words) > 3 {
			x.Description = words[3]
		}
		checks = append(checks, x)
	}
	return checks
}

func (c clock) approvals(texts []approvalText) []ledger.Approval {
	var all []ledger.Approval
	for _, a := range texts {
		all = append(all, ledger.Approval{Policy: desired.PolicyName(cmp.Or(a.Policy, "approval")), By: a.By, Email: a.Email, Groups: a.Groups, Time: c.read(cmp.Or(a.At, "00:00"))})
	}
	return all
}

func persons(texts []string) []ledger.Person {
	var all []ledger.Person
	for _, s := range texts {
		all = append(all, ledger.ParsePerson(s))
	}
	return all
}

func (c clock) deployment(text deploymentText) ledger.Deployment {
	at := c.read(text.At)
	d := ledger.Deployment{
		ID:        ledger.DeploymentID("web", commit(text.Commit)),
		Commit:    commit(text.Commit),
		Release:   release(text.Version, cmp.Or(text.Source, text.Commit)),
		Manifests: text.Manifests,
		State:     ledger.State(text.State),
		Reason:    text.Reason,
		Cause:     ledger.Cause(cmp.Or(text.Cause, "pin")),
		Authors:   persons(text.Authors),
		Checks:    c.checks(text.Checks),
		Approvals: c.approvals(text.Approvals),
		Pinned:    at,
		Started:   at,
	}
	if text.Actor != "" {
		d.Actor = ledger.ParsePerson(text.Actor)
	}
	if d.State == ledger.StatePinned || text.Never {
		d.Started = time.Time{}
	}
	if d.State == ledger.StateCompleted || d.State == ledger.StateVerified {
		d.Completed = at
	}
	if text.Completed != "" {
		d.Completed = c.read(text.Completed)
	}
	if d.State.Final() {
		d.Ended = at
	}
	return d
}

func (c clock) record(env string, text recordText) ledger.Record {
	r := ledger.Record{Environment: desired.EnvironmentName(env), Service: "web", Retired: c.read(text.Retired)}
	for i, d := range text.Deployments {
		x := c.deployment(d)
		past := ledger.Past{ID: x.ID, Commit: x.Commit, Release: x.Release, Manifests: x.Manifests, State: x.State, Authors: x.Authors, Started: x.Started, Ended: x.Ended}
		if i == 0 {
			r.Deployment = x
		} else {
			r.Previous = append(r.Previous, past)
		}
		if x.State == ledger.StateVerified && r.Verified == nil {
			r.Verified = &past
		}
	}
	for _, f := range text.Refused {
		r.Refused = append(r.Refused, ledger.Refusal{Release: release(f.Version, f.Source), Reason: f.Reason, Time: c.read(f.At)})
	}
	if x := text.Candidate; x != nil {
		r.Candidate = &ledger.Candidate{Release: release(x.Version, x.Source), From: []string{"staging@old"}, Authors: persons(x.Authors), Offered: c.read(x.Offered), Checks: c.checks(x.Checks), Approvals: c.approvals(x.Approvals)}
	}
	return r
}

// environment writes the file of an environment that has a release.
func environment(name string, r ledger.Release) string {
	text := "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: " + name + "\n"
	if len(r.Pins) > 0 {
		text += "pins:\n"
	}
	for _, p := range r.Pins {
		text += fmt.Sprintf("  %s:\n    image: %s\n", p.Artifact, p.Image)
	}
	if r.Source != "" {
		text += "manifests:\n  web: " + r.Source + "\n"
	}
	return text
}

func locations(t testing.TB) map[string]*time.Location {
	all := map[string]*time.Location{}
	for _, name := range []string{"UTC", "Europe/Prague", "America/New_York"} {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = loc
	}
	return all
}

func read(t testing.TB, tree fstest.MapFS) *desired.Repository {
	t.Helper()
	r, err := desired.Read(desired.Hashed(tree), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files returns the tree that all cases begin with.
func files(t testing.TB) fstest.MapFS {
	tree := fstest.MapFS{}
	archive, err := txtar.ParseFile("testdata/tree.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		tree[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	return tree
}

// A case is a scene, files that are added to the tree or replace one (or, if
// empty, are taken away), and what is wanted. Text before the first file says
// what the case shows.
func TestCases(t *testing.T) {
	names, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(names) < 40 {
		t.Fatalf("only %d cases: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(name, "testdata/"), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Comment) == 0 {
				t.Error("the case does not say what it shows")
			}
			tree, want := files(t), ""
			var s scene
			out := &txtar.Archive{Comment: archive.Comment}
			for _, f := range archive.Files {
				switch f.Name {
				case "want":
					want = string(f.Data)
					continue
				case "scene":
					if err := yaml.UnmarshalStrict(f.Data, &s); err != nil {
						t.Fatal(err)
					}
				default:
					tree[f.Name] = &fstest.MapFile{Data: f.Data}
					if len(f.Data) == 0 {
						delete(tree, f.Name)
					}
				}
				out.Files = append(out.Files, f)
			}
			got := brief(s.play(t, tree))
			if *update {
				out.Files = append(out.Files, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(out), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// world makes of a scene what is judged from.
func (s scene) world(t testing.TB, tree fstest.MapFS) (time.Time, policy.Rules, map[desired.EnvironmentName]ledger.Record) {
	now, err := time.Parse(time.RFC3339, s.Now)
	if err != nil {
		t.Fatal(err)
	}
	c := clock{t, now}
	records := map[desired.EnvironmentName]ledger.Record{}
	for _, name := range []string{"dev", "qa", "staging", "production"} {
		text, ok := s.Records[name]
		r := c.record(name, text)
		if !ok {
			r = ledger.Record{}
		}
		if !slices.Contains(s.Unknown, name) {
			records[desired.EnvironmentName(name)] = r
		}
		has := r.Deployment.Release
		if !r.Retired.IsZero() {
			has = ledger.Release{}
		}
		if said, ok := s.Files[name]; ok {
			version, source, _ := strings.Cut(said, "@")
			has = release(version, source)
		}
		if path := "environments/" + name + ".yaml"; tree[path] == nil {
			tree[path] = &fstest.MapFile{Data: []byte(environment(name, has))}
		}
	}
	return now, policy.Rules{Commit: commit("c20"), Repository: read(t, tree), PipelineBlob: "b10b"}, records
}

func (s scene) play(t testing.TB, tree fstest.MapFS) string {
	now, rules, records := s.world(t, tree)
	c := clock{t, now}
	h := policy.Health{}
	if s.Health != nil {
		h = policy.Health{Known: true, Healthy: s.Health.Bad == "", Message: s.Health.Bad, Since: c.read(s.Health.Since)}
	}
	switch {
	case s.Verify != "":
		return verification(policy.Verify(policy.Verification{Now: now, Record: records[desired.EnvironmentName(s.Verify)], Rules: rules, Health: h, Locations: locations(t), Shelf: s.shelf(t, now)}))
	case s.Admit != "":
		return decision(policy.Admit(s.admission(t, now, rules, records)))
	case s.Fall != "":
		retreats, why := policy.Fall(now, records[desired.EnvironmentName(s.Fall)], rules, records)
		return fallen(retreats, why)
	}
	t.Fatal("the scene says neither verify nor admit nor fall")
	return ""
}

func (s scene) admission(t testing.TB, now time.Time, rules policy.Rules, records map[desired.EnvironmentName]ledger.Record) policy.Admission {
	env := desired.EnvironmentName(s.Admit)
	a := policy.Admission{
		Now: now, Service: "web", Environment: env, Rules: rules, Target: records[env],
		Before: map[desired.EnvironmentName]ledger.Record{}, Entries: map[desired.EnvironmentName]string{},
		Older: older, Locations: locations(t), Unrecorded: s.Unrecorded,
	}
	if d, ok := rules.Repository.Deployment(env, "web"); ok {
		a.Pinned = &d
	}
	for name, r := range records {
		if name != env {
			a.Before[name], a.Entries[name] = r, "entry-of-"+string(name)
		}
	}
	a.Shelf = s.shelf(t, now)
	if s.Forced != "" {
		version, source, _ := strings.Cut(s.Forced, "@")
		x := release(version, source)
		a.Forced = &x
	}
	return a
}

func (s scene) shelf(t testing.TB, now time.Time) *artifact.Shelf {
	var all []artifact.Record
	for i, text := range s.Known {
		words := strings.Fields(text)
		x := artifact.Sighting{Repository: "ghcr.io/acme/web", Version: words[0], Digest: fmt.Sprintf("sha256:%064d", i+1), Origin: artifact.FromRegistry, Time: now.Add(-time.Hour)}
		moved := false
		for _, w := range words[1:] {
			switch key, value, _ := strings.Cut(w, "="); key {
			case "branch":
				x.Branch = value
			case "tests":
				x.Tests = artifact.Result(value)
			case "build":
				x.Build = value
			case "by":
				x.Origin, x.By = artifact.FromPublisher, value
			case "moved":
				moved = true
			default:
				t.Fatalf("known has %q", w)
			}
		}
		taken, err := (*artifact.Shelf)(nil).Take(x)
		if err == nil && moved {
			x.Digest = fmt.Sprintf("sha256:%064d", 1000)
			taken, err = (&artifact.Shelf{}).With("", taken.Record).Take(x)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, taken.Record)
	}
	return (&artifact.Shelf{}).With("entry-of-artifacts", all...)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func line(b *strings.Builder, key, value string) {
	if value != "" {
		fmt.Fprintf(b, "%s: %s\n", key, value)
	}
}

func writeVerdicts(b *strings.Builder, all []policy.Verdict) {
	for _, v := range all {
		fmt.Fprintf(b, "%s %s: %s\n", v.Outcome, v.Gate, v.Reason)
		for _, x := range []struct{ key, value string }{{"needs", v.Needs}, {"since", moment(v.Since)}, {"opens", moment(v.Opens)}, {"deadline", moment(v.Deadline)}} {
			if x.value != "" {
				fmt.Fprintf(b, "    %s: %s\n", x.key, x.value)
			}
		}
	}
}

func names[N ~string](all []N) string {
	texts := make([]string, len(all))
	for i, n := range all {
		texts[i] = string(n)
	}
	return strings.Join(texts, " ")
}

func writeChecks(b *strings.Builder, all []ledger.Check) {
	for _, c := range all {
		fmt.Fprintf(b, "check: %s\n", strings.TrimSpace(strings.Join([]string{string(c.Policy), string(c.Result), c.By, c.URL, c.Description}, " ")))
	}
}

func verification(j policy.Judgement) string {
	var b strings.Builder
	line(&b, "state", string(j.State))
	line(&b, "reason", j.Reason)
	writeVerdicts(&b, j.Verdicts)
	writeChecks(&b, j.Checks)
	line(&b, "run", names(j.Run))
	line(&b, "wake", moment(j.Wake))
	return b.String()
}

func decision(d policy.Decision) string {
	var b strings.Builder
	word := string(d.Move)
	if d.Supersedes {
		word += " (supersedes)"
	}
	if d.Failed {
		word += " (failed)"
	}
	line(&b, "move", word)
	line(&b, "reason", d.Reason)
	if c := d.Candidate; c != nil {
		text := fmt.Sprintf("%s of %s from %s", c.Release.Version(), c.Release.Source, strings.Join(c.From, ", "))
		for _, p := range c.Authors {
			text += ", chosen by " + p.String()
		}
		line(&b, "candidate", text)
	}
	writeVerdicts(&b, d.Verdicts)
	if p := d.Promotion; p != nil {
		fmt.Fprintf(&b, "promotion: %s → %s of %s, manifests %v, from %s, by %s\n", p.Before, p.Release.Version(), p.Release.Source, p.Manifests, strings.Join(p.From, ", "), p.Pipeline)
		line(&b, "evidence", p.Evidence)
		writeChecks(&b, p.Checks)
	}
	line(&b, "run", names(d.Run))
	line(&b, "wake", moment(d.Wake))
	return b.String()
}

func fallen(retreats []policy.Retreat, why string) string {
	var b strings.Builder
	for _, r := range retreats {
		fmt.Fprintf(&b, "%s: %s → %s of %s, manifests %v\n    %s\n", r.Environment, r.Before, r.To.Version(), r.To.Source, r.Manifests, r.Reason)
	}
	line(&b, "why not", why)
	return b.String()
}
