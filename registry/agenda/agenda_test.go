package agenda_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/registry/agenda"
)

var began = time.Date(2026, 11, 19, 10, 0, 0, 0, time.UTC)

// clock is an agenda whose time is told as seconds after it began.
type clock struct {
	*testing.T
	*agenda.Agenda
}

func at(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }

// next wants a repository at a time, or "" and when to ask again; 0: never.
func (c clock) next(now float64, want string, again float64) {
	c.Helper()
	got, ok, when := c.Next(at(now))
	wanted := time.Time{}
	if again > 0 {
		wanted = at(again)
	}
	if got != want || ok != (want != "") || !when.Equal(wanted) {
		c.Errorf("after %v s it is %q, and then at %v; want %q, %v", now, got, when.Sub(began).Seconds(), want, again)
	}
}

func (c clock) done(now float64, repository string, o agenda.Outcome) {
	c.Done(at(now), repository, o, 0)
}

var (
	well = agenda.Outcome{}
	gone = agenda.Outcome{Failed: true}
	down = agenda.Outcome{Failed: true, Host: true}
)

func TestAgenda(t *testing.T) {
	c := clock{t, agenda.Make(100 * time.Second)}
	c.next(0, "", 0)
	c.Set(at(0), []string{"a/x", "a/y", "b/z"})
	c.next(0, "a/x", 0)
	c.next(0, "b/z", 0) // a is being asked
	c.next(0, "", 0)
	c.done(1, "a/x", well)
	c.next(1, "a/y", 0)
	c.done(2, "a/y", well)
	c.done(2, "b/z", gone)
	c.next(2, "", 4.5) // half of 5 s
	c.next(4.5, "b/z", 0)
	c.done(5, "b/z", gone)
	c.next(5, "", 10)
	c.Wake(at(5), "b/z") // does not shorten that
	c.next(5, "", 10)
	c.Wake(at(5), "a/x")
	c.Wake(at(5), "a/none")
	c.next(5, "a/x", 0)
	c.Wake(at(5.2), "a/x") // while it is looked at: once more, but not at once
	c.Wake(at(5.3), "a/x")
	c.done(5.4, "a/x", well)
	c.next(5.4, "", 6)
	c.next(6, "a/x", 0)
	c.next(10, "b/z", 0)
	c.done(11, "b/z", well)
	c.done(11, "a/x", well)
	c.next(11, "", 92)
	c.Set(at(11), []string{"b/z"})
	c.next(91, "", 101)
	if hosts := c.Hosts(); len(hosts) != 1 || !hosts["b"].Success.Equal(at(11)) {
		t.Errorf("the hosts are %+v", hosts)
	}
}

// What was told of is looked for until it must be there: a registry may tell of
// it before.
func TestNewsAreEarly(t *testing.T) {
	c := clock{t, agenda.Make(100 * time.Second)}
	c.Set(at(0), []string{"a/x"})
	c.next(0, "a/x", 0)
	c.done(1, "a/x", well)
	c.next(1, "", 91)
	c.News(at(20), "a/x")
	c.News(at(20), "a/none")
	c.next(20, "a/x", 0)
	c.done(20.5, "a/x", well)
	c.next(20.5, "", 25)
	c.next(25, "a/x", 0)
	c.done(25.1, "a/x", gone) // a failure has its own wait
	c.next(25.1, "", 27.6)
	c.next(27.6, "a/x", 0)
	c.done(28, "a/x", well)
	c.next(28, "", 50)
	c.News(at(49.5), "a/x")
	c.next(49.5, "a/x", 0)
	c.News(at(49.6), "a/x") // while it is looked at
	c.done(49.9, "a/x", well)
	c.next(50.5, "a/x", 0)
	c.done(55, "a/x", well) // a slow look began too early to be the second one
	c.next(55, "a/x", 0)
	c.done(55.1, "a/x", well)
	c.next(55.1, "", 79.6)
	c.next(79.6, "a/x", 0)
	c.done(80, "a/x", well)
	c.next(80, "", 170) // and that was it
	if !c.Fresh(at(89.5), "a/x") || c.Fresh(at(89.7), "a/x") || c.Fresh(at(0), "a/none") {
		t.Error("news are fresh for another time than until the last look")
	}
}

func TestARegistryThatIsDown(t *testing.T) {
	c := clock{t, agenda.Make(100 * time.Second)}
	c.Set(at(0), []string{"a/x", "a/y"})
	c.next(0, "a/x", 0)
	c.done(1, "a/x", down)
	c.next(1, "", 3.5)
	c.next(3.5, "a/y", 0) // the other one tells how it is
	c.done(4, "a/y", down)
	c.next(4, "", 9)
	c.next(9, "a/x", 0)
	c.done(9, "a/x", agenda.Outcome{Failed: true, Host: true, Until: at(1000)})
	c.Wake(at(9), "a/y")
	c.next(9, "", 1000)
	c.next(1000, "a/y", 0)
	c.done(1000, "a/y", well)
	c.next(1000, "a/x", 0) // at once, for the registry is back
	c.done(1000, "a/x", well)
	c.next(1000, "", 1090)
}

