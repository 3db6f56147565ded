package check

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// Request is one check to be made for one deployment.
type Request struct {
	Environment *desired.Environment
	Service     desired.ServiceName
	// Deployment is the ledger's id of the deployment, or, of a candidate, any
	// key that stays the same for it.
	Deployment string
	Run        int // counted up when the check is to be made once more
	Policy     *desired.Policy
	Pins       []desired.Pin
	Tree       desired.Tree // of the commit whose policy it is
	Deadline   time.Time    // of the policy's timeout; zero: none
}

// Result is what a check came to.
type Result struct {
	Result      ledger.Result
	Description string // one line
	URL         string // what was asked, without user info; empty for a Job
	// Output is the end of what a Job wrote: at most 50 lines and 4 KiB, without
	// control characters.
	Output string
}

// Options say how checks are made.
type Options struct {
	// Interval is the first pause between two tries; the pauses double up to 15
	// times that. 0 means 2 s.
	Interval time.Duration
	// Allow is who may be asked; the zero value: nobody.
	Allow outbound.Allow
	// Resolver finds the addresses of names; nil: the system's.
	Resolver *net.Resolver
}

// The bounds of a check whose policy has no timeout. A Job has none.
const (
	boundHTTP       = 5 * time.Minute
	boundPrometheus = 10 * time.Minute // besides For
)

// Runner makes checks. It may be used by several goroutines.
type Runner struct {
	clusters map[desired.ClusterName]*cluster.Cluster
	interval time.Duration
	client   *http.Client

	mu      sync.Mutex
	running map[[sha256.Size]byte][]chan struct{} // guarded by mu; closed when a Run ends
}

// New returns a Runner for the environments of some clusters.
func New(clusters map[desired.ClusterName]*cluster.Cluster, options Options) *Runner {
	if options.Interval <= 0 {
		options.Interval = 2 * time.Second
	}
	return &Runner{clusters: clusters, interval: options.Interval, client: outbound.NewClient(outbound.Options{Allow: options.Allow, Resolver: options.Resolver}), running: map[[sha256.Size]byte][]chan struct{}{}}
}

// Run makes a check, and returns when it is decided. If ctx ends before, then
// nothing is decided, and ctx's error comes back; any other error says that
// the request is none for this Runner. progress, which may be nil, is told in
// words what is waited for, each time that this changes.
func (r *Runner) Run(ctx context.Context, q Request, progress func(string)) (Result, error) {
	defer r.begin(q)()
	said := ""
	say := func(words string) {
		if words = line(words); words != said && progress != nil {
			said = words
			progress(words)
		}
	}
	var result Result
	var err error
	switch q.Policy.Check {
	case desired.CheckJob:
		result, err = r.job(ctx, q, say)
	case desired.CheckHTTP:
		result, err = r.http(ctx, q, say)
	case desired.CheckPrometheus:
		result, err = r.prometheus(ctx, q, say)
	case desired.CheckReport, desired.CheckSoak, desired.CheckApproval, desired.CheckWindow, desired.CheckCEL:
		return Result{}, fmt.Errorf("check %s: a policy of kind %s is judged, not run", q.Policy.Name, q.Policy.Check)
	default:
		return Result{}, fmt.Errorf("check %s: there is no kind of check %q", q.Policy.Name, q.Policy.Check)
	}
	if err != nil {
		return Result{}, err
	}
	result.Description = line(result.Description)
	return result, nil
}

// begin takes note that a check is being made, until the returned function is
// called.
func (r *Runner) begin(q Request) (end func()) {
	key, ended := q.key(), make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[key] = append(r.running[key], ended)
	return func() {
		close(ended)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.running[key] = slices.DeleteFunc(r.running[key], func(c chan struct{}) bool { return c == ended })
		if len(r.running[key]) == 0 {
			delete(r.running, key)
		}
	}
}

// ended waits until a check is no longer being made.
func (r *Runner) ended(ctx context.Context, q Request) error {
	r.mu.Lock()
	running := slices.Clone(r.running[q.key()])
	r.mu.Unlock()
	for _, c := range running {
		select {
		case <-c:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of check %s: %w", q.Policy.Name, ctx.Err())
		}
	}
	return nil
}

func failed(format string, args ...any) Result {
	return Result{Result: ledger.Failure, Description: fmt.Sprintf(format, args...)}
}

func passed(format string, args ...any) Result {
	return Result{Result: ledger.Success, Description: fmt.Sprintf(format, args...)}
}

// key tells checks apart.
func (q Request) key() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d", q.Environment.Name, q.Service, q.Policy.Name, q.Deployment, q.Run))
}

// bounded returns a context that also ends when the time for the check is up,
// in words how long that is, and what ends it.
func (q Request) bounded(ctx context.Context, otherwise time.Duration) (_ context.Context, within string, _ context.CancelFunc) {
	switch {
	case !q.Deadline.IsZero() && q.Policy.Timeout > 0:
		within = "its timeout of " + words(q.Policy.Timeout)
	case !q.Deadline.IsZero():
		within = "its time, until " + q.Deadline.UTC().Format(time.RFC3339)
	case otherwise > 0:
		ctx, cancel := context.WithTimeout(ctx, otherwise)
		return ctx, words(otherwise) + " (the policy has no timeout)", cancel
	default:
		ctx, cancel := context.WithCancel(ctx)
		return ctx, "", cancel
	}
	ctx, cancel := context.WithDeadline(ctx, q.Deadline)
	return ctx, within, cancel
}

// pace says how long to pause after each try.
type pace struct {
	first time.Duration
	seed  uint64 // of the part by which checks that began together come apart
	n     uint
}

func (r *Runner) pace(q Request) *pace {
	key := q.key()
	return &pace{first: r.interval, seed: binary.BigEndian.Uint64(key[8:])}
}

// next doubles from the first to fifteen times that, give or take a tenth.
func (p *pace) next() time.Duration {
	d := min(p.first<<min(p.n, 4), p.most())
	p.seed = p.seed*6364136223846793005 + 1442695040888963407
	p.n++
	return d*9/10 + time.Duration(uint64(d/5)*(p.seed>>40)>>24)
}

// most is the longest pause.
func (p *pace) most() time.Duration { return 15 * p.first }

// wait waits, and tells whether ctx has not ended.
func wait(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// words returns a duration as people write it: "2h", not "2h0m0s".
func words(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
