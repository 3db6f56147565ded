package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// trackedShop takes new versions by itself, and asks what is known of them.
const trackedShop = `
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
  track:
  - semver: ">=1.0.0 <2"
    publishers: [ci]
  verify: [tested]
- environment: production
  admit: [sound]
-- policies/tested.yaml --
apiVersion: pinion.dev/v1
kind: Policy
cel: artifact.tests == 'passed'
-- policies/sound.yaml --
apiVersion: pinion.dev/v1
kind: Policy
cel: artifact.quality == 'passed' && artifact.publisher == 'ci'
`

// publish publishes a version of web, as somebody.
func (o *office) publish(by, version, first string, facts artifact.Facts) {
	o.Helper()
	o.later(time.Minute)
	_, err := o.clerk.Publish(context.Background(), reconcile.PublishRequest{Principal: reconcile.Principal{Name: by},
		Repository: "registry.example/web", Version: version, Digest: digestOf(first), Facts: facts})
	if err != nil && !strings.Contains(err.Error(), "is refused: a version is not changed") {
		o.Fatal(err)
	}
}

func digestOf(first string) string { return "sha256:" + first + strings.Repeat("0", 64-len(first)) }

const artifactFile = "registry.example/web/_tags/%s.yaml"

// known is what a commit knows of a version.
func (f *forger) known(commit, version string) artifact.Record {
	f.Helper()
	name := fmt.Sprintf(artifactFile, version)
	r, err := artifact.Decode(name, []byte(f.input("", "show", commit+":"+name)))
	f.o.must(err)
	return r
}

// learn writes a record as the daemon would, but without its key.
func (f *forger) learn(before *artifact.Record, after artifact.Record, options ...func(*forged)) string {
	f.Helper()
	c := forged{branch: artifact.Branch, files: map[string]string{fmt.Sprintf(artifactFile, after.Version): string(after.Encode())}, message: "whatever\n"}
	if t, err := artifact.Follows(before, after); err == nil {
		c.message = t.Message()
	}
	for _, o := range options {
		o(&c)
	}
	return f.commit(c)
}

// tracked writes a version to dev, as the daemon would.
func (f *forger) tracked(before, version, digest, from string, edit func(*forged, *ledger.Change)) string {
	f.Helper()
	image := "registry.example/web:" + version + "@" + digest
	change := ledger.Change{Kind: ledger.ChangeTracked, Environment: "dev", Service: "web", Before: before, From: []string{artifact.Branch + "@" + from},
		Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: image}}}, Policy: "default@" + f.git("rev-parse", "main:pipelines/default.yaml")}
	const name = "environments/dev.yaml"
	ed, err := desired.NewEditor(name, []byte(f.input("", "show", "main:"+name)))
	f.o.must(err)
	data, err := ed.Apply(desired.Edit{Service: "web", Pins: []desired.PinEdit{{Artifact: "web", Reference: image}}})
	f.o.must(err)
	c := forged{branch: "main", files: map[string]string{name: string(data)}}
	if edit != nil {
		edit(&c, &change)
	}
	c.message = change.Message()
	return f.commit(c)
}

