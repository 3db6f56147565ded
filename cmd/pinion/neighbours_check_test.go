package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
)

// onBranch is a commit of a branch.
type onBranch struct{ id, message string }

// since are the commits of a branch that came after another one, oldest first.
func (x *neighbours) since(from, branch string) []onBranch {
	x.Helper()
	var all []onBranch
	if from != "" {
		branch = from + ".." + branch
	}
	for text := range strings.SplitSeq(x.bare("log", "--reverse", "--topo-order", "--format=%H%x00%B%x01", branch), "\x01") {
		if id, message, ok := strings.Cut(strings.TrimSpace(text), "\x00"); ok {
			all = append(all, onBranch{id, message})
		}
	}
	return all
}

// check waits until all is told, and holds what there is to what was promised.
func (x *neighbours) check() {
	x.Helper()
	tips := map[string]string{}
	x.until("all is told, and nothing moves", seldom(func() string {
		now := x.tips()
		if !maps.Equal(now, tips) {
			tips = now
			return "the branches move"
		}
		for _, env := range stages {
			if why := x.told(env); why != "" {
				return why
			}
		}
		return ""
	}))
	x.writes()
	for _, env := range stages {
		x.entriesOnce(env)
	}
	x.tracked()
	x.proposed()
	x.grown()
	x.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	x.git("reset", "-q", "--hard", "origin/main")
	if out, errs, code := x.pinion("audit"); code != 0 {
		x.Errorf("audit: exit code %d\n%s%s", code, out, errs)
	}
	devtest.Fsck(x, x.Dir)
}

// told says what of an environment was not told to the receivers, each service's
// news in order, or to the one who follows the events.
func (x *neighbours) told(env string) string {
	x.Helper()
	branch := "ledger/" + env
	all := x.since(x.began[branch], branch)
	var ids []string
	by := map[desired.ServiceName][]string{}
	for _, c := range all {
		e, err := ledger.ParseMessage(c.message, time.Now())
		x.must(err)
		ids = append(ids, c.id)
		by[e.Service] = append(by[e.Service], c.id)
	}
	for i, d := range x.diaries {
		got, seen := map[desired.ServiceName][]string{}, map[string]bool{}
		for _, n := range d.all() {
			if id := n.Record.Commit; n.Record.Branch == branch && !seen[id] && slices.Contains(ids, id) {
				seen[id] = true
				got[n.Service] = append(got[n.Service], id)
			}
		}
		for svc, want := range by {
			if !slices.Equal(got[svc], want) {
				return fmt.Sprintf("of %s in %s receiver %d was told %s", svc, env, i, differs(got[svc], want))
			}
		}
	}
	got, lost := x.reader.of(env)
	switch {
	case lost:
		x.Fatalf("the one who follows was told that events are lost")
	case !slices.Equal(got, ids):
		return "the events of " + env + " are " + differs(got, ids)
	}
	return ""
}

// differs says where two lists begin to differ.
func differs(got, want []string) string {
	for i, w := range want {
		if i >= len(got) {
			return fmt.Sprintf("%d of %d, up to %.12s", len(got), len(want), w)
		}
		if got[i] != w {
			return fmt.Sprintf("%.12s in the place of %.12s, at %d of %d", got[i], w, i, len(want))
		}
	}
	return fmt.Sprintf("%d, and there are %d", len(got), len(want))
}

// writes finds each write that was acknowledged where it was said to be, and none
// twice.
func (x *neighbours) writes() {
	x.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	branches, times := map[string]map[string]bool{}, map[string]int{}
	for branch := range x.tips() {
		branches[branch] = map[string]bool{}
		for _, c := range x.since("", branch) {
			branches[branch][c.id] = true
			subject, _, _ := strings.Cut(c.message, "(")
			found := map[string]bool{}
			for _, field := range strings.FieldsFunc(c.message, func(r rune) bool { return strings.ContainsRune(" \n/,:;.)", r) }) {
				if a, ok := x.asked[field]; ok && a.what == subject && !found[field] {
					found[field] = true
					times[field]++
				}
			}
		}
	}
	held := map[string]bool{}
	for _, n := range x.diaries[0].all() {
		held[n.Record.Commit] = held[n.Record.Commit] || n.Hold != nil
	}
	for mark, a := range x.asked {
		switch {
		case times[mark] > 1:
			x.Errorf("%s %s was written %d times", a.what, mark, times[mark])
		case !a.sure:
		case a.commit != "" && !branches[a.branch][a.commit]:
			x.Errorf("%s %s was acknowledged with %s, which %s does not have", a.what, mark, a.commit, a.branch)
		case times[mark] == 0 && slices.Contains([]string{"pin", "rollback", "hold", "release"}, a.what):
			x.Errorf("%s %s was acknowledged, and is not there: %+v", a.what, mark, a)
		case a.commit != "" && (a.what == "hold" || a.what == "release") && !held[a.commit]:
			x.Errorf("%s %s was not told to the receiver", a.what, mark)
		}
	}
}

