package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Answer is what was done about a drift.
type Answer string

// The answers.
const (
	AnswerCorrected Answer = "corrected" // it was taken back
	AnswerReported  Answer = "reported"  // it stands: the environment has drift reported, and nothing more
	// AnswerContested: it was taken back again and again, and comes again each
	// time. It is taken back less and less often, and not recorded any more.
	AnswerContested Answer = "contested"
	AnswerEnded     Answer = "ended" // what stood, or was contested, is over
)

func (a Answer) known() bool {
	return slices.Contains([]Answer{AnswerCorrected, AnswerReported, AnswerContested, AnswerEnded}, a)
}

// Drift is what others did to what was applied.
type Drift struct {
	Answer  Answer    `json:"answer"`
	Changes []Drifted `json:"changes,omitempty"` // at most MaxDrifted; of an ended one, none
	More    string    `json:"more,omitempty"`    // how many changes there are besides: "12"
}

// Drifted is one field of an object, or an object as a whole, that somebody
// else has changed.
type Drifted struct {
	Object string `json:"object"`         // "Deployment.apps shop-dev/web"
	Path   string `json:"path,omitempty"` // ".spec.replicas"; empty: the object was deleted
	Old    string `json:"old,omitempty"`  // as it was applied; "" if it was removed from there, too
	New    string `json:"new,omitempty"`  // as it was found; empty: it was not there
	By     string `json:"by,omitempty"`   // the field manager, if it is known
}

// MaxDrifted is how many changes an entry lists.
const MaxDrifted = 40

const maxValue = 200 // bytes of a value

// Stands tells whether the cluster is known to be other than the commit wants
// it, or to become so again and again.
func (d *Drift) Stands() bool {
	return d != nil && (d.Answer == AnswerReported || d.Answer == AnswerContested)
}

// Same tells whether two drifts are the same changes with the same answer, as
// they are recorded.
func (d *Drift) Same(o *Drift) bool {
	d, o = d.normal(), o.normal()
	return d != nil && o != nil && d.Answer == o.Answer && d.More == o.More && slices.Equal(d.Changes, o.Changes)
}

// By returns the managers that are known, sorted, each once.
func (d *Drift) By() []string {
	var all []string
	for _, c := range d.Changes {
		if c.By != "" {
			all = append(all, c.By)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// String says what was changed: ".spec.replicas of Deployment.apps
// shop-dev/web: 2 → 5 (kubectl-scale)".
func (c Drifted) String() string {
	s := c.Object + " was deleted"
	if c.Path != "" {
		value := func(v string) string {
			if v == "" {
				return "nothing"
			}
			return v
		}
		s = fmt.Sprintf("%s of %s: %s → %s", c.Path, c.Object, value(c.Old), value(c.New))
	}
	if c.By != "" {
		s += " (" + c.By + ")"
	}
	return s
}

// String says in one line what was changed.
func (d *Drift) String() string {
	const most = 3
	var parts []string
	for i, c := range d.Changes {
		if i == most {
			break
		}
		parts = append(parts, c.String())
	}
	s := strings.Join(parts, "; ")
	switch n := len(d.Changes) - most; {
	case d.More != "":
		s += "; and more"
	case n > 0:
		s += fmt.Sprintf("; and %d more", n)
	}
	return s
}

func (d *Drift) normal() *Drift {
	if d == nil {
		return nil
	}
	n := &Drift{Answer: d.Answer, More: token(d.More, 20)}
	for _, c := range d.Changes {
		n.Changes = append(n.Changes, Drifted{
			Object: line(c.Object, maxToken), Path: line(c.Path, maxDescription),
			Old: line(c.Old, maxValue), New: line(c.New, maxValue), By: line(c.By, maxToken),
		})
	}
	return n
}

func (d *Drift) valid() error {
	switch {
	case !d.Answer.known():
		return fmt.Errorf("there is no answer %q to a drift", d.Answer)
	case (len(d.Changes) == 0) != (d.Answer == AnswerEnded):
		return fmt.Errorf("a drift that is %s has %d changes", d.Answer, len(d.Changes))
	case len(d.Changes) > MaxDrifted:
		return fmt.Errorf("it lists %d changes, more than %d", len(d.Changes), MaxDrifted)
	case d.More != "" && strings.Trim(d.More, "0123456789") != "":
		return fmt.Errorf("%q is not a number of changes", d.More)
	}
	for _, c := range d.Changes {
		if c.Object == "" {
			return fmt.Errorf("a change does not say of which object")
		}
	}
	return nil
}

// trailer writes a change in JSON, which is one line whatever the values are.
func (c Drifted) trailer() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(c); err != nil {
		return "" // a struct of texts can be written
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func parseDrifted(s string) (Drifted, error) {
	var c Drifted
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || d.More() {
		return Drifted{}, fmt.Errorf("%q is not a change of an object", brief(s, 100))
	}
	return c, nil
}
