package reconcile

import (
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// Sighting is what an engine last saw of a service in an environment. It is
// all that the ledger is told of a cluster; a newer one replaces it.
type Sighting struct {
	Key
	// Target is what is being made of the service; nil: it never could be
	// rendered.
	Target *Target
	// Tip is the newest commit of which it is certain that it wants Target.
	Tip string
	// Problem says why the newest commit's wish can't be had, if its author
	// alone can mend that; Wanted is that wish, as far as it can be read.
	Problem string
	Wanted  *desired.Deployment
	Phase   Phase // of Target
	Message string
	// Started: objects were, or are being, written, or were found as Target
	// wants them.
	Started bool
	// Final says that Phase is Failed and stays so until the commit changes.
	Final bool
	// Note says what was done besides what everybody expects: what was adopted,
	// and what was replaced.
	Note string
	// Evidence is what pods, logs and events say of a rollout that has failed;
	// in paragraphs, set with Final.
	Evidence string
	// Healthy is, of what is Ready, since when it has been so without a gap, as far
	// as that was seen or the cluster vouches for it; zero: since its rollout.
	Healthy time.Time
	// Blind: the cluster can't be seen at the moment, and Phase is what it was last.
	Blind bool
	// InSync: every object is as Target wants it. Contested: others change what
	// is corrected again and again, or did so a short while ago.
	InSync    bool
	Contested bool

	term *cluster.Term // under which it was seen
}
