package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// writtenEntry is an entry as a test writes it down.
type writtenEntry struct {
	Time      time.Time               `json:"time"`
	Event     ledger.Event            `json:"event"`
	In        desired.EnvironmentName `json:"in"`
	Service   desired.ServiceName     `json:"service"`
	Version   string                  `json:"version"` // of the only artifact, which has the service's name
	Commit    string                  `json:"commit"`  // a revision
	Cause     ledger.Cause            `json:"cause"`
	From      desired.EnvironmentName `json:"from"`
	By        string                  `json:"by"`
	Reason    string                  `json:"reason"`
	Check     *ledger.Check           `json:"check"`
	Checks    []ledger.Check          `json:"checks"`
	Approval  *ledger.Approval        `json:"approval"`
	Candidate bool                    `json:"candidate"`
	Late      bool                    `json:"late"`
}

// writeLedgers writes entries onto the ledger branches of a repository, as the
// daemon would: ledgers REPOSITORY FILE.
func writeLedgers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ledgers REPOSITORY FILE")
	}
	var entries []writtenEntry
	ts.Check(yaml.UnmarshalStrict([]byte(ts.ReadFile(args[1])), &entries))
	dir := ts.MkAbs(args[0])
	git := func(in string, args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			ts.Fatalf("git %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	for _, w := range entries {
		branch := "refs/heads/" + ledger.Branch(w.In)
		var r ledger.Record
		has := exec.Command("git", "-C", dir, "rev-parse", "-q", "--verify", branch).Run() == nil
		if file := ledger.RecordFile(w.Service); has && git("", "ls-tree", branch, file) != "" {
			var err error
			r, err = ledger.DecodeRecord(file, []byte(git("", "show", branch+":"+file)+"\n"))
			ts.Check(err)
		}
		e := w.entry(r)
		if len(w.Commit) == 40 {
			e.Commit = w.Commit
		} else if w.Commit != "" {
			e.Commit = git("", "rev-parse", w.Commit+"^{commit}")
		}
		if w.Event == ledger.EventPinned {
			e.Deployment = ledger.DeploymentID(e.Service, e.Commit)
		}
		if w.From != "" {
			e.From = []string{string(w.From) + "@" + git("", "rev-parse", ledger.Branch(w.From))}
		}
		next, err := r.Apply(e)
		ts.Check(err)
		var b bytes.Buffer
		importEntry(&b, e, next, has)
		git(b.String(), "fast-import", "--quiet")
	}
}

func (w writtenEntry) entry(r ledger.Record) ledger.Entry {
	e := ledger.Entry{Event: w.Event, Environment: w.In, Service: w.Service, Time: w.Time, Candidate: w.Candidate, Late: w.Late,
		Cause: w.Cause, Reason: w.Reason, Checks: w.Checks, Approval: w.Approval}
	d := r.Deployment
	if !w.Candidate {
		e.Deployment, e.Commit, e.Release = d.ID, d.Commit, d.Release
	}
	if w.Version != "" {
		e.Release = ledger.Release{Pins: []ledger.Pin{{Artifact: desired.ArtifactName(w.Service), Image: "registry.example/" + string(w.Service) + ":" + w.Version}}}
	}
	switch {
	case w.Event == ledger.EventPinned || w.Candidate:
		e.Before = d.Release.Version()
	case len(r.Previous) > 0:
		e.Before = r.Previous[0].Release.Version()
	}
	if w.Event == ledger.EventStarted {
		e.Manifests = "sha256:" + strings.Repeat("0", 64)
	}
	if w.By != "" {
		e.Actor = ledger.ParsePerson(w.By)
		e.Authors = []ledger.Person{e.Actor}
	}
	if w.Check != nil {
		e.Checks = []ledger.Check{*w.Check}
	}
	return e
}

// importEntry writes an entry for git fast-import; after says that it is the
// first one there, and that the ledger has others already.
func importEntry(b *bytes.Buffer, e ledger.Entry, r ledger.Record, after bool) {
	branch, message, record := "refs/heads/"+ledger.Branch(e.Environment), e.Message(), r.Encode()
	fmt.Fprintf(b, "commit %s\ncommitter Pinion <pinion@shop.example> %d +0000\ndata %d\n%s\n", branch, e.Time.Unix(), len(message), message)
	if after {
		fmt.Fprintf(b, "from %s^0\n", branch)
	}
	fmt.Fprintf(b, "M 100644 inline %s\ndata %d\n%s\n", ledger.RecordFile(e.Service), len(record), record)
}

