package notify

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// branch is a branch in memory: its items are the commits.
type branch struct {
	items []Item
}

func (b *branch) add(lane string, at time.Time) {
	id := fmt.Sprintf("%040x", len(b.items)+1)
	b.items = append(b.items, Item{Commit: id, Lane: lane, News: []Notification{{ID: id, Time: at}}})
}

func (b *branch) tip() string {
	if len(b.items) == 0 {
		return ""
	}
	return b.items[len(b.items)-1].Commit
}

func (b *branch) place(commit string) int {
	return slices.IndexFunc(b.items, func(i Item) bool { return i.Commit == commit })
}

// read does what a Reading asks for, at most so many items.
func (b *branch) read(r Reading, most int) (items []Item, upTo string) {
	for _, i := range b.items[b.place(r.After)+1 : b.place(r.Until)+1] {
		if !r.Of(i.Lane) {
			continue
		}
		if len(items) == most {
			return items, items[most-1].Commit
		}
		i.News = slices.Clone(i.News)
		items = append(items, i)
	}
	return items, r.Until
}

func (b *branch) feed(s *Stream, most int) {
	s.SetTip(b.tip())
	for range 100 {
		r, ok := s.Needs()
		if !ok {
			return
		}
		items, upTo := b.read(r, most)
		s.Feed(r, items, upTo)
	}
}

// Whatever a receiver takes, and whenever the daemon is killed: all is told, and
// of each lane in order; only what was told before a crash is told twice.
func TestNothingIsLostAndLanesKeepTheirOrder(t *testing.T) {
	full := false
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := &branch{}
		// Of some there are more lanes than can be behind.
		lanes, steps, wide := 12, 1000, seed%10 == 0
		if wide {
			lanes, steps = 3*mostLanes, 5000
		}
		s := Open(Position{})
		told := map[string][]string{}
		now := noon
		most := 1 + r.IntN(6)
		kept := s.Position()
		crashes := 0
		for step := 0; step < steps; step++ {
			if step < 150 && r.IntN(2) == 0 || wide && step < 300 {
				b.add(fmt.Sprintf("lane%d", r.IntN(lanes)), now)
			}
			if r.IntN(5) == 0 {
				kept = s.Position()
			}
			if r.IntN(60) == 0 && step < 800 {
				s, crashes = Open(kept), crashes+1
			}
			b.feed(s, most)
			n, ok, again := s.Next(now)
			if !ok {
				now = now.Add(time.Second)
				if !again.IsZero() {
					now = again
				}
				continue
			}
			// Early on, much fails; one lane is poisoned for long.
			lane := b.items[b.place(n.ID)].Lane
			fails := step < 300 && (r.IntN(3) == 0 || lane == "lane3" || wide)
			if !fails {
				told[lane] = append(told[lane], n.ID)
			}
			s.Done(Ruling{Taken: !fails}, now, r.Float64())
			if n := len(s.ahead); n > most {
				t.Fatalf("seed %d: %d items in memory, %d were read", seed, n, most)
			}
			full = full || len(s.lanes) == mostLanes
			if len(s.lanes) > mostLanes {
				t.Fatalf("seed %d: %d lanes are behind", seed, len(s.lanes))
			}
		}
		if !s.Idle() {
			t.Fatalf("seed %d: not all was told: %+v", seed, s.Position())
		}
		for i := range lanes {
			lane := fmt.Sprintf("lane%d", i)
			next := map[string]string{"": ""}
			var want []string
			last := ""
			for _, x := range b.items {
				if x.Lane == lane {
					next[last] = x.Commit
					last = x.Commit
					want = append(want, x.Commit)
				}
			}
			// In order: each is the next one after something that was told, or a repetition.
			seen, high := map[string]bool{}, ""
			for _, id := range told[lane] {
				switch {
				case id == next[high]:
					high = id
				case !seen[id]:
					t.Fatalf("seed %d: %s: %s came before what is before it", seed, lane, id)
				case crashes == 0:
					t.Fatalf("seed %d: %s: %s came twice, and nobody crashed", seed, lane, id)
				}
				seen[id] = true
			}
			if len(seen) != len(want) {
				t.Fatalf("seed %d: %s: told %d of %d", seed, lane, len(seen), len(want))
			}
		}
	}
	if !full {
		t.Error("never were as many lanes behind as can be")
	}
}

