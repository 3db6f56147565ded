package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

func configMap(i int) render.Ref {
	return render.Ref{Kind: "ConfigMap", Namespace: "shop", Name: fmt.Sprintf("c%02d", i)}
}

func ours(service desired.ServiceName, r render.Ref) cluster.Observed {
	o := cluster.Observed{Ref: r, Owned: true, Environment: "dev", Service: service}
	o.UID = "uid-" + o.UID
	return o
}

// shop is a view of an environment in which the service "web" has n
// ConfigMaps, of which the commit still renders the first kept ones.
func shop(n, kept int) PruneInput {
	in := PruneInput{
		Environment: "dev",
		Observation: cluster.Observation{Complete: true, Objects: map[render.Ref]cluster.Observed{}},
		Services:    map[desired.ServiceName]Standing{"web": {Settled: true, Renders: map[render.Ref]bool{}}},
	}
	for i := range n {
		in.Observation.Objects[configMap(i)] = ours("web", configMap(i))
		if i < kept {
			in.Services["web"].Renders[configMap(i)] = true
		}
	}
	return in
}

func TestPrune(t *testing.T) {
	pvc := render.Ref{Kind: "PersistentVolumeClaim", Namespace: "shop", Name: "data"}
	for _, test := range []struct {
		name  string
		in    PruneInput
		gone  int
		kept  string // a word of the reason for which something is kept
		going string // and for which something is not gone yet
		halts bool
	}{
		{name: "nothing left the commit", in: shop(3, 3)},
		{name: "what left goes", in: shop(3, 2), gone: 1},
		{name: "a view that is not complete", in: func() PruneInput {
			in := shop(3, 2)
			in.Observation.Complete, in.Observation.Incomplete = false, []string{"configmaps: forbidden"}
			return in
		}(), halts: true},
		{name: "a copy of one of our objects", in: func() PruneInput {
			in := shop(3, 2)
			o := in.Observation.Objects[configMap(2)]
			o.Owned = false
			in.Observation.Objects[configMap(2)] = o
			return in
		}()},
		{name: "an object of another environment", in: func() PruneInput {
			in := shop(3, 2)
			o := in.Observation.Objects[configMap(2)]
			o.Environment = "production"
			in.Observation.Objects[configMap(2)] = o
			return in
		}()},
		{name: "a service that nothing is known of", in: func() PruneInput {
			in := shop(3, 2)
			delete(in.Services, "web")
			return in
		}(), kept: "not known"},
		{name: "a service that is not settled", in: func() PruneInput {
			in := shop(3, 2)
			s := in.Services["web"]
			s.Settled, s.Why = false, "it goes when service web is ready"
			in.Services["web"] = s
			return in
		}(), kept: "when service web is ready"},
		{name: "a service that is gone", in: func() PruneInput {
			in := shop(3, 0)
			in.Services["web"] = Standing{Gone: true, Why: "no pin of it is left"}
			return in
		}(), gone: 3},
		{name: "an object that another environment renders", in: func() PruneInput {
			in := shop(3, 2)
			in.Elsewhere = func(r render.Ref) bool { return r == configMap(2) }
			return in
		}(), kept: "another service renders it"},
		{name: "an object that is going already", in: func() PruneInput {
			in := shop(3, 2)
			o := in.Observation.Objects[configMap(2)]
			o.Deleting = true
			in.Observation.Objects[configMap(2)] = o
			return in
		}()},
		{name: "an object that a finalizer holds", in: func() PruneInput {
			in := shop(3, 2)
			o := in.Observation.Objects[configMap(2)]
			o.Deleting, o.Gone, o.Finalizers = true, noon, "a.example/b,c.example/d"
			in.Observation.Objects[configMap(2)] = o
			return in
		}(), going: "since 2026-11-02T12:00:00Z, and waits for those who have to remove the finalizers a.example/b, c.example/d"},
		{name: "a claim on a volume stays", in: func() PruneInput {
			in := shop(1, 1)
			in.Observation.Objects[pvc] = ours("web", pvc)
			return in
		}(), kept: "says allow"},
		{name: "a claim on a volume goes if that is allowed", in: func() PruneInput {
			in := shop(1, 1)
			o := ours("web", pvc)
			o.Prune = render.PruneAllow
			in.Observation.Objects[pvc] = o
			return in
		}(), gone: 1},
		{name: "an object that is never to go", in: func() PruneInput {
			in := shop(3, 2)
			o := in.Observation.Objects[configMap(2)]
			o.Prune = render.PruneNever
			in.Observation.Objects[configMap(2)] = o
			return in
		}(), kept: "says never"},
		{name: "ten objects, all of them", in: shop(10, 0), gone: 10},
		{name: "eleven objects, all of them", in: shop(11, 0), gone: 11, halts: true},
		{name: "eleven objects, half of them", in: shop(22, 11), gone: 11},
		{name: "twelve objects, more than half of them", in: shop(23, 11), gone: 12, halts: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := Prune(test.in)
			if got := fmt.Sprint(p.Going); (len(p.Going) > 0) != (test.going != "") || !strings.Contains(got, test.going) {
				t.Errorf("going is %s, want %q", got, test.going)
			}
			if len(p.Delete) != test.gone {
				t.Errorf("deletes %d, want %d: %+v", len(p.Delete), test.gone, p)
			}
			if (p.Halt != "") != test.halts {
				t.Errorf("halt: %q", p.Halt)
			}
			if test.kept != "" && !slices.ContainsFunc(p.Keep, func(k Kept) bool { return strings.Contains(k.Reason, test.kept) }) {
				t.Errorf("nothing is kept for the reason %q: %+v", test.kept, p.Keep)
			}
			if test.halts && test.gone > 0 {
				test.in.Confirmed = p.Digest
				if again := Prune(test.in); again.Halt != "" || len(again.Delete) != test.gone {
					t.Errorf("confirmed, and still: %q", again.Halt)
				}
				test.in.Confirmed = "0123456789ab"
				if again := Prune(test.in); again.Halt == "" {
					t.Error("any confirmation opens it")
				}
			}
		})
	}
}

