package proposal

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/reconcile"
)

// A version that can't be one is wrong whatever there is; one that does not fit
// may fit tomorrow.
func TestVersionsThatAreNone(t *testing.T) {
	t.Parallel()
	repo, err := desired.Read(desired.Hashed(fstest.MapFS{
		"environments/dev.yaml":     {Data: []byte("apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: dev\npins:\n  web: {image: registry.example/web:1.0.0}\n")},
		"environments/staging.yaml": {Data: []byte("apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: staging\n")},
		"services/web/service.yaml": {Data: []byte("apiVersion: pinion.dev/v1\nkind: Service\nartifacts: [web, worker]\n")},
	}), nil)
	if err != nil || len(repo.Environments) != 2 || len(repo.Services) != 1 {
		t.Fatal(err, repo.Problems)
	}
	gr := &Ground{View: &history.View{}, Commit: &reconcile.Commit{Repository: repo}}
	digest := "sha256:" + strings.Repeat("0", 64)
	for _, version := range []string{
		"no version", "a b", "../x", "latest@sha256:12", "1.0.0@md5:" + strings.Repeat("0", 32), strings.Repeat("1", 200), "-1", ".", "1.0.0\n",
		"https://registry.example/web:1.0.0", "registry.example/Web:1.0.0", "1.0.0@" + digest + "0", "sha256:" + strings.Repeat("0", 63), "@",
	} {
		for _, in := range []Pin{
			{Environment: "dev", Artifact: "web", Version: version},
			{Environment: "staging", Artifact: "web", Version: version},
			{Environment: "dev", Artifact: "worker", Version: version, Add: true}, // which nobody pins
		} {
			_, err := in.Propose(t.Context(), gr)
			if malformed := new(*Malformed); !errors.As(err, malformed) || errors.As(err, new(*Unfit)) {
				t.Errorf("%+v: %T %v", in, err, err)
			}
		}
	}
	for _, version := range []string{"1.0.0", "1.0.0@" + digest, digest, "@" + digest} {
		for _, in := range []Pin{
			{Environment: "staging", Artifact: "web", Version: version},
			{Environment: "dev", Artifact: "worker", Version: version, Add: true},
		} {
			if _, err := in.Propose(t.Context(), gr); !errors.As(err, new(*Unfit)) || errors.As(err, new(*Malformed)) {
				t.Errorf("%+v: %T %v", in, err, err)
			}
		}
	}
}
