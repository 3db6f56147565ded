package forge

import (
	"fmt"
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// Subject is what is examined of a pull request.
type Subject struct {
	Base, Head string
	// Trusted: it may be compared with what runs. Not what comes from a fork,
	// which anybody can make.
	Trusted bool
}

// Examination is what a pull request would do.
type Examination struct {
	// Untouched: it changes no file that Pinion reads, and the rest is empty.
	Untouched bool
	Problems  []string // as `pinion lint` prints them
	Errors    int
	Warnings  int
	// Environments are those in which anything changes, by name.
	Environments []EnvironmentChange
	// Live says in words why nothing was compared with the clusters; "": it was.
	Live string
}

// EnvironmentChange is what changes in one environment: in what is rendered, and
// in what runs. A text that is empty: nothing.
type EnvironmentChange struct {
	Environment desired.EnvironmentName
	Rendered    string
	Live        string
	Failed      string // why it can't be told
}

// LintContext is the status that says whether a pull request lints clean.
const LintContext = ContextPrefix + "lint"

// CommentMark is by what our comment is known.
const CommentMark = "<!-- pinion:review -->"

// maxComment bounds a comment, and maxPart each text in it, in bytes.
const (
	maxComment = 60_000
	maxPart    = 12 << 10
)

// Status is that of the head.
func (x Examination) Status() Status {
	s := Status{Context: LintContext, State: Success, Description: "no errors"}
	if x.Untouched {
		s.Description = "it changes nothing that Pinion reads"
	}
	if x.Errors > 0 {
		s.State, s.Description = Failure, counted(x.Errors, "error")
		if len(x.Problems) > 0 {
			s.Description += ": " + x.Problems[0]
		}
	}
	if x.Warnings > 0 && x.Errors == 0 {
		s.Description += ", " + counted(x.Warnings, "warning")
	}
	s.Description = Short(strings.Join(strings.Fields(s.Description), " "))
	return s
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Comment is the one comment of a pull request.
func (x Examination) Comment(head, base string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n### What this changes\n\nOf `%.12s`, against `%.12s`.\n", CommentMark, head, base)
	if x.Untouched {
		b.WriteString("\nIt changes nothing that Pinion reads.\n")
		return b.String()
	}
	if len(x.Problems) > 0 {
		fmt.Fprintf(&b, "\n**`pinion lint`: %s, %s**\n\n%s", counted(x.Errors, "error"), counted(x.Warnings, "warning"), fenced("", strings.Join(x.Problems, "\n"), maxPart))
	} else {
		b.WriteString("\n`pinion lint` finds nothing wrong.\n")
	}
	if len(x.Environments) == 0 {
		b.WriteString("\nNothing that is rendered changes, in any environment.\n")
	}
	for i, e := range x.Environments {
		var part strings.Builder
		fmt.Fprintf(&part, "\n<details><summary><b>%s</b>: %s</summary>\n\n", Plain(string(e.Environment)), e.summary(x.Live))
		if e.Failed != "" {
			part.WriteString("It can't be told:\n\n" + fenced("", e.Failed, maxPart) + "\n")
		}
		if e.Rendered != "" {
			part.WriteString("What is rendered:\n\n" + fenced("diff", e.Rendered, maxPart) + "\n")
		}
		if e.Live != "" {
			part.WriteString("What would change in the cluster now:\n\n" + fenced("diff", e.Live, maxPart) + "\n")
		}
		part.WriteString("</details>\n")
		if b.Len()+part.Len() > maxComment {
			fmt.Fprintf(&b, "\n… and in %s more, which would be too much to show; `pinion diff ENV --against %.12s` shows one.\n", counted(len(x.Environments)-i, "environment"), base)
			break
		}
		b.WriteString(part.String())
	}
	if x.Live != "" {
		b.WriteString("\nNothing was compared with what runs: " + Plain(x.Live) + ".\n")
	}
	return b.String()
}

func (e EnvironmentChange) summary(noLive string) string {
	switch {
	case e.Failed != "":
		return "it can't be told"
	case e.Rendered == "":
		return "nothing that is rendered changes"
	case noLive == "" && e.Live == "":
		return "what is rendered changes, and nothing in the cluster"
	}
	return "what is rendered changes"
}
