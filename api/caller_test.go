package api

import (
	"reflect"
	"testing"

	"github.com/pinion-cd/pinion/desired"
)

// Where a caller may write is what all grants with the scope say together.
func TestWithin(t *testing.T) {
	in := func(s Scope, envs ...desired.EnvironmentName) Grant {
		return Grant{Scopes: []Scope{s}, Environments: envs}
	}
	for _, x := range []struct {
		grants []Grant
		want   []desired.EnvironmentName
	}{
		{nil, []desired.EnvironmentName{}},
		{[]Grant{in(ScopeReport)}, []desired.EnvironmentName{}},
		{[]Grant{in(ScopeArtifact, "dev"), in(ScopeReport)}, []desired.EnvironmentName{"dev"}},
		{[]Grant{in(ScopeArtifact, "dev"), in(ScopeAdmin, "staging")}, []desired.EnvironmentName{"dev", "staging"}},
		{[]Grant{in(ScopeArtifact, "dev"), in(ScopeArtifact)}, nil},
		{[]Grant{in(ScopeAdmin)}, nil},
	} {
		if got := (Caller{Grants: x.grants}).within(ScopeArtifact); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%+v: %#v, want %#v", x.grants, got, x.want)
		}
	}
}
