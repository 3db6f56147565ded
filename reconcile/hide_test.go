package reconcile

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/check"
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

// secretTarget is a target with one Secret that has a value.
func secretTarget(value string) *Target {
	return &Target{Result: &render.Result{Digest: value, Objects: []render.Object{
		{Ref: render.Ref{Kind: "Secret", Name: "s"}, JSON: fmt.Appendf(nil, `{"kind":"Secret","stringData":{"a":%q}}`, value)},
	}}}
}

// A text may quote what a Secret was before; so what it was is known for a
// while, also if the service has left and has come back.
func TestTextsHideWhatSecretsWere(t *testing.T) {
	a := secretTarget("value-1")
	a.pack()
	b := secretTarget("value-2").succeed(a)
	if got := b.hide("value-1, value-2"); got != "***, ***" {
		t.Errorf("after a change it says %q", got)
	}
	if a.former != nil || a.hide("value-2") != "value-2" {
		t.Error("the target before was changed")
	}
	again := secretTarget("value-2").succeed(b)
	if got := again.hide("value-1, value-2"); got != "***, ***" || len(again.former) != 1 {
		t.Errorf("after another commit it says %q, and knows %q", got, again.former)
	}
	bare := (&Target{Result: &render.Result{}}).succeed(again)
	if got := bare.hide("value-1, value-2"); got != "***, ***" {
		t.Errorf("without Secrets it says %q", got)
	}
	last := bare
	for i := range 2 * mostFormer {
		last = secretTarget(fmt.Sprintf("later-%d", i)).succeed(last)
	}
	if len(last.former) != mostFormer {
		t.Errorf("%d sets of values are known", len(last.former))
	}

	e := NewEngine(Options{})
	u := &unit{key: Key{"dev", "app"}, target: b}
	e.units[u.key] = u
	e.drop(u)
	if got := e.hide(u.key, "value-1, value-2"); got != "***, ***" {
		t.Errorf("of a service that has left it says %q", got)
	}
	if all := e.beside(Place{}); len(all) != 1 || all[0] != b {
		t.Errorf("beside it are %v", all)
	}
}

// What a check says is not recorded while it is not known what to cut out of it.
func TestACheckWaitsForWhatItMayQuote(t *testing.T) {
	c := &Clerk{cards: map[Key]*card{}, commit: &Commit{Repository: &desired.Repository{}}}
	key := checkKey{Key: Key{"dev", "app"}}
	c.card(key.Key).sighting = &Sighting{Key: key.Key}
	r := checked{key: key, blind: errors.New("no key opens it"), result: check.Result{Description: "value-1", Output: "value-1"}}
	if !c.hide(&r) || !strings.Contains(r.result.Description, "no key opens it") || strings.Contains(r.result.Description+r.result.Output, "value-1") {
		t.Errorf("without its Secrets it says %q, %q", r.result.Description, r.result.Output)
	}
	r = checked{key: key, secrets: []string{"value-1"}, result: check.Result{Output: "value-1, more"}}
	if !c.hide(&r) || r.result.Output != "***, more" {
		t.Errorf("with what its Secrets were it says %q", r.result.Output)
	}
}
