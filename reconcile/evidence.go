package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/reconcile/check"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// The bounds of what is asked of a cluster about a rollout that has failed, and
// of what is written of it. The entry in the ledger waits for it no longer.
const (
	inquiryTime    = 5 * time.Second
	inquiryObjects = 2
	logLines       = 10
	logBytes       = 1200
	evidenceBytes  = 2600 // the message before it is in the same body
)

// inquiry is what was found out about a rollout that has failed.
type inquiry struct {
	target   *Target
	evidence string
}

// inquireLater asks for an inquiry of a rollout that has failed, once for
// each target, and holds back that it has until that is done.
func (e *Engine) inquireLater(u *unit, s Step) Step {
	if !s.Inquire || u.target == nil || e.connection(u.target) == nil {
		return s
	}
	if !u.inquired {
		u.inquired, u.inquiring = true, true
		e.inquiries = append(e.inquiries, u.key)
	}
	if u.inquiring {
		s.Final = false
	}
	return s
}

// inquire starts the inquiries that were asked for.
func (e *Engine) inquire(ctx context.Context) {
	keys := e.inquiries
	e.inquiries = nil
	for _, k := range keys {
		u := e.units[k]
		if u == nil || !u.inquiring || u.target == nil {
			continue
		}
		t, cl := u.target, e.connection(u.target)
		unready, beside := slices.Clone(u.unready), e.beside(t.Place)
		e.jobs.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, inquiryTime)
			defer cancel()
			e.inquired <- inquiry{t, hide(evidenceOf(ctx, cl, unready), beside)}
		})
	}
}

// found takes in what an inquiry has found.
func (e *Engine) found(x inquiry) {
	u := e.units[x.target.Key]
	if u == nil || u.target != x.target {
		return // another target has taken its place
	}
	u.inquiring, u.evidence = false, x.evidence
	e.dirty[u.key] = true
	if x.evidence != "" && !e.recorded {
		e.report(Event{Type: EventWarning, Environment: u.key.Environment, Service: u.key.Service, Version: u.target.Version(), Message: x.evidence})
	}
}

// evidenceOf says in paragraphs what the cluster can tell of the first objects
// that are not ready.
func evidenceOf(ctx context.Context, cl *cluster.Cluster, unready []Unready) string {
	var paragraphs []string
	for _, x := range unready[:min(len(unready), inquiryObjects)] {
		found := cl.Evidence(ctx, x.Ref, logLines, 4*logBytes) // escape sequences go yet
		if found.Pod != "" && strings.Contains(x.Health.Reason, found.Pod) {
			found.Trouble = "" // it is said already
		}
		paragraphs = append(paragraphs, words(x.Ref, found)...)
	}
	text := strings.Join(slices.Compact(paragraphs), "\n\n")
	if len(text) > evidenceBytes {
		text = strings.ToValidUTF8(text[:evidenceBytes], "") + "…"
	}
	return text
}

// words says what was found of one object.
func words(ref render.Ref, e cluster.Evidence) []string {
	var said []string
	unread := func(what string, err error) {
		if err != nil {
			said = append(said, fmt.Sprintf("No %s of %s: %v.", what, ref, err))
		}
	}
	unread("pods", e.PodsErr)
	if e.Trouble != "" {
		said = append(said, fmt.Sprintf("Pod %s: %s.", e.Pod, strings.TrimSuffix(e.Trouble, ".")))
	}
	if w := e.Warning; w != nil {
		said = append(said, fmt.Sprintf("Newest warning, of %s at %s: %s: %s.", w.About, w.Time.Format(time.RFC3339), w.Reason, strings.TrimSuffix(w.Message, ".")))
	}
	unread("events", e.EventsErr)
	which := ""
	if e.Previous {
		which = ", before it was started again"
	}
	switch log := check.Tail(string(e.Log), logLines, logBytes); {
	case e.LogErr != nil:
		unread("log", e.LogErr)
	case log != "":
		said = append(said, fmt.Sprintf("The last lines of container %s of pod %s%s:\n    %s", e.Container, e.Pod, which, strings.ReplaceAll(log, "\n", "\n    ")))
	case e.Container != "":
		said = append(said, fmt.Sprintf("Container %s of pod %s has written nothing%s.", e.Container, e.Pod, which))
	}
	return said
}
