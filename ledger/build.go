package ledger

import (
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// Build is how an artifact was made, as far as is known: what its build said of
// it. Each text is one word.
type Build struct {
	Artifact desired.ArtifactName
	Commit   string // of the source
	Branch   string // of the source
	Source   string // the address of the source's repository
	URL      string // of the build
	Tests    string // passed or failed
	Quality  string // passed or failed: the quality gate
	Created  time.Time
	Signed   string // the names of the keys that have signed it, with commas between
}

func (b Build) normal() Build {
	for _, text := range []*string{&b.Commit, &b.Branch, &b.Source, &b.URL, &b.Tests, &b.Quality, &b.Signed} {
		*text = token(*text, maxToken)
	}
	b.Created = b.Created.UTC().Truncate(time.Second)
	return b
}

// words are the keys of a trailer with their values.
func (b *Build) words() []struct {
	key   string
	value *string
} {
	return []struct {
		key   string
		value *string
	}{
		{"commit", &b.Commit}, {"branch", &b.Branch}, {"source", &b.Source}, {"build", &b.URL},
		{"tests", &b.Tests}, {"quality", &b.Quality}, {"signed", &b.Signed},
	}
}

// trailer writes "web commit=4f1c2aa branch=main tests=passed".
func (b Build) trailer() string {
	all := []string{string(b.Artifact)}
	for _, w := range b.words() {
		if *w.value != "" {
			all = append(all, w.key+"="+*w.value)
		}
	}
	if !b.Created.IsZero() {
		all = append(all, "created="+b.Created.Format(time.RFC3339))
	}
	return strings.Join(all, " ")
}

// parseBuild reads a trailer back. What it does not know is left out: a later
// version may say more.
func parseBuild(s string) Build {
	all := strings.Fields(s)
	var b Build
	if len(all) == 0 {
		return b
	}
	b.Artifact = desired.ArtifactName(all[0])
	for _, word := range all[1:] {
		key, value, _ := strings.Cut(word, "=")
		for _, w := range b.words() {
			if w.key == key {
				*w.value = value
			}
		}
		if key == "created" {
			b.Created, _ = time.Parse(time.RFC3339, value)
		}
	}
	return b.normal()
}