// entriesOnce reads a ledger for what may happen to a deployment once.
func (x *neighbours) entriesOnce(env string) {
	x.Helper()
	seen, digests := map[string]string{}, map[string]string{}
	for _, c := range x.since("", "ledger/"+env) {
		e, err := ledger.ParseMessage(c.message, time.Now())
		x.must(err)
		what := string(e.Event) + " " + e.Deployment
		switch {
		case e.Candidate && e.Event == ledger.EventOffered: // once more is another matter
			for key := range seen {
				if strings.HasPrefix(key, string(e.Service)+" ") {
					delete(seen, key)
				}
			}
			continue
		case e.Candidate:
			what = string(e.Service) + " " + e.Release.Version() + " " + string(e.Event)
		}
		if len(e.Checks) == 1 && e.Event == ledger.EventCheck {
			what += " " + string(e.Checks[0].Policy)
		}
		if e.Approval != nil {
			what += " " + string(e.Approval.Policy) + " " + e.Approval.By
		}
		if before := seen[what]; before != "" && !e.Late {
			x.Errorf("%s: %s is there twice: %s and %s", env, what, before, c.id)
		}
		seen[what] = c.id
		if e.Event == ledger.EventPinned && e.Service == "web" {
			version, digest, _ := strings.Cut(e.Release.Pins[0].Image, "@")
			if was, ok := digests[version]; ok && was != digest {
				x.Errorf("%s: %s was deployed as %s and as %s", env, version, was, digest)
			}
			digests[version] = digest
		}
	}
}

// tracked looks what has come in from the registry and from CI: each once, bound
// to what it was.
func (x *neighbours) tracked() {
	x.Helper()
	once := map[string]bool{}
	for _, c := range x.since("", "main") {
		change, ok := ledger.ParseChange(c.message)
		if !ok || change.Kind != ledger.ChangeTracked {
			continue
		}
		image := change.Release.Pins[0].Image
		if once[image] {
			x.Errorf("%s has entered twice", image)
		}
		once[image] = true
		version, digest, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], "@")
		name, version, _ := strings.Cut(version, ":")
		if name == "web" && !slices.Contains(x.digests[version], digest) || digest == "" {
			x.Errorf("%s has entered, and was never there", image)
		}
	}
	known := map[string]bool{}
	for _, c := range x.since("", "pinion/artifacts") {
		subject, _, _ := strings.Cut(c.message, "\n")
		if !strings.HasPrefix(subject, "found(") && !strings.HasPrefix(subject, "published(") {
			continue
		}
		if known[subject] {
			x.Errorf("%s is there twice", subject)
		}
		known[subject] = true
	}
}

// proposed looks at the forge's pull requests: none is open, and none is there
// for what was promoted already.
func (x *neighbours) proposed() {
	x.Helper()
	merged := map[string]int{}
	for page, all := 1, []pullSeen(nil); page == 1 || len(all) == 50; page++ {
		all = nil
		x.ask("alice-token", "GET", fmt.Sprintf("/pulls?state=all&limit=50&page=%d", page), nil, &all)
		for _, p := range all {
			if p.State != "closed" {
				x.Errorf("pull request %d is %s: %s", p.Number, p.State, p.Title)
			}
			if before := merged[p.Title]; p.Merged && before != 0 {
				x.Errorf("pull requests %d and %d were merged: %s", before, p.Number, p.Title)
			}
			if p.Merged {
				merged[p.Title] = p.Number
			}
		}
	}
	if len(merged) == 0 {
		x.Error("no pull request was merged")
	}
}

// grown reads the forge's log of its branches: each has only ever grown.
func (x *neighbours) grown() {
	x.Helper()
	for branch := range x.tips() {
		data, err := os.ReadFile(filepath.Join(x.Dir, "logs", "refs", "heads", filepath.FromSlash(branch)))
		x.must(err)
		for line := range strings.Lines(string(data)) {
			old, now, _ := strings.Cut(line, " ")
			now, _, _ = strings.Cut(now, " ")
			if strings.Trim(old, "0") == "" {
				continue
			}
			if _, err := x.tryBare("merge-base", "--is-ancestor", old, now); err != nil {
				x.Errorf("%s went from %s to %s", branch, old, now)
			}
		}
	}
}
