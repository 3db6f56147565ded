package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// sometimes are metrics that a daemon has only if there are several replicas, or
// if it watches a registry or talks to a forge; see TestRegistryIsWatched and
// TestPromotionByPullRequest.
var sometimes = []string{"pinion_leader", "pinion_forge_requests_total", "pinion_registry_requests_total", "pinion_registry_last_success_timestamp_seconds", "pinion_registry_failing_since_timestamp_seconds", "pinion_registry_backoff_seconds"}

// monitored checks that docs/metrics.md lists what the daemon has and nothing
// else, and loads the queries of the dashboards and the alerts against it.
func (d *daemon) monitored() {
	d.Helper()
	text, _ := d.get("/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	d.must(err)
	docs, err := os.ReadFile("../../docs/metrics.md")
	d.must(err)
	listed := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(pinion_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*)\\|").FindAllStringSubmatch(string(docs), -1) {
		var labels []string
		for _, l := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(m[3], ""), -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		listed[m[1]] = m[2] + " " + strings.Join(labels, " ")
	}
	had := map[string]string{}
	for name, f := range families {
		if !strings.HasPrefix(name, "pinion_") {
			continue
		}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		had[name] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, " ")
	}
	for _, name := range slices.Sorted(maps.Keys(had)) {
		if listed[name] != had[name] {
			d.Errorf("the daemon has %s, %s; docs/metrics.md has %q", name, had[name], listed[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if had[name] == "" && !slices.Contains(sometimes, name) {
			d.Errorf("docs/metrics.md lists %s, and the daemon does not have it", name)
		}
	}

	p := devtest.Prometheus(d)
	p.Set("up", map[string]string{"job": "pinion"}, 1)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if strings.HasPrefix(name, "pinion_") || strings.HasPrefix(name, "process_") {
			d.scrape(p, name, families[name])
		}
	}
	for _, file := range []string{"deployments.json", "daemon.json"} {
		data, err := os.ReadFile("../../examples/monitoring/" + file)
		d.must(err)
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		d.must(json.Unmarshal(data, &board))
		for _, panel := range board.Panels {
			for _, target := range panel.Targets {
				expr := strings.NewReplacer("$__rate_interval", "1m", "$environment", ".*").Replace(target.Expr)
				d.until(fmt.Sprintf("panel %q of %s shows something: %s", panel.Title, file, expr), func(context.Context) string {
					if n, err := p.Query(expr); err != nil || n == 0 {
						return fmt.Sprintf("%d series, %v", n, err)
					}
					return ""
				})
			}
		}
	}
	data, err := os.ReadFile("../../examples/monitoring/alerts.yaml")
	d.must(err)
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	d.must(yaml.Unmarshal(data, &rules))
	for _, r := range rules.Groups[0].Rules {
		if _, err := p.Query(r.Expr); err != nil {
			d.Errorf("%s: %v", r.Alert, err)
		}
	}
}

// scrape gives Prometheus the series of a metric.
func (d *daemon) scrape(p *devtest.PrometheusServer, name string, f *dto.MetricFamily) {
	for _, m := range f.Metric {
		labels := map[string]string{"job": "pinion", "instance": d.address}
		for _, l := range m.Label {
			labels[l.GetName()] = l.GetValue()
		}
		switch {
		case m.Histogram != nil:
			for _, b := range m.Histogram.Bucket {
				bucket := maps.Clone(labels)
				bucket["le"] = fmt.Sprint(b.GetUpperBound())
				p.Set(name+"_bucket", bucket, float64(b.GetCumulativeCount()))
			}
			p.Set(name+"_count", labels, float64(m.Histogram.GetSampleCount()))
		case m.Counter != nil:
			p.Set(name, labels, m.Counter.GetValue())
		case m.Gauge != nil:
			p.Set(name, labels, m.Gauge.GetValue())
		}
	}
}
