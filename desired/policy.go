package desired

import (
	"fmt"
	"strings"
	"time"
)

// Check is which kind of check a policy is: the key that its file has.
type Check string

const (
	CheckReport     Check = "report"
	CheckSoak       Check = "soak"
	CheckJob        Check = "job"
	CheckHTTP       Check = "http"
	CheckPrometheus Check = "prometheus"
	CheckApproval   Check = "approval"
	CheckWindow     Check = "window"
	CheckCEL        Check = "cel"
)

// Policy is one named check. Check says which of the fields below is set.
type Policy struct {
	Name  PolicyName
	File  string
	Check Check

	Report     *Report
	Soak       time.Duration // healthy and unchanged for this long
	Job        *Job
	HTTP       *HTTP
	Prometheus *Prometheus
	Approval   *Approval
	Window     *Window
	CEL        string // not compiled here

	Timeout time.Duration // not passed by then: failed; 0: none
	// Expression is the place of the CEL expression (cel, http.expect or
	// prometheus.expect), for who compiles it; see [Repository.ExpressionAt].
	Expression Position
}

// ExpressionAt returns the place in the file of a character of a policy's CEL
// expression, by its line and column in the expression, both counted from 0.
// Where that can't be told, it is the place of the expression as a whole.
func (r *Repository) ExpressionAt(p *Policy, line, column int) Position {
	if f := r.folders[KindPolicy]; f == nil || f.files[string(p.Name)] == nil {
		return p.Expression // it was not read from files
	}
	return rawOf[*policyFile](r, KindPolicy, string(p.Name)).expression.place(p.Expression, line, column)
}

// Report waits for an outside system to report success or failure.
type Report struct {
	By []string // who may report
}

// Job is a Kubernetes Job that is run in the environment with its pins.
type Job struct {
	Manifest string // path from the root of the tree
}

// HTTP is a request that must be answered as expected.
type HTTP struct {
	// URL may hold {environment}, {namespace} and {service}; see [Expand].
	URL      string
	Position Position // of the URL
	Expect   string   // CEL over status and body; "status == 200" if the file says nothing
}

// Prometheus is a query whose value must be as expected for some time.
type Prometheus struct {
	// URL and Query may hold {environment}, {namespace} and {service}; see [Expand].
	URL      string
	Position Position // of the URL
	Query    string
	Expect   string        // CEL over value
	For      time.Duration // 0: once
}

// Approval waits for people to agree.
type Approval struct {
	Groups []string
	Count  int // how many people, at least 1
	// AllowAuthor: the approval of somebody who chose the version counts, too.
	AllowAuthor bool
}

// Window is the time in which something may happen.
type Window struct {
	Allow    string // as written
	Spans    []Span
	Timezone string   // IANA name; "UTC" if the file says nothing. Whether it exists is checked by [Repository.CheckTimezones].
	Position Position // of the time zone, else of the window
}

// Span is a range of days, each with the same hours. Last may come before
// First in the week: Fri-Mon is four days.
type Span struct {
	First, Last time.Weekday
	From, Until time.Duration // since midnight by the clock on the wall; Until is not within, and at most 24h
}

// Has reports whether a time of a day, since midnight by the clock on the
// wall, is within the span.
func (s Span) Has(day time.Weekday, clock time.Duration) bool {
	within := s.First <= day && day <= s.Last
	if s.Last < s.First {
		within = day >= s.First || day <= s.Last
	}
	return within && s.From <= clock && clock < s.Until
}

// Expand replaces {environment}, {namespace} and {service}.
func Expand(text string, env *Environment, svc ServiceName) string {
	if !strings.Contains(text, "{") {
		return text
	}
	return strings.NewReplacer("{environment}", string(env.Name), "{namespace}", env.Namespace, "{service}", string(svc)).Replace(text)
}

var weekdays = map[string]time.Weekday{"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}

// parseSpans reads "Mon-Thu 09:00-16:00, Fri 09:00-12:00".
func parseSpans(s string) ([]Span, error) {
	var spans []Span
	for part := range strings.SplitSeq(s, ",") {
		words := strings.Fields(part)
		if len(words) != 2 {
			return nil, fmt.Errorf("%q is not days and hours", strings.TrimSpace(part))
		}
		first, last, ranged := strings.Cut(words[0], "-")
		if !ranged {
			last = first
		}
		var span Span
		for _, d := range []struct {
			name string
			into *time.Weekday
		}{{first, &span.First}, {last, &span.Last}} {
			day, ok := weekdays[strings.ToLower(d.name)]
			if !ok {
				return nil, fmt.Errorf("%q is not a day", d.name)
			}
			*d.into = day
		}
		from, until, ok := strings.Cut(words[1], "-")
		if !ok {
			return nil, fmt.Errorf("%q is not a range of hours", words[1])
		}
		var err error
		if span.From, err = parseClock(from); err != nil {
			return nil, err
		}
		if span.Until, err = parseClock(until); err != nil {
			return nil, err
		}
		if span.Until <= span.From {
			return nil, fmt.Errorf("%s ends before it begins: past midnight, write two, up to 24:00 and from 00:00 of the next day", words[1])
		}
		spans = append(spans, span)
	}
	return spans, nil
}

func parseClock(s string) (time.Duration, error) {
	if s == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%q is not a time of day", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}
