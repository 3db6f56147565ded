package reconcile

import (
	"slices"
	"testing"

	"github.com/pinion-cd/pinion/desired"
)

// What a commit has touched is looked at before all that it most probably left
// as it was; nothing is lost, and nothing else changes places.
func TestTouchedFirst(t *testing.T) {
	var all []desired.Deployment
	for _, env := range []desired.EnvironmentName{"dev", "staging"} {
		for _, svc := range []desired.ServiceName{"api", "db", "web"} {
			all = append(all, desired.Deployment{Environment: &desired.Environment{Name: env}, Service: &desired.Service{Name: svc}})
		}
	}
	for _, test := range []struct {
		changed []string
		want    []string
	}{
		{nil, []string{"dev/api", "dev/db", "dev/web", "staging/api", "staging/db", "staging/web"}},
		{[]string{"lib/app.libsonnet", "README.md"}, []string{"dev/api", "dev/db", "dev/web", "staging/api", "staging/db", "staging/web"}},
		{[]string{"environments/staging.yaml"}, []string{"staging/api", "staging/db", "staging/web", "dev/api", "dev/db", "dev/web"}},
		{[]string{"services/web/main.jsonnet"}, []string{"dev/web", "staging/web", "dev/api", "dev/db", "staging/api", "staging/db"}},
		{[]string{"environments/dev.yaml", "services/db/a/b.yaml"}, []string{"dev/api", "dev/db", "dev/web", "staging/db", "staging/api", "staging/web"}},
	} {
		var got []string
		for _, d := range touchedFirst(slices.Clone(all), test.changed) {
			got = append(got, string(d.Environment.Name)+"/"+string(d.Service.Name))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%v: %v", test.changed, got)
		}
	}
}
