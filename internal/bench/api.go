package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The load of the API.
const (
	readers          = 50
	readFor          = 20 * time.Second
	questionsOfAKind = 1000 // some of them are the same
	readsSecond      = 1000 // where the readers have a rate
	reportsSecond    = 1000
	reportFor        = 60 * time.Second
)

// apiDaemon starts a daemon that lets one caller ask as often as it likes; more is
// added to its configuration.
func (b *bench) apiDaemon(round int, remote, kubeconfig string, more ...string) (*daemon, error) {
	config := b.path(fmt.Sprintf("config-api-%d.yaml", round))
	text := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Config\nclusters: {default: {kubeconfig: %s}}\napi: {limits: {requestsPerSecond: 1000000}}\ntokens:\n- {principal: ci, sha256: %x}\n",
		kubeconfig, sha256.Sum256([]byte(benchToken))) + strings.Join(more, "")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return b.startDaemonWith(config, remote, b.path(fmt.Sprintf("data-api-%d", round)))
}

// caller asks over connections that it keeps.
var caller = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}

// ask sends a request and reads the answer.
func (d *daemon) ask(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+d.address+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+benchToken)
	resp, err := caller.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// nowhere writes a kubeconfig that leads to no cluster.
func (b *bench) nowhere() (string, error) {
	const text = "apiVersion: v1\nkind: Config\nclusters: [{name: x, cluster: {server: \"http://127.0.0.1:9\"}}]\nusers: [{name: x}]\ncontexts: [{name: x, context: {cluster: x, user: x}}]\ncurrent-context: x\n"
	return b.path("nowhere"), os.WriteFile(b.path("nowhere"), []byte(text), 0o600)
}

