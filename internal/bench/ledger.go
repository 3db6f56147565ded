package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/render"
)

const (
	ledgerEnvironments = 20
	ledgerServices     = 5
)

// ledgers measures what reading ledgers costs, with a few entries and with
// very many.
func (b *bench) ledgers(ctx context.Context) error {
	var starts [2]float64
	var reads [2]float64
	counts := [2]int{ledgerEnvironments * ledgerServices * 4, 100_000}
	var clone string
	for i, n := range counts {
		remote, at, err := b.makeLedgers(ctx, n)
		if err != nil {
			return err
		}
		clone = at
		if starts[i], reads[i], err = b.startUp(ctx, i, remote); err != nil {
			return err
		}
	}
	fmt.Printf("start-up with %d entries: %s, %.1f MB read; with %d: %s, %.1f MB\n",
		counts[0], seconds(starts[0]), reads[0], counts[1], seconds(starts[1]), reads[1])
	pinion := filepath.Join(b.bin, "pinion")
	bare, err := b.timed(ctx, clone, "git", "log", "-1", "origin/ledger/e00")
	if err != nil {
		return err
	}
	fmt.Printf("git log -1: %s; twice that and 50 ms: %s\n", seconds(bare), seconds(2*bare+0.05))
	for _, args := range [][]string{{"version"}, {"status"}, {"where", "s0"}, {"log", "e00"}} {
		took, err := b.timed(ctx, clone, pinion, args...)
		if err != nil {
			return err
		}
		fmt.Printf("pinion %s: %s\n", strings.Join(args, " "), seconds(took))
	}
	took, err := b.audit(ctx, clone)
	if err != nil {
		return err
	}
	fmt.Printf("pinion audit: %s, %.0f entries a second\n", took.Round(time.Millisecond), float64(counts[1])/took.Seconds())
	return nil
}

// audit returns how long an audit takes, which must find nothing.
func (b *bench) audit(ctx context.Context, clone string) (time.Duration, error) {
	begun := time.Now()
	audit := exec.CommandContext(ctx, filepath.Join(b.bin, "pinion"), "audit", "--no-signatures", "--repo", clone)
	if out, err := audit.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pinion audit: %w\n%.2000s", err, out)
	}
	return time.Since(begun), nil
}

// timed returns the median time of a command.
func (b *bench) timed(ctx context.Context, dir, name string, args ...string) (float64, error) {
	var took []float64
	for range b.bumps {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		var errs strings.Builder
		cmd.Stderr = &errs
		begun := time.Now()
		// Code 1 is an answer: not all is well.
		if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != 1 {
			return 0, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &errs)
		}
		took = append(took, time.Since(begun).Seconds())
	}
	return median(took), nil
}

// startUp returns how long a daemon takes from its start, with a mirror that is
// there already, until it is ready, and how many megabytes it has read when it
// has come to rest.
func (b *bench) startUp(ctx context.Context, round int, remote string) (took, read float64, err error) {
	kubeconfig, err := b.nowhere()
	if err != nil {
		return 0, 0, err
	}
	for range 2 { // the first one clones
		d, err := b.startDaemon(200+round, remote, kubeconfig)
		if err != nil {
			return 0, 0, err
		}
		begun := time.Now()
		for ready := false; !ready; time.Sleep(5 * time.Millisecond) {
			if resp, err := http.Get("http://" + d.address + "/readyz"); err == nil {
				ready = resp.StatusCode == http.StatusOK
				resp.Body.Close()
			}
			if time.Since(begun) > 5*time.Minute {
				d.stop()
				return 0, 0, errors.New("the daemon does not become ready")
			}
		}
		took = time.Since(begun).Seconds()
		last := -1.0
		for quiet := 0; quiet < 10; {
			time.Sleep(100 * time.Millisecond)
			cpu, _, err := d.process()
			if err != nil {
				return 0, 0, err
			}
			if cpu.Seconds() == last {
				quiet++
			} else {
				quiet, last = 0, cpu.Seconds()
			}
		}
		read = bytesRead(d.cmd.Process.Pid)
		d.stop()
	}
	return took, read, nil
}

// bytesRead returns the megabytes that a process has read from files.
func bytesRead(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	var n float64
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "rchar: "); ok {
			fmt.Sscan(rest, &n)
		}
	}
	return n / 1e6
}

// makeLedgers makes a remote with ledgers of so many entries in all, as a
// daemon would have written them, and a clone of it.
func (b *bench) makeLedgers(ctx context.Context, entries int) (remote, clone string, err error) {
	remote, clone = b.path(fmt.Sprintf("ledgers-%d.git", entries)), b.path(fmt.Sprintf("ledgers-%d", entries))
	if err := b.git(ctx, "init", "-q", "--bare", "--initial-branch=main", remote); err != nil {
		return "", "", err
	}
	marks := b.path(fmt.Sprintf("marks-%d", entries))
	rounds := entries / (ledgerEnvironments * ledgerServices * 4)
	start := time.Now().Add(-time.Duration(entries) * time.Second).UTC().Truncate(time.Second)
	if err := fastImport(ctx, remote, marks, func(w io.Writer) error { return writeMain(w, start, rounds) }); err != nil {
		return "", "", err
	}
	ids, err := readMarks(marks, rounds*ledgerServices+2)
	if err != nil {
		return "", "", err
	}
	digests, err := renderedDigests(ctx, ledgerFiles(make([]int, ledgerServices), true))
	if err != nil {
		return "", "", err
	}
	if err := fastImport(ctx, remote, marks, func(w io.Writer) error { return writeLedgers(w, start, rounds, ids[2:], digests) }); err != nil {
		return "", "", err
	}
	// As a server keeps it: the newest objects whole, the older ones as deltas.
	if err := b.git(ctx, "--git-dir="+remote, "repack", "-adfq"); err != nil {
		return "", "", err
	}
	return remote, clone, b.git(ctx, "clone", "-q", remote, clone)
}

