package main

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

const (
	artifactServices = 20
	entriesOfVersion = 4
)

// knownArtifacts measures what an audit costs where many versions of artifacts are
// known, each of which was tracked into an environment and verified by what is known
// of it: with a tenth of them, and with all.
func (b *bench) knownArtifacts(ctx context.Context) error {
	for _, n := range []int{b.artifacts / 10, b.artifacts} {
		each := max(1, n/artifactServices)
		clone, err := b.makeArtifacts(ctx, each)
		if err != nil {
			return err
		}
		took, err := b.audit(ctx, clone)
		if err != nil {
			return err
		}
		n = each * artifactServices
		fmt.Printf("pinion audit with %d known versions, %d of each of %d artifacts, and %d entries: %s, %.0f entries a second\n",
			n, each, artifactServices, n*entriesOfVersion, took.Round(time.Millisecond), float64(n*entriesOfVersion)/took.Seconds())
	}
	return nil
}

// makeArtifacts makes a repository in which so many versions of each artifact were
// published, tracked and verified, as a daemon would have written it, and a clone.
func (b *bench) makeArtifacts(ctx context.Context, each int) (clone string, err error) {
	name := fmt.Sprintf("artifacts-%d", each)
	remote, clone, marks := b.path(name+".git"), b.path(name), b.path(name+".marks")
	if err := b.git(ctx, "init", "-q", "--bare", "--initial-branch=main", remote); err != nil {
		return "", err
	}
	n := each * artifactServices
	h := trackedHistory{n: n, start: time.Now().Add(-time.Duration(n) * time.Minute).UTC().Truncate(time.Second)}
	if err := fastImport(ctx, remote, marks, h.writeKnown); err != nil {
		return "", err
	}
	if h.known, err = readMarks(marks, n+1); err != nil {
		return "", err
	}
	if err := fastImport(ctx, remote, marks, h.writeMain); err != nil {
		return "", err
	}
	if h.main, err = readMarks(marks, n+2); err != nil {
		return "", err
	}
	digests, err := renderedDigests(ctx, h.files())
	if err != nil {
		return "", err
	}
	if err := fastImport(ctx, remote, marks, func(w io.Writer) error { return h.writeLedger(w, digests) }); err != nil {
		return "", err
	}
	if err := b.git(ctx, "--git-dir="+remote, "repack", "-adfq"); err != nil {
		return "", err
	}
	return clone, b.git(ctx, "clone", "-q", remote, clone)
}

// trackedHistory is a history in which a version a minute is published, of one
// artifact after the other.
type trackedHistory struct {
	n     int
	start time.Time
	known []string // the commits of what is known, from 1
	main  []string // the commits of main, from 2
}

const trackedDaemon = "Pinion <pinion@localhost>"

func trackedService(i int) desired.ServiceName {
	return desired.ServiceName(fmt.Sprintf("s%d", i%artifactServices))
}

// record is the version that is published as number i.
func (h *trackedHistory) record(i int) artifact.Record {
	repository, version := fmt.Sprintf("registry.example/%s", trackedService(i)), fmt.Sprintf("1.%d.0", i/artifactServices+1)
	return artifact.Record{
		Repository: repository, Version: version, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(repository+":"+version))),
		Facts:  artifact.Facts{Commit: fmt.Sprintf("%040x", i), Branch: "main", Tests: artifact.Passed},
		Origin: artifact.FromPublisher, By: "ci", As: []string{"ci"}, Found: h.at(i, 0),
	}
}

// at is so many seconds after version i was published.
func (h *trackedHistory) at(i, seconds int) time.Time {
	return h.start.Add(time.Duration(i)*time.Minute + time.Duration(seconds)*time.Second)
}

// release is what tracking version i leads to.
func (h *trackedHistory) release(i int) ledger.Release {
	return ledger.Release{Pins: []ledger.Pin{{Artifact: desired.ArtifactName(trackedService(i)), Image: h.record(i).Reference()}}}
}

func (h *trackedHistory) writeKnown(w io.Writer) error {
	for i := range h.n {
		taken, err := artifact.Follows(nil, h.record(i))
		if err != nil {
			return err
		}
		r := taken.Record
		writeCommit(w, i+1, artifact.Branch, trackedDaemon, r.Found, taken.Message(), map[string][]byte{artifact.File(r.Repository, r.Version): r.Encode()})
	}
	return nil
}

