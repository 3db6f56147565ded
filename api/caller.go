package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile"
)

// Scope is a kind of thing that a caller may ask for.
type Scope string

// The scopes.
const (
	ScopeRead      Scope = "read"
	ScopeReport    Scope = "report"
	ScopeApprove   Scope = "approve"
	ScopeArtifact  Scope = "artifact"
	ScopePin       Scope = "pin"
	ScopePromote   Scope = "promote" // and roll back
	ScopeHold      Scope = "hold"    // and release
	ScopeReconcile Scope = "reconcile"
	ScopeAdmin     Scope = "admin" // all of them
)

// Scopes are all scopes.
var Scopes = []Scope{ScopeRead, ScopeReport, ScopeApprove, ScopeArtifact, ScopePin, ScopePromote, ScopeHold, ScopeReconcile, ScopeAdmin}

// DefaultScopes are those of a token of which nothing else is said: what the
// deployment repository has to let its principal do besides, by a policy's
// report.by or approval.groups, and by the publishers of the stage that takes a
// version.
var DefaultScopes = []Scope{ScopeRead, ScopeReport, ScopeApprove, ScopeArtifact}

// Grant is what a caller may do, and where.
type Grant struct {
	Scopes       []Scope
	Environments []desired.EnvironmentName // where it may write; nil: everywhere
}

// Caller is who asks.
type Caller struct {
	reconcile.Principal
	Grants []Grant
	Known  bool      // by a token
	until  time.Time // when the token is over; zero: that is not known
}

// may tells whether a caller has a scope, somewhere.
func (c Caller) may(s Scope) bool {
	return slices.ContainsFunc(c.Grants, func(g Grant) bool { return g.has(s) })
}

// mayIn tells whether a caller has a scope in an environment; "": in all.
func (c Caller) mayIn(s Scope, env desired.EnvironmentName) bool {
	return slices.ContainsFunc(c.Grants, func(g Grant) bool {
		return g.has(s) && (g.Environments == nil || env != "" && slices.Contains(g.Environments, env))
	})
}

// within returns in which environments a caller has a scope; nil: in all.
func (c Caller) within(s Scope) []desired.EnvironmentName {
	envs := []desired.EnvironmentName{}
	for _, g := range c.Grants {
		switch {
		case !g.has(s):
		case g.Environments == nil:
			return nil
		default:
			envs = append(envs, g.Environments...)
		}
	}
	return envs
}

func (g Grant) has(s Scope) bool {
	return slices.Contains(g.Scopes, s) || slices.Contains(g.Scopes, ScopeAdmin)
}

// Authenticator finds out whose a bearer token is; ok is false if it knows
// nobody who has it. A *Problem says why who has it is refused, any other error
// that it could not be found out.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (c Caller, ok bool, err error)
}

// Token is a token of the configuration: its hash, and whose it is.
type Token struct {
	Hash   [sha256.Size]byte
	Caller Caller
}

// Tokens are those of the configuration.
type Tokens []Token

