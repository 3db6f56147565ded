package forge

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/policy"
)

// BranchPrefix is what the branches of proposals begin with. Nobody else is to
// write to them.
const BranchPrefix = "pinion/promote/"

// Branch is that of the proposal for a service to enter an environment.
func Branch(env desired.EnvironmentName, svc desired.ServiceName) string {
	return BranchPrefix + string(env) + "/" + string(svc)
}

// GateContext is the status that says on a proposal's head whether policy lets
// it be merged. A forge can be told to require it, so other heads have it, too.
const GateContext = ContextPrefix + "promotion"

// Wish is what a proposal's pull request is to be.
type Wish struct {
	Wanted bool // else there is to be none
	Ready  bool // policy lets it be merged
	Merge  bool // and we do that
	Title  string
	Body   string // has a mark; see Marked
}

// Seen is what is there.
type Seen struct {
	Head    string // of the branch; "": there is no branch
	Ours    bool   // it is as we wrote it
	Current bool   // and it brings what is wanted, onto what main is now
	// Pull is the newest pull request of the branch; nil: there never was one.
	Pull *Pull
	// Declined: it was closed, by somebody else, when it brought what is wanted.
	Declined bool
}

// Verb is what is to be done about a proposal.
type Verb string

// The verbs.
const (
	Rest   Verb = "rest"   // nothing
	Leave  Verb = "leave"  // nothing, for a reason that somebody has to know
	Write  Verb = "write"  // the branch
	Create Verb = "open"   // the pull request
	Revise Verb = "edit"   // its title and body
	Finish Verb = "merge"  // it
	Retire Verb = "close"  // it, and remove the branch
	Remove Verb = "remove" // the branch
)

// Step is what is to be done about a proposal next, and why.
type Step struct {
	Verb   Verb
	Reason string
}

// Next decides what is to be done about a proposal. It is asked again after
// each step, and after each look at the forge: what it says depends on nothing
// but what is there.
func Next(w Wish, s Seen) Step {
	open := s.Pull != nil && s.Pull.State == Open
	switch {
	case s.Head != "" && !s.Ours:
		return Step{Leave, "somebody else has written to the branch, so it is left alone; remove the branch to have it proposed anew"}
	case !w.Wanted && open:
		return Step{Retire, "it is not to be promoted any more"}
	case !w.Wanted && s.Head != "":
		return Step{Remove, "nothing is proposed any more"}
	case !w.Wanted:
		return Step{Rest, "nothing is proposed"}
	case !open && s.Declined:
		return Step{Leave, fmt.Sprintf("pull request #%d was closed without being merged, so the same is not proposed again; reopen it to have it promoted", s.Pull.Number)}
	case s.Pull != nil && s.Pull.State == Merged && s.Current && s.Pull.Head == s.Head:
		return Step{Rest, "it is merged, and main is about to be read"}
	case s.Head == "" || !s.Current:
		return Step{Write, "the branch does not bring what is to be promoted, onto what main is now"}
	case !open:
		return Step{Create, "there is no pull request for it"}
	case s.Pull.Title != w.Title || !strings.Contains(s.Pull.Body, mark(w.Body)),
		strings.Contains(s.Pull.Body, Withdrawn): // else a person who closes it would not be heard
		return Step{Revise, "the pull request says something else"}
	case w.Ready && w.Merge && s.Pull.Draft:
		return Step{Rest, "it is a draft, which is not merged"}
	case w.Ready && w.Merge && s.Pull.Mergeable == No:
		return Step{Rest, "the forge does not let it be merged yet"}
	case w.Ready && w.Merge:
		return Step{Finish, "every gate is passed"}
	}
	return Step{Rest, "it is as it is to be"}
}

// Withdrawn marks a pull request that we have closed ourselves.
const Withdrawn = "<!-- pinion:withdrawn -->"

// Marked returns a body with a mark by which it is known again, for a forge may
// change its spaces.
func Marked(body string) string {
	sum := sha256.Sum256([]byte(body))
	return body + "\n\n<!-- pinion:proposal " + hex.EncodeToString(sum[:8]) + " -->\n"
}