// BenchmarkLookBack runs the commands that look back on a clone with ledgers of
// 20 environments and, together, 100,000 entries.
func BenchmarkLookBack(b *testing.B) {
	const environments, services, entries = 20, 10, 100_000
	dir := b.TempDir()
	git := func(in *bytes.Buffer, args ...string) {
		b.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
		if in != nil {
			cmd.Stdin = in
		}
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git(nil, "init", "-q", "--initial-branch=main")
	in := new(bytes.Buffer)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	inFile := func(name, format string, args ...any) {
		text := fmt.Sprintf("apiVersion: pinion.dev/v1\n"+format, args...)
		fmt.Fprintf(in, "M 100644 inline %s\ndata %d\n%s\n", name, len(text), text)
	}
	last := entries/environments/services/4 - 1
	fmt.Fprintf(in, "commit refs/heads/main\ncommitter Dana <dana@shop.example> %d +0000\ndata 8\nThe shop\n", start.Unix())
	stages := ""
	for i := range environments {
		pins := ""
		for s := range services {
			pins += fmt.Sprintf("  svc%d:\n    image: registry.example/svc%d:1.%d.0\n", s, s, last)
		}
		inFile(fmt.Sprintf("environments/env%02d.yaml", i), "kind: Environment\nnamespace: shop-%d\npins:\n%s", i, pins)
		stages += fmt.Sprintf("- environment: env%02d\n", i)
	}
	for s := range services {
		inFile(fmt.Sprintf("services/svc%d/service.yaml", s), "kind: Service\n")
	}
	inFile("pipelines/default.yaml", "kind: Pipeline\nservices: [\"*\"]\nstages:\n%s", stages)
	git(in, "fast-import", "--quiet")
	out, err := exec.Command("git", "-C", dir, "rev-parse", "main").Output()
	if err != nil {
		b.Fatal(err)
	}
	main := strings.TrimSpace(string(out))
	for i := range environments {
		in = new(bytes.Buffer)
		records := make([]ledger.Record, services)
		at := start
		for n := range last + 1 {
			for s := range services {
				commit := fmt.Sprintf("%06x%06x%028x", s+1, n+1, i)
				if n == last {
					commit = main
				}
				w := writtenEntry{In: desired.EnvironmentName(fmt.Sprintf("env%02d", i)), Service: desired.ServiceName(fmt.Sprintf("svc%d", s)), By: "Dana <dana@shop.example>", Reason: "All objects are as the commit wants them, and healthy."}
				for _, event := range []ledger.Event{ledger.EventPinned, ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified} {
					at = at.Add(time.Minute)
					w.Event, w.Time, w.Cause, w.Version = event, at, "", ""
					if event == ledger.EventPinned {
						w.Cause, w.Version = ledger.CausePin, fmt.Sprintf("1.%d.0", n)
					}
					e := w.entry(records[s])
					if event == ledger.EventPinned {
						e.Commit, e.Deployment = commit, ledger.DeploymentID(e.Service, commit)
					}
					if records[s], err = records[s].Apply(e); err != nil {
						b.Fatal(err)
					}
					importEntry(in, e, records[s], false)
				}
			}
		}
		git(in, "fast-import", "--quiet")
	}
	git(nil, "repack", "-adq")
	git(nil, "checkout", "-q", "main")
	if keep := os.Getenv("PINION_BENCH_KEEP"); keep != "" {
		git(nil, "clone", "-q", "--mirror", dir, keep)
	}
	for _, args := range []string{"git log -1 ledger/env07", "pinion version", "pinion log env07", "pinion log env07 svc3", "pinion status", "pinion status env07", "pinion status env07 svc3", "pinion where svc3", "pinion where svc3 1.120.0", "pinion why env07 svc3"} {
		b.Run(args, func(b *testing.B) {
			for b.Loop() {
				f := strings.Fields(args)
				cmd := exec.Command(f[0], f[1:]...)
				if f[0] == "pinion" {
					cmd = pinionCommand(f[1:]...)
				}
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
			}
		})
	}
}
