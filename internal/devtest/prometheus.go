package devtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// pushed is how often Prometheus gets a sample of each series, as it would by
// scraping.
const pushed = 200 * time.Millisecond

// PrometheusServer is a running Prometheus. It has the series that the test has
// set, and no others.
//
// They are pushed to it by remote write: a Prometheus that scrapes does so for
// the first time 5 seconds after its start, and no option changes that. So the
// series have the labels that the test gives, and neither job nor instance.
type PrometheusServer struct {
	URL string

	process
	t      testing.TB
	client *http.Client

	mu     sync.Mutex
	series map[string]series // guarded by mu; by their encoded labels
	last   int64             // guarded by mu; when samples were pushed, in ms
}

// Prometheus starts a Prometheus for one test, which ends with it.
func Prometheus(t testing.TB) *PrometheusServer {
	t.Helper()
	binary, err := findPrometheus()
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	p := &PrometheusServer{t: t, client: &http.Client{Transport: transport}, series: map[string]series{}}
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(p.Kill)
	dir := t.TempDir()
	config, data := filepath.Join(dir, "prometheus.yml"), filepath.Join(dir, "data")
	err = p.launch(dir, func(address string) (*exec.Cmd, error) {
		p.URL = "http://" + address
		return exec.Command(binary,
			"--config.file="+config,
			"--storage.tsdb.path="+data,
			"--storage.tsdb.retention.time=1d",
			"--web.listen-address="+address,
			"--web.enable-remote-write-receiver",
			"--log.level=warn"), os.WriteFile(config, []byte("global: {}\n"), 0o600)
	}, func(ctx context.Context) error { return p.answers(ctx, data) })
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { p.repeat(ctx) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return p
}

// Set gives a series its value from now on: a sample each 200 ms. When it
// returns, a query finds the value.
func (p *PrometheusServer) Set(name string, labels map[string]string, value float64) {
	p.t.Helper()
	p.change(series{labels: named(name, labels), value: value})
}

// Remove ends a series: a query finds it no more, as if its target were gone.
func (p *PrometheusServer) Remove(name string, labels map[string]string) {
	p.t.Helper()
	p.change(series{labels: named(name, labels), value: stale})
}

func named(name string, labels map[string]string) map[string]string {
	all := map[string]string{"__name__": name}
	maps.Copy(all, labels)
	return all
}

func (p *PrometheusServer) change(s series) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	key := string(appendLabels(nil, s.labels))
	if isStale(s.value) {
		delete(p.series, key)
	} else {
		p.series[key] = s
	}
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	if err := p.push(ctx, s); err != nil {
		p.t.Fatal(err)
	}
}

// repeat pushes all series, time and again. If it can't, Set will say so.
func (p *PrometheusServer) repeat(ctx context.Context) {
	tick := time.NewTicker(pushed)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		var all []series
		for _, s := range p.series {
			all = append(all, s)
		}
		p.push(ctx, all...)
		p.mu.Unlock()
	}
}

// push sends a sample of each series. The caller holds mu.
func (p *PrometheusServer) push(ctx context.Context, all ...series) error {
	if len(all) == 0 {
		return nil
	}
	// A series has one sample a millisecond, and one in the future is not found.
	now := time.Now().UnixMilli()
	for ; now <= p.last; now = time.Now().UnixMilli() {
		runtime.Gosched()
	}
	p.last = now
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/api/v1/write", bytes.NewReader(uncompressed(writeRequest(now, all))))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Encoding", "snappy")
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("push samples to Prometheus: %w", err)
	}
	defer response.Body.Close()
	if said, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("push samples to Prometheus: %s: %s", response.Status, bytes.TrimSpace(said))
	}
	return nil
}

// answers complains until ours answers at the address, and is ready.
func (p *PrometheusServer) answers(ctx context.Context, data string) error {
	if _, err := p.get(ctx, "/-/ready"); err != nil {
		return err
	}
	body, err := p.get(ctx, "/api/v1/status/flags")
	if err != nil {
		return err
	}
	var flags struct{ Data map[string]string }
	if err := json.Unmarshal(body, &flags); err != nil {
		return fmt.Errorf("the flags of Prometheus: %w", err)
	}
	if got := flags.Data["storage.tsdb.path"]; got != data {
		return fmt.Errorf("the Prometheus at %s has its data in %s, ours in %s", p.URL, got, data)
	}
	return nil
}

func (p *PrometheusServer) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// Promtool returns the path of the tool that comes with Prometheus.
func Promtool(t testing.TB) string {
	t.Helper()
	server, err := findPrometheus()
	if err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(filepath.Dir(server), "promtool")
	if _, err := os.Stat(tool); err != nil {
		t.Fatalf("promtool is not beside Prometheus: %v; get both with: make prometheus", err)
	}
	return tool
}

// Query evaluates an expression now, and returns how many series it gives.
func (p *PrometheusServer) Query(expression string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	body, err := p.get(ctx, "/api/v1/query?query="+url.QueryEscape(expression))
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct {
			ResultType string
			Result     []json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("the answer of Prometheus: %w", err)
	}
	return len(answer.Data.Result), nil
}

func findPrometheus() (string, error) {
	return locate("prometheus", "PINION_PROMETHEUS", "prometheus")
}
