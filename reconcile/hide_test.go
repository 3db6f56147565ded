package reconcile

import (
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/render"
)

// Whoever wrote a text about a service, its Secrets are not in it.
func TestTextsAboutAServiceHideItsSecrets(t *testing.T) {
	u := &unit{target: &Target{Result: &render.Result{Objects: []render.Object{
		{Ref: render.Ref{Kind: "Secret", Name: "s"}, JSON: []byte(`{"kind":"Secret","data":{"a":"Y2FuYXJ5LXZhbHVl"}}`)},
		{Ref: render.Ref{Kind: "ConfigMap", Name: "c"}, JSON: []byte(`{"kind":"ConfigMap","data":{"b":"decrypted-text","c":"open"}}`), Hidden: []string{"/data/b"}},
	}}}}
	text := "pod web: log: canary-value; Y2FuYXJ5LXZhbHVl; 63616e6172792d76616c7565; decrypted-text; open"
	if got := u.hide(text); strings.Count(got, render.Masked) != 4 || !strings.HasSuffix(got, "; open") {
		t.Errorf("it says %q", got)
	}
	u.target.pack() // as at rest
	if got := u.hide(text); strings.Count(got, render.Masked) != 4 {
		t.Errorf("when it is packed it says %q", got)
	}
	u.phase, u.message = Failed, text
	if got := u.status().Message; strings.Contains(got, "canary") {
		t.Errorf("the status says %q", got)
	}
	if got := (&unit{}).hide(text); got != text {
		t.Errorf("without a target it says %q", got)
	}
}