// Of a position of an earlier version, whose lanes are whole services.
func TestALaneThatIsAServiceGoesOn(t *testing.T) {
	b := &branch{}
	for range 3 {
		b.add("web/d1", noon)
		b.add("web/d2", noon)
		b.add("webhook/d1", noon)
	}
	at := func(i int) string { return b.items[i].Commit }
	s := Open(Position{At: at(5), Behind: map[string]string{"web": at(0)}})
	var told []string
	for range 20 {
		b.feed(s, 2)
		n, ok, _ := s.Next(noon)
		if !ok {
			break
		}
		if told = append(told, n.ID); len(told) == 1 {
			if p := s.Position(); p.Behind["web"] != at(0) {
				t.Errorf("kept %+v", p)
			}
		}
		s.Done(Ruling{Taken: true}, noon, 0)
	}
	if want := []string{at(1), at(8), at(3), at(4), at(6), at(7)}; !s.Idle() || !sameInOrder(told, want, b) {
		t.Errorf("told %v, want %v", told, want)
	}
	for _, c := range []struct {
		lane, of string
		want     bool
	}{{"web/d1", "web/d1", true}, {"web/d1", "web", true}, {"web/d1", "web/d", false}, {"webhook/d1", "web", false}, {"", "", true}, {"web/d1", "", false}} {
		if Within(c.lane, c.of) != c.want {
			t.Errorf("%q within %q: %v", c.lane, c.of, !c.want)
		}
	}
}

// sameInOrder tells whether the same was told, and of each lane in its order.
func sameInOrder(told, want []string, b *branch) bool {
	last := map[string]int{}
	for _, id := range told {
		i := b.place(id)
		if lane := b.items[i].Lane; i < last[lane] {
			return false
		} else {
			last[lane] = i
		}
	}
	slices.Sort(told)
	slices.Sort(want)
	return slices.Equal(told, want)
}

// A receiver that has recovered is not asked at once for what it refused.
func TestWhatIsRefusedIsNotHurried(t *testing.T) {
	b := &branch{}
	for i := range 20 {
		b.add(fmt.Sprintf("odd/%d", i), noon)
	}
	b.add("web/1", noon)
	s, tried := Open(Position{}), 0
	var r Receiver
	refusal := Answer{Status: 422}.Judge(noon)
	for {
		b.feed(s, 4)
		if ok, again := r.May(noon, 0); !ok {
			t.Fatalf("after %d tries it waits until %s", tried, again)
		}
		n, ok, _ := s.Next(noon)
		if !ok {
			break
		}
		is := Ruling{Taken: true}
		if n.ID != b.tip() {
			is = refusal
		}
		tried++
		if r.Heard(b.items[b.place(n.ID)].Lane, is, noon, noon, 0) {
			s.Hurry()
		}
		s.Done(is, noon, 0)
	}
	if tried != 21 {
		t.Errorf("tried %d times", tried)
	}
}

func TestALaneIsADeployment(t *testing.T) {
	for want, n := range map[string]Notification{
		"web/web-1": {Service: "web", Deployment: "web-1", Version: "1.0.0"},
		"web/1.0.0": {Service: "web", Version: "1.0.0", Candidate: true},
		"web/abc":   {Service: "web", Source: "abc", Candidate: true},
		"":          {Hold: &Hold{Name: "x"}},
	} {
		if got := n.Lane(); got != want {
			t.Errorf("%+v is of %q, not %q", n, got, want)
		}
	}
}

// Within a crash's repetition the order holds as well.
func TestARepetitionKeepsTheOrder(t *testing.T) {
	b := &branch{}
	for range 3 {
		b.add("web", noon)
		b.add("api", noon)
	}
	s := Open(Position{})
	b.feed(s, 10)
	for range 4 {
		s.Next(noon)
		s.Done(Ruling{Taken: true}, noon, 0)
	}
	s = Open(Position{}) // nothing was kept
	var again []string
	for b.feed(s, 10); !s.Idle(); b.feed(s, 10) {
		n, _, _ := s.Next(noon)
		again = append(again, n.ID)
		s.Done(Ruling{Taken: true}, noon, 0)
	}
	var want []string
	for _, i := range b.items {
		want = append(want, i.Commit)
	}
	if !slices.Equal(again, want) {
		t.Errorf("told %v, want %v", again, want)
	}
}

