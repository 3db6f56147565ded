package proposal

import (
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/ledger"
)

func TestVersionsThatNameADeployment(t *testing.T) {
	digest := "sha256:" + strings.Repeat("2", 64)
	one := ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.4.2@" + digest}}}
	two := ledger.Release{Pins: append([]ledger.Pin{{Artifact: "db", Image: "registry.example/db:3"}}, one.Pins...)}
	commit := "4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c"
	for _, c := range []struct {
		version string
		release ledger.Release
		want    bool
	}{
		{"1.4.2", one, true},
		{digest, one, true},
		{"1.4.2@" + digest, one, true},
		{"registry.example/web:1.4.2@" + digest, one, true},
		{"web-4f1c2aa90b7e", one, true},
		{"4F1C2AA", one, true},
		{"4f1c2a", one, false}, // too short to be told from a tag
		{"1.4", one, false},
		{"1.4.2", two, false}, // which of the two?
		{"db 3, web 1.4.2", two, true},
	} {
		if got := names(c.version, ledger.DeploymentID("web", commit), commit, c.release); got != c.want {
			t.Errorf("%s: %t, want %t", c.version, got, c.want)
		}
	}
}
