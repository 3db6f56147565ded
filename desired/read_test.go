package desired_test

import (
	"testing"
	"testing/fstest"

	"github.com/pinion-cd/pinion/desired"
)

func TestReadHappy(t *testing.T) {
	files := fstest.MapFS{
		"environments/dev.yaml":     {Data: []byte("apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: shop\npins:\n  web:\n    image: web:1.4.2\n")},
		"services/web/service.yaml": {Data: []byte("apiVersion: pinion.dev/v1\nkind: Service\n")},
		"pipelines/default.yaml":    {Data: []byte("apiVersion: pinion.dev/v1\nkind: Pipeline\nservices: [\"*\"]\nstages:\n- environment: dev\n")},
	}
	r, err := desired.Read(desired.Hashed(files), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Error(p)
	}
	if d := r.Deployments(); len(d) != 1 || d[0].Pins[0].Image.Version != "1.4.2" {
		t.Errorf("deployments: %+v", d)
	}
}