// mark is the mark of a body.
func mark(body string) string {
	if i := strings.LastIndex(body, "<!-- pinion:proposal "); i >= 0 {
		return strings.TrimSpace(body[i:])
	}
	return body
}

// Text is what the body of a proposal says.
type Text struct {
	Promotion *policy.Promotion
	Verdicts  []policy.Verdict
	Ready     bool
	Merge     bool
	Pins      string // the difference of the environment's file
	Rendered  string // the difference of what is rendered
}

// maxDiff bounds one difference in a text, in bytes. GitHub takes 65536
// characters of a body.
const maxDiff = 24 << 10

// ProposalBody writes the body of a proposal.
func ProposalBody(t Text) string {
	var b strings.Builder
	p := t.Promotion
	b.WriteString(Plain(p.Evidence) + "\n")
	var rows []string
	for _, v := range t.Verdicts {
		row := fmt.Sprintf("| %s | %s | %s |", cell(v.Gate), v.Outcome, cell(v.Reason))
		if v.Outcome != policy.Passed && v.Needs != "" {
			row = fmt.Sprintf("| %s | %s | %s; %s |", cell(v.Gate), v.Outcome, cell(v.Reason), cell(v.Needs))
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		b.WriteString("\n| gate | | |\n|---|---|---|\n" + strings.Join(rows, "\n") + "\n")
	}
	switch {
	case !t.Ready:
		b.WriteString("\nNot all gates are passed yet. To merge it now would be to go past policy.\n")
	case t.Merge:
		b.WriteString("\nEvery gate is passed. Pinion merges it as soon as it can be merged.\n")
	default:
		b.WriteString("\nEvery gate is passed. Merging it is the promotion.\n")
	}
	b.WriteString("\n**" + Plain(fmt.Sprintf("environments/%s.yaml", p.Environment)) + "**\n\n" + fenced("diff", t.Pins, maxDiff))
	if t.Rendered != "" {
		b.WriteString("\n<details><summary>What is rendered differs</summary>\n\n" + fenced("diff", t.Rendered, maxDiff) + "\n</details>\n")
	}
	b.WriteString("\nPinion keeps this up to date, and closes it when it is overtaken. Don't push to its branch.\n")
	return Marked(b.String())
}

// fenced writes a text as code, whatever is in it, and at most so much of it.
func fenced(language, text string, most int) string {
	if len(text) > most {
		end := strings.LastIndexByte(text[:most], '\n') + 1
		text = text[:end] + fmt.Sprintf("… (%d bytes more)\n", len(text)-end)
	}
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + language + "\n" + strings.TrimRight(text, "\n") + "\n" + fence + "\n"
}

// markup is what means something in Markdown or HTML, or calls somebody.
var markup = strings.NewReplacer("\\", "\\\\", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "<", "&lt;", "|", "\\|", "#", "\\#", "@", "@\u200b", "!", "\\!")

// Plain writes a text of others so that it is no more than text.
func Plain(text string) string { return markup.Replace(text) }

func cell(text string) string { return Plain(strings.Join(strings.Fields(text), " ")) }

// LineDiff shows which lines of a file are others, for files that differ in a
// few lines and in no order.
func LineDiff(before, after string) string {
	a, b := strings.Split(strings.TrimRight(before, "\n"), "\n"), strings.Split(strings.TrimRight(after, "\n"), "\n")
	count := map[string]int{}
	for _, l := range b {
		count[l]++
	}
	var out strings.Builder
	gone := map[string]int{}
	for _, l := range a {
		if count[l] > 0 {
			count[l]--
			continue
		}
		gone[l]++
		out.WriteString("-" + l + "\n")
	}
	for _, l := range slices.Backward(b) { // the last of the same lines are the new ones
		if count[l] > 0 {
			count[l]--
			gone["+"+l]++
		}
	}
	for _, l := range b {
		if gone["+"+l] > 0 {
			gone["+"+l]--
			out.WriteString("+" + l + "\n")
		}
	}
	return out.String()
}