func (h *trackedHistory) writeMain(w io.Writer) error {
	const file = "environments/dev.yaml"
	files := h.files()
	writeCommit(w, 1, "main", "Dana <dana@shop.example>", h.start.Add(-time.Hour), "Start\n", files)
	rules := files["pipelines/default.yaml"]
	pipeline := fmt.Sprintf("%x", sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(rules)), rules...))) // git's id of it
	ed, err := desired.NewEditor(file, files[file])
	if err != nil {
		return err
	}
	for i := artifactServices; i < h.n; i++ { // the first ones are in the file
		change := ledger.Change{
			Kind: ledger.ChangeTracked, Environment: "dev", Service: trackedService(i), Before: h.record(i - artifactServices).Version, From: []string{artifact.Branch + "@" + h.known[i+1]},
			Release: h.release(i), Policy: "default@" + pipeline,
		}
		pin := change.Release.Pins[0]
		data, err := ed.Apply(desired.Edit{Service: change.Service, Pins: []desired.PinEdit{{Artifact: pin.Artifact, Reference: pin.Image}}})
		if err != nil {
			return err
		}
		writeCommit(w, i+2, "main", trackedDaemon, h.at(i, 2), change.Message(), map[string][]byte{file: data})
	}
	return nil
}

// writeLedger writes the entries of each version's deployment.
func (h *trackedHistory) writeLedger(w io.Writer, digests map[string]string) error {
	dana := ledger.Person{Name: "Dana", Email: "dana@shop.example"}
	records := map[desired.ServiceName]ledger.Record{}
	mark := 0
	for i := range h.n {
		svc, id := trackedService(i), h.main[i+2]
		pinned := ledger.Entry{Cause: ledger.CauseTracking, Actor: ledger.Person{Name: "Pinion", Email: "pinion@localhost"}}
		if i < artifactServices {
			id, pinned = h.main[1], ledger.Entry{Cause: ledger.CausePin, Actor: dana, Authors: []ledger.Person{dana}}
		}
		release := h.release(i)
		release.Source = id
		r := records[svc]
		before := r.Deployment.Release.Version()
		for k, event := range []ledger.Event{ledger.EventPinned, ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified} {
			entry := ledger.Entry{Manifests: digests["dev/"+string(svc)]}
			if event == ledger.EventPinned {
				entry = pinned
			}
			entry.Event, entry.Environment, entry.Service, entry.Time = event, "dev", svc, h.at(i, 3+k)
			entry.Deployment, entry.Commit, entry.Release, entry.Before = ledger.DeploymentID(svc, id), id, release, before
			entry.Reason = "For the measurement."
			var err error
			if r, err = r.Apply(entry); err != nil {
				return err
			}
			mark++
			writeCommit(w, mark, ledger.Branch("dev"), trackedDaemon, entry.Time, entry.Message(), map[string][]byte{ledger.RecordFile(svc): r.Encode()})
		}
		records[svc] = r
	}
	return nil
}

// files are those of main before any version was tracked: somebody has pinned the
// first one of each artifact.
func (h *trackedHistory) files() map[string][]byte {
	env := []byte("apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: dev\npins:\n")
	files := map[string][]byte{
		"pipelines/default.yaml": []byte("apiVersion: pinion.dev/v1\nkind: Pipeline\nservices: [\"*\"]\nstages:\n" +
			"- environment: dev\n  track:\n  - semver: \">=1.0.0 <2\"\n    publishers: [ci]\n  verify: [tested]\n"),
		"policies/tested.yaml": []byte("apiVersion: pinion.dev/v1\nkind: Policy\ncel: artifact.tests == 'passed'\n"),
	}
	for i := range artifactServices {
		svc := trackedService(i)
		env = fmt.Appendf(env, "  %s:\n    image: %s\n", svc, h.record(i).Reference())
		files[fmt.Sprintf("services/%s/service.yaml", svc)] = []byte("apiVersion: pinion.dev/v1\nkind: Service\n")
		files[fmt.Sprintf("services/%s/x.yaml", svc)] = fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n", svc)
	}
	files["environments/dev.yaml"] = env
	return files
}
