package policy

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/ledger"
)

// on writes a time that is past.
func on(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// at writes a time of a time zone, as one reads it from the wall there.
func at(t time.Time, loc *time.Location) string {
	return t.In(loc).Format("Mon 2006-01-02 15:04 MST")
}

// span writes a duration without its zeros: "30m", "1h30m".
func span(d time.Duration) string {
	s := d.Round(time.Second).String()
	if d < time.Second {
		s = d.String()
	}
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// name writes who somebody is.
func name(p ledger.Person) string { return cmp.Or(p.Name, p.Email, "Pinion") }

// version writes a release's version. One without pins is its manifests.
func version(r ledger.Release) string {
	return cmp.Or(r.Version(), "commit "+short(r.Source))
}

// apart writes two releases such that they differ in words, too.
func apart(a, b ledger.Release) (string, string) {
	if !a.SamePins(b) || len(a.Pins) == 0 {
		return version(a), version(b)
	}
	return version(a) + " with the manifests of " + short(a.Source), version(b) + " with those of " + short(b.Source)
}

func short(commit string) string { return cmp.Or(commit[:min(len(commit), 12)], "an unknown commit") }

// counted writes a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// outcome writes who said it, and where: "passed (ci, https://ci.example/5)".
func outcome(c ledger.Check) string {
	word := "failed"
	if c.Result == ledger.Success {
		word = "passed"
	}
	if c.By == self && c.URL == "" {
		return word
	}
	where := cmp.Or(c.By, "nobody")
	if c.URL != "" {
		where += ", " + c.URL
	}
	return word + " (" + where + ")"
}

// gist is a recorded reason without the evidence below it.
func gist(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// clause makes a recorded sentence a part of another one.
func clause(s string) string {
	s = strings.TrimSuffix(gist(s), ".")
	if len(s) > 1 && 'A' <= s[0] && s[0] <= 'Z' && (s[1] == ' ' || 'a' <= s[1] && s[1] <= 'z') {
		s = string(s[0]-'A'+'a') + s[1:]
	}
	return s
}

// argument writes a version as an argument of a command.
func argument(version string) string {
	if strings.ContainsAny(version, " ,") {
		return "'" + version + "'"
	}
	return version
}
