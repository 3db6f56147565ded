package devtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPrometheus(t *testing.T) {
	t.Parallel()
	began := time.Now()
	p := Prometheus(t)
	t.Logf("ready after %s", time.Since(began).Round(time.Millisecond))

	web := map[string]string{"service": "web", "path": "a \"quoted\"\n\\ one"}
	p.Set("requests", map[string]string{"service": "shop"}, 3)
	for i := range 100 {
		p.Set("requests", web, float64(i)/2)
		wantValue(t, p, `requests{service="web"}`, fmt.Sprint(float64(i)/2))
	}
	wantValue(t, p, `requests{service="shop"}`, "3")
	wantValue(t, p, `count(requests{path="a \"quoted\"\n\\ one"})`, "1")
	wantValue(t, p, `count({__name__=~".+"})`, "2")
	p.Set("share", nil, math.NaN())
	wantValue(t, p, "share", "NaN")
	p.Set("share", nil, math.Inf(1))
	wantValue(t, p, "share", "+Inf")

	p.Remove("requests", web)
	wantValue(t, p, `requests{service="web"}`, "")
	wantValue(t, p, "sum(requests)", "3")
	p.Set("requests", web, 4)
	wantValue(t, p, "sum(requests)", "7")
}

// A series has new samples for as long as the test runs.
func TestPrometheusGoesOn(t *testing.T) {
	t.Parallel()
	p := Prometheus(t)
	p.Set("up", nil, 1)
	ctx, cancel := context.WithTimeout(t.Context(), ready)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got := query(t, p, "count_over_time(up[1m]) >= bool 5")
		if got == "1" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %s the query still says %q", ready, got)
		}
	}
}

// More than a literal of snappy holds.
func TestPrometheusHoldsMuch(t *testing.T) {
	t.Parallel()
	p := Prometheus(t)
	for i := range 20 {
		p.Set("much", map[string]string{"n": fmt.Sprint(i), "long": strings.Repeat("x", 10_000)}, 1)
	}
	p.mu.Lock()
	var all []series
	for _, s := range p.series {
		s.value = 2
		all = append(all, s)
	}
	err := p.push(t.Context(), all...)
	p.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	wantValue(t, p, "max_over_time(sum(much)[1m:1ms])", "40")
}

func TestPrometheusEndsWithTheTest(t *testing.T) {
	t.Parallel()
	var p *PrometheusServer
	t.Run("inner", func(t *testing.T) { p = Prometheus(t) })
	if err := p.process.process.Signal(syscall.Signal(0)); err == nil {
		t.Error("Prometheus has outlived its test")
	}
	if _, err := p.get(context.Background(), "/-/ready"); err == nil {
		t.Error("it still answers")
	}
}

func TestFindPrometheus(t *testing.T) {
	root, other := t.TempDir(), t.TempDir()
	t.Setenv("PATH", other)
	t.Setenv("PINION_PROMETHEUS", "")
	t.Chdir(root)
	if err := os.WriteFile("go.mod", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if path, err := findPrometheus(); err == nil || !strings.Contains(err.Error(), "make prometheus") {
		t.Errorf("found %q, %v; want an error that says how to get it", path, err)
	}
	wantFound := func(want string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(want), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(want, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := findPrometheus(); err != nil || got != want {
			t.Errorf("found %q, %v; want %s", got, err, want)
		}
	}
	wantFound(filepath.Join(root, ".cache/prometheus/usr/bin/prometheus"))
	wantFound(filepath.Join(other, "prometheus"))
	named := filepath.Join(root, "mine")
	t.Setenv("PINION_PROMETHEUS", named)
	if path, err := findPrometheus(); err == nil || !strings.Contains(err.Error(), "PINION_PROMETHEUS") {
		t.Errorf("found %q, %v; want an error about the variable", path, err)
	}
	wantFound(named)
}

// wantValue wants one value, or with "" none.
func wantValue(t *testing.T, p *PrometheusServer, expression, want string) {
	t.Helper()
	if got := query(t, p, expression); got != want {
		t.Errorf("%s is %q, want %q", expression, got, want)
	}
}

func query(t *testing.T, p *PrometheusServer, expression string) string {
	t.Helper()
	body, err := p.get(context.Background(), "/api/v1/query?query="+url.QueryEscape(expression))
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, result := range answer.Data.Result {
		values = append(values, fmt.Sprint(result.Value[1]))
	}
	return strings.Join(values, " ")
}
