package reconcile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

func pinEdit(artifact desired.ArtifactName, version string) desired.Edit {
	return desired.Edit{Service: desired.ServiceName(artifact), Pins: []desired.PinEdit{{Artifact: artifact, Reference: fmt.Sprintf("registry.example/%s:%s", artifact, version)}}}
}

// What was written for one try is there for the next, as long as it is the
// same, and what comes of it is what one editor makes of it.
func TestDraftIsKept(t *testing.T) {
	d := &draft{file: "environments/production.yaml", base: "b", data: []byte(production)}
	write := func(edit desired.Edit) string {
		t.Helper()
		b, err := d.write(edit)
		if err != nil {
			t.Fatal(err)
		}
		return string(b.Data())
	}
	api := strings.Replace(production, "api:2.0.0", "api:2.1.0", 1)
	both := strings.Replace(api, "web:1.4.1", "web:1.4.2", 1)
	if got := write(pinEdit("api", "2.1.0")); got != api {
		t.Errorf("after one edit:\n%s", got)
	}
	if _, err := d.write(pinEdit("db", "1.0.0")); !errors.Is(err, desired.ErrNotPinned) {
		t.Errorf("a pin that is not there: %v", err)
	}
	if got := write(pinEdit("web", "1.4.2")); got != both {
		t.Errorf("after two:\n%s", got)
	}
	first := d.steps[0].blob

	// The same file at another tip.
	if !d.begin("b") {
		t.Fatal("its own base is unknown")
	}
	if b, err := d.write(pinEdit("api", "2.1.0")); err != nil || b != first {
		t.Errorf("the first edit was made again: %v", err)
	}
	if _, err := d.write(pinEdit("db", "1.0.0")); !errors.Is(err, desired.ErrNotPinned) {
		t.Errorf("a pin that is not there, asked again: %v", err)
	}
	// Something else is decided now.
	other := strings.Replace(api, "web:1.4.1", "web:1.4.3", 1)
	if got := write(pinEdit("web", "1.4.3")); got != other {
		t.Errorf("after another second edit:\n%s", got)
	}
	if d.begin("another") {
		t.Error("a file that nobody knows counts as the base")
	}
}

// A decision is made again where anything that it was made from is another, or
// time has passed.
func TestAdmittedStands(t *testing.T) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	x := admitted{grounds: "a b", at: at}
	for _, c := range []struct {
		after   time.Duration
		grounds string
		want    bool
	}{
		{0, "a b", true},
		{sameMoment - 1, "a b", true},
		{sameMoment, "a b", false},
		{-1, "a b", false},
		{0, "a c", false},
	} {
		if got := x.stands(at.Add(c.after), c.grounds); got != c.want {
			t.Errorf("%s later, by %q: %v", c.after, c.grounds, got)
		}
	}
}