// Authenticate compares all tokens, each in constant time.
func (all Tokens) Authenticate(_ context.Context, token string) (Caller, bool, error) {
	hash := sha256.Sum256([]byte(token))
	found := -1
	for i, t := range all {
		if subtle.ConstantTimeCompare(hash[:], t.Hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Caller{}, false, nil
	}
	return all[found].Caller, true, nil
}

// Rule grants something to those whom a cluster or an identity provider knows.
type Rule struct {
	Grant
	Principals, Groups []string
}

// Rules are the rules of the configuration.
type Rules []Rule

// grants are what a principal may do.
func (all Rules) grants(p reconcile.Principal) []Grant {
	var grants []Grant
	for _, r := range all {
		if slices.Contains(r.Principals, p.Name) || slices.ContainsFunc(p.Groups, func(g string) bool { return slices.Contains(r.Groups, g) }) {
			grants = append(grants, r.Grant)
		}
	}
	return grants
}

// Verifier finds out by others whose a token is: a cluster's API server, or the
// keys of an identity provider. until is when the answer is not true any more;
// zero: that is not known.
type Verifier interface {
	Verify(ctx context.Context, token string) (p reconcile.Principal, until time.Time, ok bool, err error)
}

// Remembered has a verifier asked once a minute at most for each token, and gives
// callers what the rules say. It keeps hashes, and no tokens.
type Remembered struct {
	verifier Verifier
	rules    Rules
	clock    func() time.Time

	mu    sync.Mutex // guards what follows
	known map[[sha256.Size]byte]remembered
	asked map[[sha256.Size]byte]*question // that have no answer yet
}

type remembered struct {
	principal reconcile.Principal
	refusal   error // that the principal can't be one
	ok        bool
	until     time.Time
	over      time.Time // the token, if that is known
}

// What is kept of what a verifier said: for how long, and of how many tokens.
const (
	rememberFor = time.Minute
	mostKnown   = 4096
)

// Remember returns an authenticator that asks a verifier.
func Remember(v Verifier, rules Rules, clock func() time.Time) *Remembered {
	return &Remembered{verifier: v, rules: rules, clock: clock, known: map[[sha256.Size]byte]remembered{}, asked: map[[sha256.Size]byte]*question{}}
}

// Authenticate asks, unless it knows.
func (m *Remembered) Authenticate(ctx context.Context, token string) (Caller, bool, error) {
	return m.authenticate(ctx, token, func() error { return nil })
}

// authenticate asks, unless it knows, and only if the sender of a token that was
// nobody's, or that is new, may have others asked. Whoever comes with the same
// token meanwhile waits for the same answer.
func (m *Remembered) authenticate(ctx context.Context, token string, mayAsk func() error) (Caller, bool, error) {
	hash, now := sha256.Sum256([]byte(token)), m.clock()
	m.mu.Lock()
	r, known := m.known[hash]
	if known && now.Before(r.until) {
		m.mu.Unlock()
		return m.callerOf(r)
	}
	q := m.asked[hash]
	if q == nil {
		if !known || !r.ok {
			if err := mayAsk(); err != nil {
				m.mu.Unlock()
				return Caller{}, false, err
			}
		}
		q = &question{answered: make(chan struct{})}
		m.asked[hash] = q
		go m.ask(context.WithoutCancel(ctx), q, hash, token)
	}
	m.mu.Unlock()
	select {
	case <-q.answered:
	case <-ctx.Done():
		return Caller{}, false, ctx.Err()
	}
	if q.err != nil {
		return Caller{}, false, q.err
	}
	return m.callerOf(q.said)
}

// question is one that the verifier was asked.
type question struct {
	answered chan struct{} // closed when what follows is there
	said     remembered
	err      error
}

// ask asks the verifier, for all who wait.
func (m *Remembered) ask(ctx context.Context, q *question, hash [sha256.Size]byte, token string) {
	ctx, cancel := context.WithTimeout(ctx, AnswerTime)
	defer cancel()
	p, until, ok, err := m.verifier.Verify(ctx, token)
	q.said, q.err = remembered{ok: ok, until: m.clock().Add(rememberFor)}, err
	if ok {
		q.said.principal, q.said.refusal = admit(p)
	}
	q.said.over = until
	if !until.IsZero() && until.Before(q.said.until) {
		q.said.until = until
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.asked, hash)
	if err == nil {
		if len(m.known) >= mostKnown {
			clear(m.known)
		}
		m.known[hash] = q.said
	}
	close(q.answered)
}

// callerOf is whom a verifier has told.
func (m *Remembered) callerOf(r remembered) (Caller, bool, error) {
	if !r.ok || r.refusal != nil {
		return Caller{}, false, r.refusal
	}
	return Caller{Principal: r.principal, Grants: m.rules.grants(r.principal), Known: true, until: r.over}, true, nil
}

// admit takes a principal as the ledger can hold it. A name that it can't hold is
// refused: changed, it could be somebody else's. Such a group and such an address
// are left out.
func admit(p reconcile.Principal) (reconcile.Principal, error) {
	if p.Name == "" {
		return p, Refusal(Unauthenticated, "the token names nobody")
	}
	if !holds(p.Name) {
		return p, Refusal(Unauthenticated, "the token is of %q, and a principal is a name without spaces, commas and angle brackets; see Who may ask in the daemon's configuration", cut(p.Name))
	}
	q := reconcile.Principal{Name: p.Name}
	if holds(p.Email) {
		q.Email = p.Email
	}
	for _, g := range p.Groups {
		if holds(g) {
			q.Groups = append(q.Groups, g)
		}
	}
	return q, nil
}

// holds tells whether the ledger can hold a name.
func holds(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(",<>", r)
	})
}
