package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// deserted is a view of an environment in which each of some services has one
// ConfigMap, and the commit has none of them any more.
func deserted(names ...desired.ServiceName) PruneInput {
	in := shop(0, 0)
	clear(in.Services)
	for _, name := range names {
		r := render.Ref{Kind: "ConfigMap", Namespace: "shop", Name: string(name)}
		o := ours(name, r)
		o.UID = types.UID(name)
		in.Observation.Objects[r] = o
		in.Services[name] = Standing{Gone: true, Why: "no pin of it is left"}
	}
	return in
}

func TestDeparture(t *testing.T) {
	chain := Needs{"web": {"api"}, "api": {"db"}}
	diamond := Needs{"d": {"b", "c"}, "b": {"a"}, "c": {"a"}}
	for _, test := range []struct {
		name  string
		in    PruneInput
		needs Needs
		order string
		waits map[desired.ServiceName]string // a word of the reason
	}{
		{name: "without dependencies", in: deserted("web", "api", "db"), order: "api db web"},
		{name: "a chain", in: deserted("web", "api", "db"), needs: chain, order: "web api db",
			waits: map[desired.ServiceName]string{"api": "leaves service web", "db": "leaves service api"}},
		{name: "a diamond", in: deserted("a", "b", "c", "d"), needs: diamond, order: "d b c a",
			waits: map[desired.ServiceName]string{"a": "leaves service b, which depended on it, goes first; what leaves service c", "b": "service d", "c": "service d"}},
		{name: "the end of a chain", in: deserted("api", "db"), needs: chain, order: "api db", waits: map[desired.ServiceName]string{"db": "service api"}},
		{name: "a chain with a gap", in: deserted("web", "db"), needs: chain, order: "db web"},
		{name: "services that nothing is left of", in: deserted("db"), needs: chain, order: "db"},
		{name: "a circle", in: deserted("a", "b", "c"), needs: Needs{"a": {"b"}, "b": {"a"}, "c": {"a"}}, order: "c a b",
			waits: map[desired.ServiceName]string{"a": "service c"}},
		{name: "on itself", in: deserted("a"), needs: Needs{"a": {"a"}}, order: "a"},
		{name: "what is going already", in: func() PruneInput {
			in := deserted("web", "api")
			r := render.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "web"}
			o := in.Observation.Objects[r]
			o.Deleting = true
			in.Observation.Objects[r] = o
			return in
		}(), needs: chain, order: "api", waits: map[desired.ServiceName]string{"api": "service web"}},
		{name: "a dependent whose objects are kept", in: func() PruneInput {
			in := deserted("web", "api")
			r := render.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "web"}
			o := in.Observation.Objects[r]
			o.Prune = render.PruneNever
			in.Observation.Objects[r] = o
			return in
		}(), needs: chain, order: "api"},
		{name: "a dependent that stays and is not ready without it yet", in: func() PruneInput {
			in := deserted("web", "api")
			in.Services["web"] = Standing{Pending: true, Why: "it goes when service web is ready; it is progressing", Renders: map[render.Ref]bool{
				{Kind: "ConfigMap", Namespace: "shop", Name: "web"}: true}}
			return in
		}(), needs: chain, order: "api", waits: map[desired.ServiceName]string{"api": "service web, which depended on it, is to be ready first"}},
		{name: "a dependent that stays and is settled", in: func() PruneInput {
			in := deserted("web", "api")
			in.Services["web"] = Standing{Settled: true, Renders: map[render.Ref]bool{{Kind: "ConfigMap", Namespace: "shop", Name: "web"}: true}}
			return in
		}(), needs: chain, order: "api"},
		{name: "a dependent that is no part of this run", in: func() PruneInput {
			in := deserted("web", "api")
			in.Services["web"] = Standing{Why: "its service is not part of this run"}
			return in
		}(), needs: chain, order: "api"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := Prune(test.in).InOrder(test.in.Services, test.needs)
			var order []string
			for _, d := range p.Delete {
				order = append(order, d.Ref.Name)
				want, waits := test.waits[d.Object.Service]
				if waits != (d.Waits != "") || !strings.Contains(d.Waits, want) {
					t.Errorf("%s waits: %q, want %q", d.Ref.Name, d.Waits, want)
				}
				if d.Waits == "" != slices.ContainsFunc(p.ready(), func(x Deletion) bool { return x.Ref == d.Ref }) {
					t.Errorf("%s waits %q, and is deleted now or not at all", d.Ref.Name, d.Waits)
				}
			}
			if got := strings.Join(order, " "); got != test.order {
				t.Errorf("they go in the order %s, want %s", got, test.order)
			}
		})
	}
}

// Whoever depends on whom, all goes in the end, and nothing before what depended
// on it, unless there is a circle.
func FuzzDeparture(f *testing.F) {
	f.Add([]byte{0, 1, 1, 2, 2, 3})
	f.Add([]byte{0, 1, 1, 0, 1, 2})
	f.Fuzz(func(t *testing.T, edges []byte) {
		const n = 8
		var names []desired.ServiceName
		for i := range n {
			names = append(names, desired.ServiceName(fmt.Sprintf("s%d", i)))
		}
		needs, circular := Needs{}, false
		for i := 0; i+1 < len(edges); i += 2 {
			from, to := edges[i]%n, edges[i+1]%n
			needs[names[from]] = append(needs[names[from]], names[to])
			circular = circular || from >= to
		}
		in := deserted(names...)
		for round := 0; len(in.Observation.Objects) > 0; round++ {
			if round > n {
				t.Fatalf("they wait for ever: %v", needs)
			}
			for _, d := range Prune(in).InOrder(in.Services, needs).ready() {
				for _, o := range in.Observation.Objects {
					if !circular && slices.Contains(needs[o.Service], d.Object.Service) {
						t.Errorf("%s goes before %s, which depends on it", d.Ref.Name, o.Ref.Name)
					}
				}
				in.Observation.Objects[d.Ref] = cluster.Observed{}
			}
			for r, o := range in.Observation.Objects {
				if !o.Owned {
					delete(in.Observation.Objects, r)
				}
			}
		}
	})
}

// A confirmation is for all that it was given for, also when it goes in turns.
func TestPruneGuardOfTurns(t *testing.T) {
	in := shop(24, 0)
	in.Services["web"] = Standing{Gone: true, Why: "no pin of it is left"}
	in.Agreed = map[types.UID]bool{}
	for r, o := range in.Observation.Objects {
		o.UID = types.UID(r.Name)
		in.Observation.Objects[r] = o
		in.Agreed[o.UID] = true
	}
	if p := Prune(in); p.Halt != "" {
		t.Errorf("what was agreed on halts: %s", p.Halt)
	}
	for i := range 13 {
		delete(in.Agreed, types.UID(configMap(i).Name))
	}
	if p := Prune(in); p.Halt == "" {
		t.Error("13 of 24 that nobody has agreed on are deleted")
	}
}
