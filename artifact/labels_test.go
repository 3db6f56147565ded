package artifact_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/artifact"
)

func TestFactsOf(t *testing.T) {
	f, dropped := artifact.FactsOf(map[string]string{
		"org.opencontainers.image.revision": "4f1c2aa90b7e", "dev.pinion.branch": " main\n", "org.label-schema.vcs-url": "https://git.example/web",
		"org.opencontainers.image.source": "", "dev.pinion.build": "https://ci.example/5", "dev.pinion.tests": "passed", "dev.pinion.quality": "failed",
		"org.opencontainers.image.created": "2026-11-19T10:00:00Z", "dev.pinion.committed": "2026-11-19T10:59:00+01:00", "maintainer": "somebody",
	}, time.Unix(0, 0))
	want := artifact.Facts{Commit: "4f1c2aa90b7e", Branch: "main", Source: "https://git.example/web", Build: "https://ci.example/5",
		Tests: artifact.Passed, Quality: artifact.Failed, Created: began}
	if !f.Committed.Equal(began.Add(-time.Minute)) {
		t.Errorf("it was committed %s", f.Committed)
	}
	f.Committed = time.Time{}
	if f != want || len(dropped) != 0 {
		t.Errorf("it says %+v, %q; want %+v", f, dropped, want)
	}
	for _, c := range []struct{ made, want time.Time }{{time.Unix(0, 0), time.Time{}}, {time.Time{}, time.Time{}}, {began, began}} {
		if f, _ := artifact.FactsOf(nil, c.made); !f.Created.Equal(c.want) {
			t.Errorf("one that was made %s was built %s", c.made, f.Created)
		}
	}
	f, dropped = artifact.FactsOf(map[string]string{"dev.pinion.tests": "perhaps", "dev.pinion.build": "https://user:secret@ci.example/5", "dev.pinion.commit": "HEAD", "dev.pinion.branch": "a b",
		"org.opencontainers.image.created": "yesterday", "dev.pinion.committed": "1764500000"}, time.Time{})
	if f != (artifact.Facts{}) || len(dropped) != 4 || strings.Contains(strings.Join(dropped, " "), "secret") {
		t.Errorf("it says %+v, %q", f, dropped)
	}
}

func FuzzFactsOf(f *testing.F) {
	f.Add("dev.pinion.commit", "4f1c2aa", "org.opencontainers.image.created", "2026-11-19T10:00:00Z")
	f.Fuzz(func(t *testing.T, a, x, b, y string) {
		facts, _ := artifact.FactsOf(map[string]string{a: x, b: y}, time.Time{})
		if err := facts.Check(); err != nil {
			t.Fatal(err)
		}
	})
}
