package reconcile

import (
	"context"
	"crypto/sha256"
	"slices"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// memory is what the newest entries of a ledger tell that its records do not
// keep: what was said, late or not, and which releases were there or waited. It
// is read when it is first asked for, and a book hands it on to the next one.
type memory struct {
	tip   string // up to which the entries are taken in
	items []remembered
}

// remembered is one entry.
type remembered struct {
	commit  string
	event   ledger.Event
	service desired.ServiceName
	policy  desired.PolicyName
	late    bool
	said    statement
	about   topic
}

// statement is the same for two entries that say the same of the same, whenever
// that was and whether it was late.
type statement [sha256.Size]byte

// mostRemembered is how many of a ledger's newest entries are looked at.
const mostRemembered = 1000

// statementOf tells what an entry says.
func statementOf(e ledger.Entry) statement {
	e.Reason, e.Late, e.From, e.Manifests = "", false, nil, ""
	return sha256.Sum256([]byte(e.Message()))
}

// rememberedOf returns what is kept of an entry; false if that is nothing.
func rememberedOf(commit string, e ledger.Entry) (remembered, bool) {
	r := remembered{commit: commit, event: e.Event, service: e.Service, policy: e.Policy, late: e.Late,
		about: topic{e.Candidate, e.Deployment, e.Commit, e.Release, e.Manifests, e.From}}
	switch e.Event {
	case ledger.EventPinned, ledger.EventOffered:
		return r, true
	case ledger.EventCheck:
		r.policy = e.Checks[0].Policy
	case ledger.EventApproved:
		r.policy = e.Approval.Policy
	case ledger.EventRerun:
	default:
		return r, false
	}
	r.said = statementOf(e)
	return r, true
}

// add takes in the next entry.
func (m *memory) add(commit string, e ledger.Entry) {
	if r, ok := rememberedOf(commit, e); ok {
		m.items = append(m.items, r)
	}
	if len(m.items) >= 2*mostRemembered {
		m.items = slices.Clone(m.items[len(m.items)-mostRemembered:])
	}
	m.tip = commit
}

// wrote takes in an entry of ours, if none before it is missing.
func (m *memory) wrote(before, commit string, e ledger.Entry) {
	if m != nil && m.tip == before {
		m.add(commit, e.Normal())
	}
}

// first finds the entry that has said the same already. What was said before a
// result was taken back, or before a release was offered anew, is over. Of what
// counted when it came, only an approval and a report with a URL are known for
// sure to be asked for once more: without one it may be of another run.
func (m *memory) first(e ledger.Entry) (remembered, bool) {
	want, ok := rememberedOf("", e)
	if !ok {
		return remembered{}, false
	}
	sure := e.Event == ledger.EventApproved || e.Event == ledger.EventCheck && e.Checks[0].URL != ""
	for _, r := range slices.Backward(m.items) {
		switch {
		case r.service != want.service:
		case r.said == want.said && (r.late || sure):
			return r, true
		case !r.about.same(want.about):
		case r.event == ledger.EventRerun && !r.late && r.policy == want.policy, r.event == ledger.EventOffered:
			return remembered{}, false
		}
	}
	return remembered{}, false
}

// find returns the newest deployment, or release that waited, that version means.
func (m *memory) find(svc desired.ServiceName, version string) (topic, bool) {
	for _, r := range slices.Backward(m.items) {
		if r.service == svc && (r.event == ledger.EventPinned || r.event == ledger.EventOffered) && r.about.means(version) {
			return r.about, true
		}
	}
	return topic{}, false
}

// memory returns that of an environment, up to the entry that is judged on.
func (c *Clerk) memory(ctx context.Context, env desired.EnvironmentName) (*memory, error) {
	b := c.books[env]
	if b == nil || b.tip == "" {
		return &memory{}, nil
	}
	if b.memory == nil {
		b.memory = &memory{}
	}
	m := b.memory
	if m.tip == b.tip {
		return m, nil
	}
	type written struct {
		commit string
		entry  ledger.Entry
	}
	var fresh []written
	met, looked := false, 0
	err := c.options.Mirror.History(ctx, b.tip, func(info gitstate.CommitInfo) bool {
		if met = info.ID == m.tip; met || looked == mostRemembered {
			return false
		}
		looked++
		if e, err := ledger.ParseMessage(info.Message, info.Committer.Time); err == nil {
			fresh = append(fresh, written{info.ID, e})
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if !met {
		m.items = nil
	}
	for _, w := range slices.Backward(fresh) {
		m.add(w.commit, w.entry)
	}
	m.tip = b.tip
	return m, nil
}