// apiReads asks for each kind of thing, by readers side by side, each time for
// another one; of a version, `where` is asked for one of the newest, of which it
// has something to say.
func (b *bench) apiReads(ctx context.Context) error {
	remote, _, err := b.makeLedgers(ctx, 40_000)
	if err != nil {
		return err
	}
	kubeconfig, err := b.nowhere()
	if err != nil {
		return err
	}
	d, err := b.apiDaemon(0, remote, kubeconfig)
	if err != nil {
		return err
	}
	defer d.stop()
	begun := time.Now()
	for ready := false; !ready; {
		status, _, err := d.ask(ctx, "GET", "/api/v1/deployments?limit=1&version=none", nil)
		if ready = err == nil && status == http.StatusOK; !ready && time.Since(begun) > 5*time.Minute {
			return fmt.Errorf("the API does not become ready: %d, %v", status, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("10,000 deployments in %d ledgers; %s after the start all of them are read, from a clone on\n", ledgerEnvironments, time.Since(begun).Round(10*time.Millisecond))
	var cursors, ids []string
	for next := ""; ; {
		path := "/api/v1/deployments?limit=50"
		if next != "" {
			path += "&cursor=" + next
		}
		_, data, err := d.ask(ctx, "GET", path, nil)
		if err != nil {
			return err
		}
		var page struct {
			Items []struct{ ID, Environment, Entry string }
			Next  string
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, x := range page.Items {
			ids = append(ids, x.Environment+" "+x.ID+" "+x.Entry)
		}
		if next = page.Next; next == "" {
			break
		}
		cursors = append(cursors, next)
	}
	if len(ids) != 10_000 {
		return fmt.Errorf("the pages have %d deployments, not 10,000", len(ids))
	}
	kinds := []struct {
		name string
		path func(n int) string
	}{
		{"a page of deployments", func(n int) string { return "/api/v1/deployments?cursor=" + cursors[n*7919%len(cursors)] }},
		{"deployments of a version", func(n int) string { return fmt.Sprintf("/api/v1/deployments?version=1.0.%d", n%100+1) }},
		{"one deployment", func(n int) string {
			x := strings.Fields(ids[n*7919%len(ids)])
			return "/api/v1/environments/" + x[0] + "/deployments/" + x[1]
		}},
		{"a page of entries", func(n int) string {
			x := strings.Fields(ids[n*7919%len(ids)])
			return "/api/v1/environments/" + x[0] + "/entries?cursor=" + x[2]
		}},
		{"one entry", func(n int) string {
			x := strings.Fields(ids[n*7919%len(ids)])
			return "/api/v1/environments/" + x[0] + "/entries/" + x[2]
		}},
		{"flows of a version", func(n int) string { return fmt.Sprintf("/api/v1/flows?service=s%d&version=1.0.%d", n%5, n/5%100+1) }},
		{"the matrix", func(int) string { return "/api/v1/matrix" }},
		{"why", func(n int) string { return fmt.Sprintf("/api/v1/why?environment=e%02d&service=s%d", n/5%20, n%5) }},
		{"where", func(n int) string { return fmt.Sprintf("/api/v1/where?artifact=s%d&version=1.0.%d", n%5, 81+n/5%20) }},
		{"environments", func(int) string { return "/api/v1/environments" }},
	}
	questions := make([][]question, len(kinds))
	for i, k := range kinds {
		for n := range questionsOfAKind {
			questions[i] = append(questions[i], asking(d.address, k.path(n)))
		}
		if _, _, err := d.ask(ctx, "GET", k.path(0), nil); err != nil {
			return err
		}
	}
	ours, err := readSideBySide(ctx, d, questions, 0)
	if err != nil {
		return err
	}
	paced, err := readSideBySide(ctx, d, questions, readsSecond)
	if err != nil {
		return err
	}
	_, peak, err := d.process()
	if err != nil {
		return err
	}
	d.stop()
	f, err := b.startFloor()
	if err != nil {
		return err
	}
	defer f.stop()
	constants := make([][]question, len(kinds))
	for i := range kinds {
		constants[i] = []question{asking(f.address, fmt.Sprintf("/%.0f", median(ours.sizes[i])))}
	}
	floor, err := readSideBySide(ctx, f, constants, 0)
	if err != nil {
		return err
	}
	pacedFloor, err := readSideBySide(ctx, f, constants, readsSecond)
	if err != nil {
		return err
	}
	for i, k := range kinds {
		fmt.Printf("%s (%.0f bytes): %s; floor %s\n", k.name, median(ours.sizes[i]), spread(ours.took[i]), spread(floor.took[i]))
	}
	all, bare := slices.Concat(ours.took...), slices.Concat(floor.took...)
	fmt.Printf("%d readers side by side, each as fast as it can: %.0f answers a second, %s; floor, a server that answers as many bytes: %.0f, %s; p99 to p99 a ratio of %.2f; other work had %.0f and %.0f %% of the cores\n", readers,
		float64(len(all))/readFor.Seconds(), spread(all), float64(len(bare))/readFor.Seconds(), spread(bare), share(all, 0.99)/share(bare, 0.99), 100*ours.others, 100*floor.others)
	fmt.Printf("the same, who together ask %d times a second: %s; floor %s; other work had %.0f and %.0f %%\npeak memory %.0f MiB\n", readsSecond,
		spread(slices.Concat(paced.took...)), spread(slices.Concat(pacedFloor.took...)), 100*paced.others, 100*pacedFloor.others, peak)
	return nil
}

// spread tells of how long something took.
func spread(took []float64) string {
	return fmt.Sprintf("median %s, p99 %s, longest %s", milliseconds(median(took)), milliseconds(share(took, 0.99)), milliseconds(share(took, 1)))
}

func milliseconds(s float64) string { return fmt.Sprintf("%.1f ms", s*1000) }

// startFloor starts this program again, to answer as [answerConstants] does.
func (b *bench) startFloor() (*daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startListening(exec.Command(self, "-constants"))
}

// answerConstants answers as many bytes as the path says: what the daemon's
// answers would cost if there were nothing to find out.
func answerConstants(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listen=" + l.Addr().String())
	constant := bytes.Repeat([]byte("x"), 1<<20)
	h := &http.Server{ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
			if err != nil || n < 0 || n > len(constant) {
				http.Error(w, "the path is how many bytes to answer", http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(n))
			w.Write(constant[:n])
		})}
	defer context.AfterFunc(ctx, func() { h.Close() })()
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// share is the value that a share of the values is not above.
func share(xs []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	if len(s) == 0 {
		return 0
	}
	return s[min(len(s)-1, int(float64(len(s))*p))]
}

// apiReports sends reports at a steady pace, each of which becomes an entry; and
// once more, while the daemon is killed in the middle. The server that is pushed to
// is as git makes one: now and then it packs anew what it has.
func (b *bench) apiReports(ctx context.Context) error {
	p, err := b.makePromoted(ctx, "reports", 20, "e2e", "apiVersion: pinion.dev/v1\nkind: Policy\nreport: {by: [ci]}\n")
	if err != nil {
		return err
	}
	c, err := b.startControlPlane(ctx, "reports-cluster")
	if err != nil {
		return err
	}
	defer c.stop()
	d, err := b.apiDaemon(1, p.remote, c.kubeconfig)
	if err != nil {
		return err
	}
	defer func() { d.stop() }()
	if err := counted(ctx, p.remote, "ledger/dev", "completed", p.services); err != nil {
		return err
	}
	for i := range p.services {
		if err := d.report(ctx, service(i), "1.0.0"); err != nil {
			return err
		}
	}
	before := takenBy(d)
	took, acknowledged, failed := reportSteadily(ctx, d, p, load{name: "a", version: "1.0.0", whole: reportFor, second: reportsSecond})
	fmt.Printf("%d reports a second for %s: %d acknowledged, %d not; median %s, p99 %s, longest %s; git and other work had %.0f %% of the cores\n", reportsSecond, reportFor, len(acknowledged), failed,
		seconds(median(took)), seconds(share(took, 0.99)), seconds(share(took, 1)), 100*before.others(takenBy(d)))
	if err := b.lost(ctx, p, acknowledged); err != nil {
		return err
	}
	_, acknowledged, failed = reportSteadily(ctx, d, p, load{name: "b", version: "1.0.0", whole: 20 * time.Second, second: reportsSecond, middle: func() {
		d.cmd.Process.Kill()
		d.cmd.Wait()
	}})
	fmt.Printf("killed in the middle: %d acknowledged, %d not\n", len(acknowledged), failed)
	if d, err = b.apiDaemon(1, p.remote, c.kubeconfig); err != nil {
		return err
	}
	return b.lost(ctx, p, acknowledged)
}

// load is how reports are sent.
type load struct {
	name    string // what they say begins with it
	version string
	whole   time.Duration
	second  int    // how many in one
	middle  func() // happens in the middle; nil: nothing does
}

// reportSteadily sends reports that contradict the result that is there: each of
// them is an entry of its own, and moves nothing. It returns how long each took
// from the moment when it was due, and those that were acknowledged, by what they
// say.
func reportSteadily(ctx context.Context, d *daemon, p *promoted, l load) (took []float64, acknowledged []string, failed int) {
	var mu sync.Mutex // guards what is returned
	var wait sync.WaitGroup
	begun := time.Now()
	total := int(l.whole.Seconds() * float64(l.second))
	for i := range total {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(l.second))
		time.Sleep(time.Until(due))
		if l.middle != nil && i == total/2 {
			wait.Go(l.middle)
		}
		wait.Go(func() {
			said := fmt.Sprintf("load-%s-%d", l.name, i)
			body := fmt.Sprintf(`{"environment":"dev","service":%q,"policy":"e2e","status":"failure","version":%q,"description":%q}`, service(i%p.services), l.version, said)
			status, answer, err := d.ask(ctx, "POST", "/api/v1/reports", []byte(body))
			spent := time.Since(due).Seconds()
			mu.Lock()
			defer mu.Unlock()
			if err != nil || status != http.StatusConflict || !bytes.Contains(answer, []byte(`"decided"`)) {
				failed++
				return
			}
			took, acknowledged = append(took, spent), append(acknowledged, said)
		})
	}
	wait.Wait()
	return took, acknowledged, failed
}

// lost tells how many of those that were acknowledged the remote's ledger does not
// have.
func (b *bench) lost(ctx context.Context, p *promoted, acknowledged []string) error {
	out, err := exec.CommandContext(ctx, "git", "--git-dir="+p.remote, "log", "--format=%B", "ledger/dev").Output()
	if err != nil {
		return fmt.Errorf("git log: %w", err)
	}
	there := map[string]bool{}
	for _, said := range regexp.MustCompile(`load-[ab]-[0-9]+`).FindAllString(string(out), -1) {
		there[said] = true
	}
	lost := 0
	for _, said := range acknowledged {
		if !there[said] {
			lost++
		}
	}
	fmt.Printf("lost: %d of %d\n", lost, len(acknowledged))
	return nil
}