func TestALaneThatFailsHoldsNobodyUp(t *testing.T) {
	b := &branch{}
	for range 200 {
		b.add("bad", noon)
		b.add("good", noon)
	}
	s, good := Open(Position{}), 0
	for step := 0; step < 2000 && good < 200; step++ {
		b.feed(s, 16)
		n, ok, _ := s.Next(noon)
		if !ok {
			break
		}
		lane := b.items[b.place(n.ID)].Lane
		if lane == "good" {
			good++
		}
		s.Done(Ruling{Taken: lane == "good"}, noon, 0)
		if l := s.lanes["bad"]; l != nil && len(l.items) > mostKept {
			t.Fatalf("%d items of the lane are in memory", len(l.items))
		}
	}
	if good != 200 {
		t.Errorf("told %d of 200 beside a lane that fails", good)
	}
	p := s.Position()
	if len(p.Behind) != 1 || p.Behind["bad"] != "" || p.At != b.tip() {
		t.Errorf("kept %+v", p)
	}
}

func TestAReceiverThatTakesNothingIsNotReadFor(t *testing.T) {
	b := &branch{}
	for i := range 1000 {
		b.add(fmt.Sprintf("s%d", i), noon)
	}
	s := Open(Position{})
	for range 2000 {
		b.feed(s, 16)
		if _, ok, _ := s.Next(noon); !ok {
			break
		}
		s.Done(Ruling{}, noon, 0)
	}
	if _, ok := s.Needs(); ok || len(s.lanes) != mostLanes {
		t.Errorf("%d lanes are behind, and it reads on: %v", len(s.lanes), ok)
	}
	if p := s.Position(); p.At != b.items[mostLanes-1].Commit {
		t.Errorf("it has come to %s", p.At)
	}
}

func TestGivenUp(t *testing.T) {
	const old = 4 * 24 * time.Hour // the daemon was down for so long
	b := &branch{}
	b.add("web", noon.Add(-old))
	b.add("web", noon.Add(-old))
	b.add("web", noon.Add(GiveUp)) // new when the first ones are given up
	s := Open(Position{})
	b.feed(s, 10)
	try := func(s *Stream, which int, now time.Time, want Result) {
		t.Helper()
		if n, ok, _ := s.Next(now); !ok || n.ID != b.items[which].Commit {
			t.Fatalf("next is %q, %v", n.ID, ok)
		}
		if r := s.Done(Ruling{}, now, 0); r != want {
			t.Fatalf("after %s: %+v, want %+v", now.Sub(noon), r, want)
		}
	}
	try(s, 0, noon, Result{})
	try(s, 0, noon.Add(GiveUp), Result{})
	late := noon.Add(GiveUp + time.Minute)
	kept := s.Position()
	try(s, 0, late, Result{Dropped: true})
	if _, ok, again := s.Next(late); ok || again.IsZero() {
		t.Error("the next one is not waited for")
	}
	if p := s.Position(); p.Behind["web"] != b.items[0].Commit {
		t.Errorf("kept %+v", p)
	}
	// All behind it is tried as well, and has its own time if it is new.
	try(s, 1, late.Add(time.Hour), Result{Dropped: true})
	try(s, 2, late.Add(2*time.Hour), Result{})
	try(s, 2, late.Add(GiveUp+2*time.Hour), Result{Dropped: true})

	// What was taken begins the count anew, as another process does.
	s = Open(kept)
	b.feed(s, 10)
	try(s, 0, late, Result{})
	if s.Next(late.Add(GiveUp)); !s.Done(Ruling{Taken: true}, late.Add(GiveUp), 0).Taken {
		t.Fatal("it is not taken")
	}
	try(s, 1, late.Add(GiveUp), Result{})
	try(s, 1, late.Add(GiveUp+time.Hour), Result{})
}

func TestAReceiverThatIsDown(t *testing.T) {
	var r Receiver
	now := noon
	may := func(underWay int) bool { ok, _ := r.May(now, underWay); return ok }
	if !may(0) || !may(mostAtOnce-1) || may(mostAtOnce) {
		t.Error("of a receiver of which nothing is known")
	}
	for range 20 { // one lane that is poisoned
		r.Heard("b web", Ruling{Reason: "it answers 500"}, now, now, 0)
	}
	if down, _ := r.Down(); down || !may(3) {
		t.Error("one lane takes the receiver down")
	}
	r.Heard("b api", Ruling{}, now, now, 0)
	r.Heard("b db", Ruling{Reason: "no answer"}, now, now, 0)
	down, why := r.Down()
	if !down || why != "no answer" || may(0) {
		t.Errorf("three lanes fail: down %v (%s)", down, why)
	}
	_, again := r.May(now, 0)
	if now = again; !may(0) || may(1) {
		t.Error("it is not tried with one")
	}
	if !r.Heard("b other", Ruling{Taken: true}, now, now, 0) {
		t.Error("it has not recovered")
	}
	if down, _ := r.Down(); down || !may(5) {
		t.Error("it is still down")
	}
	if r.Heard("b other", Ruling{Taken: true}, now, now, 0) {
		t.Error("it has recovered from nothing")
	}
	r.Heard("b web", Ruling{Pause: time.Minute}, now, now, 0)
	if _, again := r.May(now, 0); !again.Equal(now.Add(time.Minute)) {
		t.Errorf("a pause is kept until %s", again)
	}
}