// readMarks returns the ids of commits by their marks, which are below n.
func readMarks(file string, n int) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	ids := make([]string, n)
	for line := range strings.Lines(string(data)) {
		var mark int
		var id string
		if _, err := fmt.Sscanf(line, ":%d %s", &mark, &id); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		ids[mark] = id
	}
	return ids, nil
}

// fastImport makes commits.
func fastImport(ctx context.Context, remote, marks string, write func(io.Writer) error) error {
	cmd := exec.CommandContext(ctx, "git", "--git-dir="+remote, "fast-import", "--quiet", "--force", "--export-marks="+marks)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	w := bufio.NewWriter(in)
	if err := errors.Join(write(w), w.Flush(), in.Close()); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("git fast-import: %w", err)
	}
	return nil
}

func writeCommit(w io.Writer, mark int, branch, who string, at time.Time, message string, files map[string][]byte) {
	fmt.Fprintf(w, "commit refs/heads/%s\nmark :%d\ncommitter %s %d +0000\ndata %d\n%s\n", branch, mark, who, at.Unix(), len(message), message)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", name, len(files[name]), files[name])
	}
}

// when is the time of a commit on main.
func when(start time.Time, n int) time.Time {
	return start.Add(time.Duration(n) * time.Second * 4 * ledgerEnvironments)
}

// writeMain writes the main branch: the files, as mark 1, and then a commit
// for each version of each service.
func writeMain(w io.Writer, start time.Time, rounds int) error {
	const dana = "Dana <dana@shop.example>"
	versions := make([]int, ledgerServices)
	writeCommit(w, 1, "main", dana, start.Add(-time.Hour), "Start\n", ledgerFiles(versions, true))
	for n := range rounds * ledgerServices {
		versions[n%ledgerServices] = n/ledgerServices + 1
		writeCommit(w, n+2, "main", dana, when(start, n), "Bump\n", ledgerFiles(versions, false))
	}
	return nil
}

// writeLedgers writes the four entries of each deployment in each environment.
func writeLedgers(w io.Writer, start time.Time, rounds int, ids []string, digests map[string]string) error {
	records := map[string]ledger.Record{}
	mark := 0
	for n := range rounds * ledgerServices {
		svc, id := desired.ServiceName(fmt.Sprintf("s%d", n%ledgerServices)), ids[n]
		release := ledger.Release{Source: id, Pins: []ledger.Pin{{
			Artifact: desired.ArtifactName(svc), Image: fmt.Sprintf("registry.example/%s:1.0.%d", svc, n/ledgerServices+1)}}}
		for e := range ledgerEnvironments {
			env := desired.EnvironmentName(fmt.Sprintf("e%02d", e))
			key := string(env) + "/" + string(svc)
			r := records[key]
			before := r.Deployment.Release.Version()
			for i, event := range []ledger.Event{ledger.EventPinned, ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified} {
				entry := ledger.Entry{
					Event: event, Environment: env, Service: svc, Time: when(start, n).Add(time.Duration(i+1) * time.Second),
					Deployment: ledger.DeploymentID(svc, id), Commit: id, Release: release, Before: before, Reason: "For the measurement.",
				}
				if event == ledger.EventPinned {
					entry.Cause, entry.Actor = ledger.CausePin, ledger.Person{Name: "Dana", Email: "dana@shop.example"}
					entry.Authors = []ledger.Person{entry.Actor}
				} else {
					entry.Manifests = digests[key]
				}
				var err error
				if r, err = r.Apply(entry); err != nil {
					return err
				}
				mark++
				writeCommit(w, mark, ledger.Branch(env), "Pinion <pinion@localhost>", entry.Time, entry.Message(), map[string][]byte{ledger.RecordFile(svc): r.Encode()})
			}
			records[key] = r
		}
	}
	return nil
}

// renderedDigests are the digests of what the services render to, which their
// versions do not change, by "environment/service".
func renderedDigests(ctx context.Context, all map[string][]byte) (map[string]string, error) {
	files := fstest.MapFS{}
	for name, data := range all {
		files[name] = &fstest.MapFile{Data: data}
	}
	tree := desired.Hashed(files)
	repo, err := desired.Read(tree, nil)
	if err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for _, d := range repo.Deployments() {
		r, err := render.Build(ctx, tree, render.Request{
			Environment: d.Environment.Name, Namespace: d.Environment.Namespace, Service: d.Service.Name,
			Folder: render.Folder(d.Service, d.Environment.Name), Parameters: d.Environment.Parameters, Pins: d.Pins,
		})
		if err != nil {
			return nil, err
		}
		digests[string(d.Environment.Name)+"/"+string(d.Service.Name)] = r.Digest
	}
	return digests, nil
}

// ledgerFiles are the environments' files, and all others if there are none yet.
func ledgerFiles(versions []int, all bool) map[string][]byte {
	files := map[string][]byte{}
	for e := range ledgerEnvironments {
		var s strings.Builder
		fmt.Fprintf(&s, "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: e%02d\npins:\n", e)
		for i, v := range versions {
			fmt.Fprintf(&s, "  s%[1]d:\n    image: registry.example/s%[1]d:1.0.%[2]d\n", i, v)
		}
		files[fmt.Sprintf("environments/e%02d.yaml", e)] = []byte(s.String())
	}
	if all {
		for i := range versions {
			files[fmt.Sprintf("services/s%d/service.yaml", i)] = []byte("apiVersion: pinion.dev/v1\nkind: Service\n")
			files[fmt.Sprintf("services/s%d/x.yaml", i)] = fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s%d}\n", i)
		}
	}
	return files
}
