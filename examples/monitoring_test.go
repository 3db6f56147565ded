package examples_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// The alerting rules are sound, and each fires when it should.
func TestAlerts(t *testing.T) {
	tool := devtest.Promtool(t)
	for _, args := range [][]string{{"check", "rules", "monitoring/alerts.yaml"}, {"test", "rules", "testdata/alerts.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// Alerts and dashboards ask for nothing that the daemon does not have.
func TestMonitoringNamesMetrics(t *testing.T) {
	docs, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(pinion_[a-z_]+)`").FindAllSubmatch(docs, -1) {
		known[string(m[1])] = true
	}
	for _, name := range []string{"alerts.yaml", "deployments.json", "daemon.json"} {
		data, err := os.ReadFile("monitoring/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`pinion_[a-z_]+`).FindAllString(string(data), -1) {
			for _, end := range []string{"_bucket", "_count", "_sum"} {
				if !known[m] {
					m = strings.TrimSuffix(m, end)
				}
			}
			if !known[m] {
				t.Errorf("%s names %s, which docs/metrics.md does not have", name, m)
			}
		}
	}
	for _, name := range []string{"deployments.json", "daemon.json"} {
		data, err := os.ReadFile("monitoring/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			UID, Title string
			Panels     []struct{ ID int }
		}
		if err := json.Unmarshal(data, &board); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ids := map[int]bool{}
		for _, p := range board.Panels {
			if ids[p.ID] || p.ID == 0 {
				t.Errorf("%s: the panel id %d is there twice", name, p.ID)
			}
			ids[p.ID] = true
		}
		if board.UID == "" || board.Title == "" || len(ids) == 0 {
			t.Errorf("%s is no dashboard", name)
		}
	}
}
