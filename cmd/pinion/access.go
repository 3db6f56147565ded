package main

import (
	"encoding/hex"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/reconcile"
)

// access returns who may ask the daemon for what.
func (c *config) access() api.Options {
	var tokens api.Tokens
	for _, t := range c.Tokens {
		x := api.Token{Caller: api.Caller{
			Principal: reconcile.Principal{Name: t.Principal, Email: t.Email, Groups: t.Groups},
			Scopes:    []api.Scope{api.ScopeRead, api.ScopeReport, api.ScopeApprove},
		}}
		hex.Decode(x.Hash[:], []byte(t.SHA256)) // its form was checked
		tokens = append(tokens, x)
	}
	return api.Options{Authenticators: []api.Authenticator{tokens}}
}