// Whatever happens: a registry is asked one thing at a time, none is asked while
// it wants to be left alone, no repository twice within the pause, and none is
// forgotten.
func TestAgendaProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := []string{"a/1", "a/2", "a/3", "b/1", "b/2", "c/1"}
	for range 200 {
		a := agenda.Make(time.Minute)
		a.Set(began, all)
		now := began
		open, last, until := map[string]string{}, map[string]time.Time{}, map[string]time.Time{}
		for range 300 {
			now = now.Add(time.Duration(random.IntN(3000)) * time.Millisecond)
			for {
				r, ok, _ := a.Next(now)
				if !ok {
					break
				}
				h := agenda.HostOf(r)
				switch {
				case open[h] != "":
					t.Fatalf("%s is asked for %s and for %s", h, open[h], r)
				case now.Before(until[h]):
					t.Fatalf("%s is asked at %s, and wants to be left alone until %s", h, now, until[h])
				case !last[r].IsZero() && now.Sub(last[r]) < time.Second:
					t.Fatalf("%s is looked at twice within %s", r, now.Sub(last[r]))
				}
				open[h], last[r] = r, now
			}
			if random.IntN(3) == 0 {
				a.Wake(now, all[random.IntN(len(all))])
			}
			if random.IntN(10) == 0 {
				a.News(now, all[random.IntN(len(all))])
			}
			for h, r := range open {
				if r == "" || random.IntN(2) == 0 {
					continue
				}
				o := agenda.Outcome{Failed: random.IntN(3) == 0}
				o.Host = o.Failed && random.IntN(2) == 0
				if o.Host && random.IntN(2) == 0 {
					o.Until = now.Add(time.Duration(random.IntN(60)) * time.Second)
					until[h] = o.Until
				}
				a.Done(now, r, o, random.Float64())
				open[h] = ""
			}
		}
		for h, r := range open {
			if r != "" {
				a.Done(now, r, agenda.Outcome{}, 0)
				open[h] = ""
			}
		}
		end := now.Add(15 * time.Minute)
		for range all {
			if r, ok, _ := a.Next(end); ok {
				last[r] = end
				a.Done(end, r, agenda.Outcome{}, 0)
			}
		}
		for _, r := range all {
			if last[r] != end {
				t.Fatalf("%s is forgotten", r)
			}
		}
	}
}

// How it is with a repository: since when it can't be read, or its registry, and
// when it is looked at again.
func TestState(t *testing.T) {
	a := agenda.Make(time.Minute)
	a.Set(began, []string{"one.example/a", "one.example/b"})
	if _, ok := a.State("two.example/a"); ok {
		t.Error("a repository that is not there has a state")
	}
	after := func(d time.Duration) time.Time { return began.Add(d) }
	look := func(at time.Duration, want string, o agenda.Outcome) {
		t.Helper()
		r, ok, _ := a.Next(after(at))
		if !ok || r != want {
			t.Fatalf("at %s: %s, want %s", at, r, want)
		}
		if s, _ := a.State(r); !s.Next.IsZero() {
			t.Errorf("at %s: it is being looked at, and again at %s", at, s.Next)
		}
		a.Done(after(at), r, o, 0)
	}
	is := func(r string, want agenda.State) {
		t.Helper()
		if got, _ := a.State(r); got != want {
			t.Errorf("%s: %+v, want %+v", r, got, want)
		}
	}
	look(0, "one.example/a", agenda.Outcome{})
	is("one.example/a", agenda.State{Success: began, Next: after(54 * time.Second)})
	is("one.example/b", agenda.State{Next: began})
	// The registry goes down while one is looked at: that is told of both.
	busy := after(5 * time.Minute)
	look(time.Second, "one.example/b", agenda.Outcome{Failed: true, Host: true, Until: busy})
	is("one.example/a", agenda.State{Success: began, Failing: after(time.Second), Next: busy})
	is("one.example/b", agenda.State{Failing: after(time.Second), Next: busy})
	look(6*time.Minute, "one.example/b", agenda.Outcome{Failed: true, Host: true})
	is("one.example/b", agenda.State{Failing: after(time.Second), Next: after(6*time.Minute + 5*time.Second)})
	// It answers again, and of one repository it refuses to tell.
	look(7*time.Minute, "one.example/a", agenda.Outcome{Failed: true})
	is("one.example/a", agenda.State{Success: began, Failing: after(7 * time.Minute), Next: after(7*time.Minute + 2500*time.Millisecond)})
	look(8*time.Minute, "one.example/b", agenda.Outcome{})
	is("one.example/b", agenda.State{Success: after(8 * time.Minute), Next: after(8*time.Minute + 54*time.Second)})
	is("one.example/a", agenda.State{Success: began, Failing: after(7 * time.Minute), Next: after(7*time.Minute + 2500*time.Millisecond)})
	if h := a.Hosts()["one.example"]; h.Failing != after(7*time.Minute) || h.Failures != 0 {
		t.Errorf("the registry is %+v", h)
	}
	look(9*time.Minute, "one.example/a", agenda.Outcome{})
	is("one.example/a", agenda.State{Success: after(9 * time.Minute), Next: after(9*time.Minute + 54*time.Second)})
}