func TestAuditOfArtifacts(t *testing.T) {
	t.Parallel()
	o := newOffice(t, gatedShop+trackedShop)
	o.open()
	o.is("dev", "1.0.0", ledger.StateCompleted)
	o.publish("ci", "1.1.0", "a", artifact.Facts{Commit: "4f1c2aa90b7e", Branch: "main"})
	o.is("dev", "1.1.0", ledger.StateCompleted)
	o.publish("ci", "1.1.0", "a", artifact.Facts{Tests: artifact.Passed})
	o.is("dev", "1.1.0", ledger.StateVerified)
	o.offered("production", "1.1.0")
	o.publish("ci", "1.1.0", "a", artifact.Facts{Quality: artifact.Passed})
	o.is("production", "1.1.0", ledger.StateVerified)
	o.publish("ci", "1.1.0", "b", artifact.Facts{})
	o.publish("ci", "1.2.0", "c", artifact.Facts{})
	o.is("dev", "1.2.0", ledger.StateCompleted)
	o.later(20 * time.Minute)
	o.stop()
	o.git("--git-dir="+o.remote, "repack", "-adq")

	signers, unsigned := "--allowed-signers="+filepath.Join(o.dir, "allowed_signers"), "--no-signatures"
	try := func(name string, code int, forge func(f *forger) []string, want ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := o.forger(t)
			args := forge(f)
			auditOf(t, f.dir, args...).found(t, code, want...)
		})
	}
	fresh := func(f *forger, version, first, by string) artifact.Record {
		return artifact.Record{Repository: "registry.example/web", Version: version, Digest: digestOf(first), Origin: artifact.FromPublisher, By: by, As: []string{by}, Found: f.now}
	}

	t.Run("honest", func(t *testing.T) {
		t.Parallel()
		v := auditOf(t, o.remote, signers)
		v.found(t, 0)
		if v.Tracked != 2 || v.Versions != 2 {
			t.Errorf("%d tracked of %d known", v.Tracked, v.Versions)
		}
	})
	try("a version of which somebody has told in the daemon's place", 0, func(f *forger) []string {
		f.tracked("1.2.0", "1.3.0", digestOf("d"), f.learn(nil, fresh(f, "1.3.0", "d", "ci")), nil)
		return []string{unsigned}
	})
	try("such a version, and signatures are looked at", 1, func(f *forger) []string {
		f.tracked("1.2.0", "1.3.0", digestOf("d"), f.learn(nil, fresh(f, "1.3.0", "d", "ci")), nil)
		return []string{signers}
	}, `error signature : the commit is not signed`, `error signature dev: the commit is not signed`)
	try("a version of another committer", 1, func(f *forger) []string {
		f.learn(nil, fresh(f, "1.3.0", "d", "ci"), func(c *forged) { c.by = ledger.Person{Name: "Mallory", Email: "mallory@shop.example"} })
		return []string{unsigned}
	}, `error committer : it was committed by Mallory <mallory@shop.example>, and the daemon is Pinion`)
	try("a version by nobody whom a rule names", 1, func(f *forger) []string {
		f.tracked("1.2.0", "1.3.0", digestOf("d"), f.learn(nil, fresh(f, "1.3.0", "d", "mallory")), nil)
		return []string{unsigned}
	}, `error tracked dev: .*1\.3\.0.* was not allowed: track web: .*1\.3\.0: it was published by mallory, whom the rule does not name`)

	// What is known changes, and goes.
	try("a digest that was changed", 1, func(f *forger) []string {
		was := f.known(artifact.Branch, "1.2.0")
		is := was
		is.Digest = digestOf("d")
		f.learn(&was, is)
		return []string{unsigned}
	}, `error artifact : registry.example/web/_tags/1.2.0.yaml: it was bound to sha256:c0+, and a version is never bound to another digest`)
	try("a digest that was changed, and deployed", 1, func(f *forger) []string {
		was := f.known(artifact.Branch, "1.2.0")
		is := was
		is.Digest = digestOf("d")
		at := f.learn(&was, is)
		f.tracked("1.2.0", "1.2.0", digestOf("d"), at, nil)
		return []string{unsigned}
	}, `error artifact `, `error tracked dev: .*1\.2\.0@sha256:d0+ was brought to dev at .* was not allowed: track web: nothing newer than 1.2.0`)
	try("a record that was removed", 1, func(f *forger) []string {
		f.commit(forged{branch: artifact.Branch, message: "tidy\n", files: map[string]string{fmt.Sprintf(artifactFile, "1.2.0"): ""}})
		return []string{unsigned}
	}, `error artifact : registry.example/web/_tags/1.2.0.yaml: what was known of registry.example/web:1.2.0 is removed`)
	try("a moved tag that was forgotten", 1, func(f *forger) []string {
		was := f.known(artifact.Branch, "1.1.0")
		is := was
		is.Moved = nil
		f.learn(&was, is)
		return []string{unsigned}
	}, `error artifact : registry.example/web/_tags/1.1.0.yaml: something that was known is changed or not there any more, or nothing is new`)
	try("results of another publisher's", 1, func(f *forger) []string {
		was := f.known(artifact.Branch, "1.2.0")
		is := was
		is.By, is.As, is.Tests = "mallory", []string{"mallory"}, artifact.Passed
		f.learn(&was, is)
		return []string{unsigned}
	}, `error artifact : registry.example/web/_tags/1.2.0.yaml: registry.example/web:1.2.0 was published by ci, and mallory can't change what that one has said of it`)
	try("a record under another's name", 1, func(f *forger) []string {
		is := fresh(f, "1.3.0", "d", "ci")
		f.learn(nil, is, func(c *forged) {
			c.files = map[string]string{fmt.Sprintf(artifactFile, "1.4.0"): string(is.Encode())}
		})
		return []string{unsigned}
	}, `error artifact : registry.example/web/_tags/1.4.0.yaml: it is the record of registry.example/web:1.3.0`)
	try("a record that is none", 1, func(f *forger) []string {
		f.commit(forged{branch: artifact.Branch, message: "x\n", files: map[string]string{"README": "x\n"}})
		return []string{unsigned}
	}, `error artifact : README: `)
	try("a record in words of its own", 1, func(f *forger) []string {
		is := fresh(f, "1.3.0", "d", "ci")
		f.learn(nil, is, func(c *forged) { c.files[fmt.Sprintf(artifactFile, "1.3.0")] += "# reviewed\n" })
		return []string{unsigned}
	}, `error artifact : registry.example/web/_tags/1.3.0.yaml: it is not as Pinion writes it: line \d+ has "# reviewed" where nothing should be`)
	try("a message that says something else", 1, func(f *forger) []string {
		f.learn(nil, fresh(f, "1.3.0", "d", "ci"), func(c *forged) { c.message = strings.ReplaceAll(c.message, "Published by ci", "Published by alice") })
		return []string{unsigned}
	}, `error artifact : its message is not what has come to be known: line 3 has "Published by alice\." where "Published by ci\." should be`)
	try("two versions in one commit", 1, func(f *forger) []string {
		two := fresh(f, "1.4.0", "e", "ci")
		f.learn(nil, fresh(f, "1.3.0", "d", "ci"), func(c *forged) { c.files[fmt.Sprintf(artifactFile, "1.4.0")] = string(two.Encode()) })
		return []string{unsigned}
	}, `error files : it changes registry.example/web/_tags/1.3.0.yaml, registry.example/web/_tags/1.4.0.yaml, and a commit tells of one version`)
	try("a commit that adds nothing", 1, func(f *forger) []string {
		f.commit(forged{branch: artifact.Branch, message: "nothing\n"})
		return []string{unsigned}
	}, `error artifact : it says "nothing", and adds nothing to what is known`)
	try("a version from the future, and a clock that was set back", 1, func(f *forger) []string {
		is := fresh(f, "1.3.0", "d", "ci")
		is.Found = f.now.Add(time.Hour)
		f.learn(nil, is, func(c *forged) { c.at = f.now.Add(-2 * time.Hour) })
		return []string{unsigned}
	}, `error time : it says that registry.example/web:1.3.0 came to be known on `, `warning time : its time is \S+ before that of the commit before it`)
	try("a merge", 1, func(f *forger) []string {
		f.learn(nil, fresh(f, "1.3.0", "d", "ci"), func(c *forged) { c.also = []string{"main"} })
		return []string{unsigned}
	}, `error line : it is a merge of 2 commits, and what is known of artifacts is a line`)

	// What the branch was.
	lose := func(f *forger) {
		f.git("update-ref", "refs/heads/"+artifact.Branch, f.git("rev-list", "--max-parents=0", artifact.Branch))
	}
	try("made shorter", 1, func(f *forger) []string {
		tips := filepath.Join(f.TempDir(), "tips")
		auditOf(f.T, f.dir, unsigned, "--write-baseline", tips)
		lose(f)
		return []string{unsigned, "--since-tips", tips}
	}, `error rewritten : pinion/artifacts was at [0-9a-f]{12}, as \S+/tips says, and that is not in its history any more`,
		`error tracked dev: it claims to rest on [0-9a-f]{12} of pinion/artifacts, and that has no such commit`, `error verified dev: .*nothing is known of artifact.tests`, `error promotion production: .*nothing is known of artifact.quality`)
	try("made shorter, and a tag was kept", 1, func(f *forger) []string {
		f.git("tag", "kept", artifact.Branch)
		lose(f)
		return []string{unsigned, "--baseline", "kept"}
	}, `error rewritten : pinion/artifacts was at [0-9a-f]{12}, as kept says`, `error tracked dev: `, `error verified dev: .*nothing is known of artifact.tests`, `error promotion production: .*nothing is known of artifact.quality`)
	try("deleted", 1, func(f *forger) []string {
		tips := filepath.Join(f.TempDir(), "tips")
		auditOf(f.T, f.dir, unsigned, "--write-baseline", tips)
		f.git("update-ref", "-d", "refs/heads/"+artifact.Branch)
		return []string{unsigned, "--since-tips", tips}
	}, `error rewritten : pinion/artifacts was at [0-9a-f]{12}, as \S+/tips says, and there is no such branch any more`, `error tracked dev: .* has no such commit`, `error tracked dev: .* has no such commit`,
		`error verified dev: .*tested: no artifact is recorded for registry.example/web:1.1.0@sha256:a0+`, `error promotion production: .*sound: no artifact is recorded for `)
	try("only what is new", 1, func(f *forger) []string {
		tips := filepath.Join(f.TempDir(), "tips")
		f.commit(forged{branch: artifact.Branch, message: "nothing\n"})
		auditOf(f.T, f.dir, unsigned, "--write-baseline", tips)
		f.commit(forged{branch: artifact.Branch, message: "nothing again\n"})
		return []string{unsigned, "--since-tips", tips, "--only-new"}
	}, `error artifact : it says "nothing again", and adds nothing`)

	// What rests on it.
	try("verified before it was tested", 1, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventVerified })
		return []string{unsigned}
	}, `error verified dev: web-[0-9a-f]{12} was not verified by the policies of its commit [0-9a-f]{12}: tested: of web 1.2.0 nothing is known of artifact.tests`)
	try("verified once somebody said in the daemon's place that it was tested", 0, func(f *forger) []string {
		was := f.known(artifact.Branch, "1.2.0")
		is := was
		is.Tests = artifact.Passed
		f.learn(&was, is)
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventVerified })
		return []string{unsigned}
	})
	try("a version that was known later", 1, func(f *forger) []string {
		f.now = f.now.Add(time.Hour)
		was := f.tip(artifact.Branch)
		f.learn(nil, fresh(f, "1.3.0", "d", "ci"))
		f.tracked("1.2.0", "1.3.0", digestOf("d"), was, nil)
		return []string{unsigned}
	}, `error tracked dev: .*1\.3\.0.* was not allowed: track web: nothing newer than 1.2.0 is known`)
	try("a version whose tag had been moved by then", 0, func(f *forger) []string {
		at := f.learn(nil, fresh(f, "1.3.0", "d", "ci"))
		was := f.known(artifact.Branch, "1.3.0")
		is := was
		is.Moved = []string{digestOf("e")}
		f.learn(&was, is)
		f.now = f.now.Add(time.Hour)
		f.tracked("1.2.0", "1.3.0", digestOf("d"), at, nil)
		return []string{unsigned}
	}, `warning tracked dev: it rests on [0-9a-f]{12} of pinion/artifacts, and by [0-9a-f]{12}, which was known long before, .*1\.3\.0.* could not be chosen: its tag was moved`)

	t.Run("a clone that does not fetch it", func(t *testing.T) {
		t.Parallel()
		clone := filepath.Join(t.TempDir(), "clone")
		for _, args := range [][]string{
			{"clone", "-q", "--single-branch", "file://" + o.remote, clone},
			{"-C", clone, "config", "--add", "remote.origin.fetch", "+refs/heads/ledger/*:refs/remotes/origin/ledger/*"},
			{"-C", clone, "fetch", "-q"},
		} {
			if out, err := o.tryGit(args...); err != nil {
				t.Fatalf("git %v: %v\n%s", args, err, out)
			}
		}
		if v := auditOf(t, clone, unsigned); v.code != 2 || !strings.Contains(v.stderr, "pinion/artifacts is not in this clone, and `git fetch` does not bring it") {
			t.Errorf("%d\n%s", v.code, v.text())
		}
	})
}
