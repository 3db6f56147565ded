package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"slices"

	"github.com/pinion-cd/pinion/reconcile"
)

// Scope is a kind of thing that a caller may ask for.
type Scope string

// The scopes.
const (
	ScopeRead    Scope = "read"
	ScopeReport  Scope = "report"
	ScopeApprove Scope = "approve"
)

// Scopes are all scopes.
var Scopes = []Scope{ScopeRead, ScopeReport, ScopeApprove}

// Caller is who asks.
type Caller struct {
	reconcile.Principal
	Scopes []Scope
}

// may tells whether a caller has a scope.
func (c Caller) may(s Scope) bool { return slices.Contains(c.Scopes, s) }

// Authenticator finds out whose a bearer token is; ok is false if it knows
// nobody who has it.
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
