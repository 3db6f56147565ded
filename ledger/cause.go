package ledger

import "slices"

// CauseOf tells why a record's next deployment comes about. isPinion says that
// the commit is the daemon's own or has its trailers, and change is what its
// message claims. The claim counts only if the next release is what it says;
// for all the rest, what counts is what changes.
func CauseOf(r Record, next Release, change Change, isPinion bool) Cause {
	cur := r.Deployment
	if isPinion && change.leadsTo(r, next) {
		switch change.Kind {
		case ChangePromoted:
			return CausePromotion
		case ChangeTracked:
			return CauseTracking
		case ChangeRolledBack:
			return CauseRollback
		}
	}
	switch {
	case isPinion && change.bringsOffer(r, next):
		return CausePromotion
	case cur.ID == "":
		return CausePin
	case cur.Release.SamePins(next):
		return CauseManifests
	case goesBack(r, next):
		return CauseRevert
	}
	return CausePin
}

// leadsTo tells whether a release can be what the change claims to be.
func (c Change) leadsTo(r Record, next Release) bool {
	if r.Service != "" && (c.Service != r.Service || c.Environment != r.Environment) {
		return false
	}
	if c.Release.isZero() || c.Release.Source != "" && c.Release.Source != next.Source {
		return false
	}
	for _, p := range c.Release.Pins {
		if !slices.Contains(next.Pins, p) {
			return false
		}
	}
	return true
}

// goesBack tells whether a release is an earlier one: by its versions, or, where
// they don't say, because it was here before. One that is refused and comes
// nevertheless is a second attempt, not a retreat.
func goesBack(r Record, next Release) bool {
	if o, ok := compare(next, r.Deployment.Release); ok && o.lower != o.higher {
		return o.lower
	}
	if _, refused := r.Refuses(next); refused {
		return false
	}
	_, before := r.RanBefore(next)
	return before || r.Verified != nil && r.Verified.Release.SamePins(next)
}
