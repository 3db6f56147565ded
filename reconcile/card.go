package reconcile

import (
	"time"

	"github.com/pinion-cd/pinion/policy"
)

// card is what the clerk knows of one service in one environment besides its
// record.
type card struct {
	sighting *Sighting
	identity *identity
	drifts   []Drift // not recorded yet, oldest first
	asked    sighted // what the identity was, or is being, found for
	asking   bool
	against  string // the record's deployment when the identity was found
	at       string // the commit of main whose sighting the identity is of; "": one that is not known yet
	tip      string // the record tells all that main has asked for up to this commit; "": not known
	told     string // as tip, when the environment was ours before: a ledger only grows
	failures int    // to identify, in a row
	retry    time.Time
	trouble  string // the last that was reported
	judged   *policy.Judgement
	wake     time.Time // of the review
	decision *policy.Decision
	admitted *admitted
	enter    time.Time // of the admission
	back     string    // the deployment whose call dependsOn or suspend was seen to hold back
}

// sighted is what makes an identity another one.
type sighted struct {
	target  *Target
	problem string
	commit  string // of a problem
	folder  string // of the service, as its id
}

type identified struct {
	key      Key
	asked    sighted
	against  string
	tip      string
	identity identity
	err      error
}

// card returns what is known of a service.
func (c *Clerk) card(k Key) *card {
	d := c.cards[k]
	if d == nil {
		d = &card{}
		c.cards[k] = d
	}
	return d
}
