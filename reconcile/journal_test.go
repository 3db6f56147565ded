package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// history is a first-parent line, newest first, that counts what is read of it.
type history struct {
	Commits
	line []gitstate.CommitInfo
	read int
}

func (h *history) History(_ context.Context, from string, yield func(gitstate.CommitInfo) bool) error {
	at := slices.IndexFunc(h.line, func(c gitstate.CommitInfo) bool { return c.ID == from })
	for _, c := range h.line[at:] {
		if h.read++; !yield(c) {
			break
		}
	}
	return nil
}

var pinion = ledger.Person{Name: "Pinion", Email: "pinion@shop.example"}

// held stands for a hold, which is of no deployment.
var held Key

// written makes a line of so many commits, c0 the oldest, of which the daemon has
// written some.
func written(n int, by map[int]Key) *history {
	h := &history{}
	for i := n - 1; i >= 0; i-- {
		c := gitstate.CommitInfo{ID: fmt.Sprint("c", i), Message: "Bump\n"}
		if k, ok := by[i]; ok {
			c.Committer.Name, c.Committer.Email = pinion.Name, pinion.Email
			change := ledger.Change{Kind: ledger.ChangePromoted, Environment: k.Environment, Service: k.Service, Reason: "It is verified.",
				From: []string{"dev@" + strings.Repeat("a", 40)}, Policy: "default@" + strings.Repeat("b", 40), Before: "1.0.0",
				Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.1.0"}}}}
			if k == held {
				change = ledger.Change{Kind: ledger.ChangeHeld, Hold: "freeze", Summary: "production", Reason: "No."}
			}
			c.Message = change.Message()
		}
		h.line = append(h.line, c)
	}
	return h
}

func read(t *testing.T, h *history, settled, tip string) (j *journal) {
	t.Helper()
	lines, short, err := lineReader{commits: h, daemon: pinion}.newest(t.Context(), settled, tip)
	if err != nil {
		t.Fatal(err)
	}
	j = &journal{}
	j.begin(lines[0].commit)
	j.add(lines[1:])
	j.short = short
	return j
}

// A start reads main as far back as something of it may not be recorded.
func TestStartReadsWhatMayNotBeRecorded(t *testing.T) {
	web := Key{"staging", "web"}
	for name, x := range map[string]struct {
		by      map[int]Key
		settled string
		read    int
		short   bool
	}{
		"nothing is known":                  {nil, "", mostOwn, false},
		"all is recorded":                   {map[int]Key{1990: web}, "c1999", 1, true},
		"what was recorded is a daemon's":   {map[int]Key{1999: web}, "c1999", 1, true},
		"people went on":                    {map[int]Key{1990: web}, "c1994", 6, true},
		"a daemon has written since":        {map[int]Key{1996: web}, "c1994", mostOwn, false},
		"what is known is of another clone": {nil, "d5", mostOwn, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := written(2000, x.by)
			j := read(t, h, x.settled, "c1999")
			if h.read != x.read || j.short != x.short {
				t.Errorf("it read %d commits, short: %t; want %d, %t", h.read, j.short, x.read, x.short)
			}
			if n := len(j.lines); n != x.read {
				t.Errorf("there are %d lines", n)
			}
		})
	}
}

// Up to where all is recorded is told by the records of what a daemon has written.
func TestSettled(t *testing.T) {
	web, api := Key{"staging", "web"}, Key{"staging", "api"}
	told := map[Key]string{}
	j := read(t, written(10, map[int]Key{1: held, 3: web, 5: api, 7: web}), "", "c9")
	settled := func(want string) {
		t.Helper()
		if got := j.settled(func(k Key) string { return told[k] }); got != want {
			t.Errorf("with %v it is settled up to %q, want %q", told, got, want)
		}
	}
	settled("c2")
	told[web] = "a commit that is nowhere"
	settled("c2")
	told[web] = "c4"
	settled("c4")
	told[api] = "c5"
	settled("c6")
	told[api] = "gone" // what was recorded once stays so
	settled("c6")
	told[web] = "c8"
	settled("c9")
	j.add([]line{{commit: "c10"}, {commit: "c11", own: &web, keys: map[Key]bool{web: true}}, {commit: "c12"}})
	settled("c10")
	told[web] = "c11"
	settled("c12")
	j.broken = true
	settled("")
}

// What a short journal recalls is as if it had been there from the start.
func TestShortJournalRecalls(t *testing.T) {
	web := Key{"staging", "web"}
	h := written(30, map[int]Key{3: web, 20: web})
	short, whole := read(t, h, "c25", "c28"), read(t, h, "", "c28")
	older, _, err := lineReader{commits: h, daemon: pinion}.newest(t.Context(), "", short.lines[0].commit)
	if err != nil {
		t.Fatal(err)
	}
	short.recall(older[:len(older)-1])
	for _, j := range []*journal{short, whole} {
		j.add([]line{{commit: "c29", keys: map[Key]bool{web: true}}, {commit: "c30", keys: map[Key]bool{web: true}}})
	}
	if short.short || len(short.lines) != len(whole.lines) {
		t.Errorf("there are %d lines, want %d", len(short.lines), len(whole.lines))
	}
	for i := range 31 {
		after := fmt.Sprint("c", i)
		if got, want := short.between(web, after, "c30", line.repins), whole.between(web, after, "c30", line.repins); !slices.Equal(got, want) {
			t.Errorf("after %s: %v, want %v", after, got, want)
		}
		if got, want := short.repinned(web, after, "c30"), whole.repinned(web, after, "c30"); got != want {
			t.Errorf("after %s: %s, want %s", after, got, want)
		}
	}
}

// What the record tells of is not forgotten with the environment, which may be ours
// again at once: what was there and back meanwhile is still to be told.
func TestTermEndsWithAShortJournal(t *testing.T) {
	k := Key{"staging", "web"}
	for _, settled := range []string{"", "c25"} {
		h := written(30, map[int]Key{3: k, 20: k})
		c := NewClerk(ClerkOptions{}, NewEngine(Options{}))
		c.journal = *read(t, h, settled, "c28")
		record := ledger.Record{Environment: "staging", Service: "web"}
		record.Deployment.ID, record.Deployment.Commit = "web-c20", "c20"
		c.books["staging"] = &book{records: map[desired.ServiceName]ledger.Record{"web": record}}
		c.cards[k] = &card{identity: &identity{wanted: wanted{id: "web-c20"}}, at: "c28"}
		lines := []line{{commit: "c29", own: &k, keys: map[Key]bool{k: true}}, {commit: "c30", keys: map[Key]bool{k: true}}}
		if c.needsOlder(lines) {
			t.Error("the record tells of what is known, and still more is read")
		}
		c.journal.add(lines)
		for range 2 {
			if got := c.repinned(k, "c30"); got != "c30" {
				t.Errorf("settled %q: the newest that is not recorded is %q", settled, got)
			}
			if got := c.changes(k, c.recordedUpTo(k), "c30", line.repins); !slices.Equal(got, []string{"c29"}) {
				t.Errorf("settled %q: before it is %v", settled, got)
			}
			if at := c.journal.settled(c.recordedUpTo); at != "c28" {
				t.Errorf("settled %q: it is told to be settled up to %q", settled, at)
			}
			c.leave("staging")
		}
	}
}