// What a receiver asks for holds, whatever it answers to what was sent before.
func TestAPauseIsKept(t *testing.T) {
	for _, c := range []struct {
		name string
		sent time.Duration // after the receiver had asked
		is   Ruling
		want time.Duration // after noon
	}{
		{"another one fails", -time.Second, Ruling{Reason: "it answers 500"}, time.Hour},
		{"another one is taken", -time.Second, Ruling{Taken: true}, time.Hour},
		{"another one is to wait for less", -time.Second, Ruling{Pause: time.Minute}, time.Hour},
		{"another one is to wait for longer", -time.Second, Ruling{Pause: 2 * time.Hour}, 2*time.Hour + time.Second},
		{"it was asked since, and took it", 0, Ruling{Taken: true}, 0},
		{"it was asked since, and says less", 0, Ruling{Pause: time.Minute}, time.Minute + time.Second},
	} {
		var r Receiver
		r.Heard("b web", Ruling{Pause: time.Hour, Reason: "it answers 503"}, noon, noon, 0)
		now := noon.Add(time.Second)
		if r.Heard("b api", c.is, noon.Add(c.sent), now, 0) {
			t.Errorf("%s: it has recovered", c.name)
		}
		ok, again := r.May(now, 0)
		if ok != (c.want == 0) || !ok && !again.Equal(noon.Add(c.want)) {
			t.Errorf("%s: it may be sent to: %v, else at %s", c.name, ok, again)
		}
		if down, why := r.Down(); down && c.want == time.Hour && why != "it answers 503" {
			t.Errorf("%s: it is down because %s", c.name, why)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		a    Answer
		want Ruling
	}{
		{Answer{Status: 200}, Ruling{Taken: true}},
		{Answer{Status: 204, RetryAfter: "60"}, Ruling{Taken: true}},
		{Answer{}, Ruling{Reason: "no answer"}},
		{Answer{Trouble: "no answer in time"}, Ruling{Reason: "no answer in time"}},
		{Answer{Status: 500}, Ruling{Reason: "it answers 500"}},
		{Answer{Status: 503, RetryAfter: "120"}, Ruling{Reason: "it answers 503", Pause: 2 * time.Minute}},
		{Answer{Status: 429, RetryAfter: "Sat, 28 Nov 2026 12:00:30 GMT"}, Ruling{Reason: "it answers 429", Pause: 30 * time.Second}},
		{Answer{Status: 429, RetryAfter: "99999999999999999"}, Ruling{Reason: "it answers 429", Pause: time.Hour}},
		{Answer{Status: 429, RetryAfter: "Sat, 28 Nov 2020 12:00:30 GMT"}, Ruling{Reason: "it answers 429"}},
		{Answer{Status: 429, RetryAfter: "soon"}, Ruling{Reason: "it answers 429"}},
		{Answer{Status: 429, RetryAfter: "-5"}, Ruling{Reason: "it answers 429"}},
		{Answer{Status: 307}, Ruling{Reason: "it answers 307, and a redirect is not followed; write the address that it leads to"}},
		{Answer{Status: 410}, Ruling{Pause: 24 * time.Hour, Reason: "it answers 410: it is gone for good; it is asked again in a day, or when the daemon is started again"}},
	} {
		if got := c.a.Judge(noon); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.a, got, c.want)
		}
	}
	var waits []time.Duration
	for _, n := range []int{1, 2, 5, 9, 10, 1000} {
		waits = append(waits, Wait(n, 0))
	}
	if want := []time.Duration{time.Second, 2 * time.Second, 16 * time.Second, 256 * time.Second, 5 * time.Minute, 5 * time.Minute}; !slices.Equal(waits, want) {
		t.Errorf("waits %v", waits)
	}
	if Wait(1000, 1) != 6*time.Minute {
		t.Error("a share is not a fifth")
	}
}