// Whatever the view is, nothing is deleted that is not ours, not in this
// environment, rendered by its service, or seen on a view that is incomplete.
func FuzzPrune(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, true)
	f.Fuzz(func(t *testing.T, bytes []byte, complete bool) {
		in := shop(0, 0)
		in.Observation.Complete = complete
		for i, b := range bytes {
			o := ours("web", configMap(i))
			o.Owned = b&1 != 0
			o.Deleting = b&2 != 0
			if b&4 != 0 {
				o.Environment = "production"
			}
			if b&8 != 0 {
				in.Services["web"].Renders[o.Ref] = true
			}
			if b&16 != 0 {
				o.Service = "unknown"
			}
			in.Observation.Objects[o.Ref] = o
		}
		for _, d := range Prune(in).Delete {
			o := d.Object
			if !complete || !o.Owned || o.Deleting || o.Environment != "dev" || o.Service != "web" || in.Services["web"].Renders[o.Ref] {
				t.Errorf("deletes %+v", d)
			}
			if d.Reason == "" {
				t.Errorf("no reason for %s", d.Ref)
			}
		}
	})
}

func TestPruneGoesFromTheTop(t *testing.T) {
	in := shop(0, 0)
	for _, r := range []render.Ref{
		{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "queues.shop.example"},
		{Kind: "ConfigMap", Namespace: "shop", Name: "c"},
		{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "d"},
	} {
		o := ours("web", r)
		o.Prune = render.PruneAllow
		in.Observation.Objects[r] = o
	}
	var order []string
	for _, d := range Prune(in).Delete {
		order = append(order, d.Ref.Kind)
	}
	if want := []string{"Deployment", "ConfigMap", "CustomResourceDefinition"}; !slices.Equal(order, want) {
		t.Errorf("deletes in the order %v, want %v", order, want)
	}
}
