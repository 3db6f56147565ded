package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/reconcile/cluster"
)

var leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}

func (s *stand) leases(identity string) *cluster.Leases {
	l := s.c.Leases(cluster.LeaseOptions{
		Namespace: s.namespace, Name: "pinion", Identity: identity, Address: identity + ".example:1",
		Duration: time.Second, Deadline: 600 * time.Millisecond, Retry: 100 * time.Millisecond,
	})
	l.Want("pinion")
	return l
}

// runs runs a competitor until stop, which releases what it has.
func (s *stand) runs(l *cluster.Leases) (stop func(release bool)) {
	ctx, cancel := context.WithCancel(s.ctx)
	var wait sync.WaitGroup
	wait.Go(func() { l.Run(ctx) })
	s.Cleanup(func() { cancel(); wait.Wait() })
	return func(release bool) {
		cancel()
		wait.Wait()
		if release {
			if err := l.Release(context.WithoutCancel(ctx)); err != nil {
				s.Error(err)
			}
		}
	}
}

// term waits until a lease is a competitor's.
func (s *stand) term(l *cluster.Leases) *cluster.Term {
	s.Helper()
	changes := l.Changes()
	deadline := time.After(patience)
	for {
		if t := l.Term("pinion"); t != nil {
			return t
		}
		select {
		case <-changes:
		case <-deadline:
			s.Fatalf("%s does not get the lease", l.Identity())
		}
	}
}

func TestLeaseIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	a, b := s.leases("a"), s.leases("b")
	stopA := s.runs(a)
	first := s.term(a)
	stopB := s.runs(b)

	stopA(true)
	if first.Check() == nil {
		t.Error("a term goes on after its competitor has ended")
	}
	began := time.Now()
	second := s.term(b)
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("a lease that was released is taken after %s", took)
	}
	if second.Number <= first.Number {
		t.Errorf("the terms are numbered %d and then %d", first.Number, second.Number)
	}

	// It ends and does not release: as one that is killed.
	c := s.leases("c")
	s.runs(c)
	for seen := c.Holder("pinion"); seen.Identity != "b"; seen = c.Holder("pinion") {
		if s.ctx.Err() != nil {
			t.Fatal("c does not see who has the lease")
		}
	}
	if got := c.Holder("pinion").Address; got != "b.example:1" {
		t.Errorf("the holder's address is %q", got)
	}
	began = time.Now()
	stopB(false)
	s.term(c)
	if took := time.Since(began); took < 600*time.Millisecond || took > 2*time.Second {
		t.Errorf("a lease of 1s that nobody renews is taken after %s", took)
	}
}

// A lease is given up though it is not as it was seen last: a renewal has arrived
// whose answer nobody waited for.
func TestLeaseIsGivenUpThoughItHasChanged(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	a := s.leases("a")
	stop := s.runs(a)
	s.term(a)
	stop(false)
	all := s.admin.Resource(leases).Namespace(s.namespace)
	if _, err := all.Patch(s.ctx, "pinion", types.MergePatchType, []byte(`{"metadata":{"annotations":{"somebody":"was here"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Release(s.ctx); err != nil {
		t.Fatal(err)
	}
	lease, err := all.Get(s.ctx, "pinion", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if by, _, _ := unstructured.NestedString(lease.Object, "spec", "holderIdentity"); by != "" {
		t.Errorf("the lease is still held by %s", by)
	}
}

// Who has a lease notices at once that it was taken away by hand.
func TestLeaseIsTakenAway(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	a := s.leases("a")
	s.runs(a)
	for name, take := range map[string]func() error{
		"given to another one": func() error {
			_, err := s.admin.Resource(leases).Namespace(s.namespace).Patch(s.ctx, "pinion", types.MergePatchType,
				[]byte(`{"spec":{"holderIdentity":"z","leaseDurationSeconds":1}}`), metav1.PatchOptions{})
			return err
		},
		"deleted": func() error {
			return s.admin.Resource(leases).Namespace(s.namespace).Delete(s.ctx, "pinion", metav1.DeleteOptions{})
		},
	} {
		term := s.term(a)
		if err := take(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-term.Done():
		case <-time.After(patience):
			t.Fatalf("%s: the term goes on", name)
		}
		if next := s.term(a); next == term {
			t.Errorf("%s: the same term goes on", name)
		}
	}
}

// Many compete, and come and go: of no moment can two say that it is theirs.
func TestLeaseHasOneHolder(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	ctx, end := context.WithTimeout(s.ctx, 2*time.Minute)
	defer end()
	var mu sync.Mutex
	alive := map[*cluster.Leases]bool{}
	var wait sync.WaitGroup
	for i := range 5 {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for n := 0; ctx.Err() == nil; n++ {
				l := s.leases(fmt.Sprintf("%d-%d", i, n))
				mu.Lock()
				alive[l] = true
				mu.Unlock()
				lives, stop := context.WithTimeout(ctx, time.Duration(300+random.IntN(1500))*time.Millisecond)
				l.Run(lives)
				stop()
				mu.Lock()
				delete(alive, l)
				mu.Unlock()
				if random.IntN(2) == 0 {
					l.Release(s.ctx)
				}
			}
		})
	}
	const enough = 8 // a second or two each, on a machine with time for it
	holders := map[string]bool{}
	for ctx.Err() == nil && len(holders) < enough {
		// Asked twice around each other: one that had it before and after the
		// other was asked, had it all the time.
		mu.Lock()
		var all []*cluster.Leases
		for l := range alive {
			all = append(all, l)
		}
		mu.Unlock()
		for _, x := range all {
			before := x.Term("pinion")
			for _, y := range all {
				if x != y && before != nil && y.Term("pinion") != nil && before.Check() == nil {
					t.Fatalf("%s and %s have the lease at the same time", x.Identity(), y.Identity())
				}
			}
			if before != nil {
				holders[x.Identity()] = true
			}
		}
	}
	end()
	wait.Wait()
	if len(holders) < enough {
		t.Errorf("only %d had the lease", len(holders))
	}
}
