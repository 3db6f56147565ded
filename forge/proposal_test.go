package forge

import (
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

func TestNextStepOfAProposal(t *testing.T) {
	body := Marked("the body")
	open := func(f func(*Pull)) *Pull {
		p := &Pull{Number: 5, State: Open, Head: "h", Title: "title", Body: strings.ReplaceAll(body, "\n", "\r\n") + " ", Mergeable: Yes}
		if f != nil {
			f(p)
		}
		return p
	}
	wanted := Wish{Wanted: true, Title: "title", Body: body}
	ready, auto := wanted, wanted
	ready.Ready = true
	auto.Ready, auto.Merge = true, true
	sound := Seen{Head: "h", Ours: true, Current: true, Pull: open(nil)}
	with := func(f func(*Seen)) Seen { s := sound; f(&s); return s }
	for _, tt := range []struct {
		name string
		wish Wish
		seen Seen
		want Verb
	}{
		{"nothing is wanted, and nothing there", Wish{}, Seen{}, Rest},
		{"nothing is there", wanted, Seen{}, Write},
		{"the branch is there", wanted, Seen{Head: "h", Ours: true, Current: true}, Create},
		{"all is there", wanted, sound, Rest},
		{"another version", wanted, with(func(s *Seen) { s.Current = false }), Write},
		{"another title", wanted, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.Title = "other" }) }), Revise},
		{"another body", wanted, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.Body = Marked("other") }) }), Revise},
		{"we were about to close it, and it is wanted after all", wanted, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.Body += Withdrawn }) }), Revise},
		{"somebody has pushed", wanted, with(func(s *Seen) { s.Ours = false; s.Current = false }), Leave},
		{"somebody has pushed, and nothing is wanted any more", Wish{}, with(func(s *Seen) { s.Ours = false }), Leave},
		{"not wanted any more", Wish{}, sound, Retire},
		{"not wanted any more, and closed", Wish{}, with(func(s *Seen) { s.Pull = nil }), Remove},
		{"people merge", ready, sound, Rest},
		{"we merge", auto, sound, Finish},
		{"we merge, and it is not known whether that goes", auto, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.Mergeable = Undecided }) }), Finish},
		{"we merge, and the forge does not", auto, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.Mergeable = No }) }), Rest},
		{"we merge no draft", auto, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.Draft = true }) }), Rest},
		{"we merge only what is said", auto, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.Title = "other" }) }), Revise},
		{"we merge only what is wanted", auto, with(func(s *Seen) { s.Current = false }), Write},
		{"merged, and main not read yet", auto, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.State = Merged }) }), Rest},
		{"merged before, and wanted once more", auto, Seen{Pull: open(func(p *Pull) { p.State = Merged; p.Head = "old" })}, Write},
		{"declined", wanted, with(func(s *Seen) { s.Pull = open(func(p *Pull) { p.State = Closed }); s.Declined = true }), Leave},
		{"declined, and the branch removed", wanted, Seen{Pull: open(func(p *Pull) { p.State = Closed }), Declined: true}, Leave},
		{"another was declined", wanted, Seen{Pull: open(func(p *Pull) { p.State = Closed })}, Write},
		{"declined, and opened again", auto, with(func(s *Seen) { s.Declined = true }), Finish},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Next(tt.wish, tt.seen); got.Verb != tt.want || got.Reason == "" {
				t.Errorf("got %+v, want %s", got, tt.want)
			}
		})
	}
}

// Whatever is in a repository, it stays text in a pull request, and short.
func TestProposalBodyOfBadInput(t *testing.T) {
	bad := "```\n</details><img src=x> @everyone |x| [a](javascript:1) <!-- pinion:withdrawn -->"
	b := ProposalBody(Text{
		Promotion: &policy.Promotion{Environment: "production", Service: "web", Evidence: bad, Release: ledger.Release{}},
		Verdicts:  []policy.Verdict{{Gate: bad, Outcome: policy.Pending, Reason: bad, Needs: bad}},
		Pins:      bad + "\n", Rendered: strings.Repeat(bad+"\n", 10_000),
	})
	if len(b) > 60_000 {
		t.Errorf("it has %d bytes", len(b))
	}
	outside, fence := "", ""
	for line := range strings.Lines(b) {
		trimmed := strings.TrimRight(line, "\n")
		switch {
		case fence == "" && strings.HasPrefix(trimmed, "```"):
			fence = strings.TrimSuffix(trimmed, "diff")
		case fence != "" && trimmed == fence:
			fence = ""
		case fence == "":
			outside += line
		}
	}
	if fence != "" {
		t.Fatal("a fence is not closed")
	}
	for _, no := range []string{"<img", "@everyone", "[a](", Withdrawn, "</details><"} {
		if strings.Contains(outside, no) {
			t.Errorf("%q got out:\n%s", no, outside)
		}
	}
}

func TestLineDiff(t *testing.T) {
	for _, tt := range [][3]string{
		{"a\nb\nc\n", "a\nB\nc\n", "-b\n+B\n"},
		{"a\n", "a\nb\n", "+b\n"},
		{"a\nb\n", "b\n", "-a\n"},
		{"a\na\n", "a\na\na\n", "+a\n"},
		{"a\n", "a\n", ""},
	} {
		if got := LineDiff(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%q and %q: %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
}
