package gitstate

import (
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
)

// sent are the objects that the remote has taken although it then refused to
// move the branch, since that had moved: git stores what it was sent before it
// looks at the branch. The next push, judged on the new tip, is made of mostly
// the same files and folders, and time is short, for others move the branch
// again; so it leaves them out.
//
// A server owes nobody to keep them, so this is a guess. It notices what is
// missing, for before it moves a branch it walks what is new behind it; then
// they are forgotten and all of it is sent at once again.
//
// None of them is believed in for longer than keptFor after the oldest came, so
// that they are there together or gone together. That matters, for git's
// "atomic" does not cover it: a branch is moved also if another of the same push
// lacks objects.
type sent struct {
	ids   map[plumbing.Hash]bool
	until time.Time
	never bool // this remote does not keep them
}

// keptFor is how long a remote is believed to keep them: git's own servers do
// it for days.
const keptFor = 10 * time.Minute

func (s *sent) forget() { s.ids, s.until = nil, time.Time{} }

// remember adds objects to what the remote has taken.
func (s *sent) remember(objects []*made, now time.Time) {
	if s.never {
		return
	}
	if len(s.ids) == 0 || now.After(s.until) {
		s.ids, s.until = make(map[plumbing.Hash]bool, len(objects)), now.Add(keptFor)
	}
	for _, o := range objects {
		s.ids[o.id] = true
	}
}

// landed leaves out what a branch holds now: the mirror knows of that.
func (s *sent) landed(objects []*made) {
	for _, o := range objects {
		delete(s.ids, o.id)
	}
}

// lean are the objects of some chains that the remote is not known to have;
// all of them if it is known to have none of some chain. The tips are among
// them always, for there are servers that take no empty pack.
func (s *sent) lean(list []*chain, objects []*made, now time.Time) []*made {
	if len(s.ids) == 0 || now.After(s.until) {
		return objects
	}
	tips := map[plumbing.Hash]bool{}
	for _, c := range list {
		tips[c.tip()] = true
		some := false
		for _, o := range c.objects {
			some = some || s.ids[o.id] && o.id != c.tip()
		}
		if !some {
			return objects
		}
	}
	var rest []*made
	for _, o := range objects {
		if !s.ids[o.id] || tips[o.id] {
			rest = append(rest, o)
		}
	}
	return rest
}

// lacks tells whether a refusal may come from objects that were left out:
// whether it is anything but a lost race and a rule.
func lacks(report *packp.ReportStatus) bool {
	if report.UnpackStatus != "ok" {
		return true
	}
	for _, s := range report.CommandStatuses {
		if s.Status != "ok" && !raced(s.Status) && !strings.Contains(s.Status, "hook") && !secondary(s.Status) {
			return true
		}
	}
	return false
}
