package artifact

import (
	"strings"
	"time"
)

// labels are where an image says what its build says of it: our own names, then
// those of https://github.com/opencontainers/image-spec/blob/main/annotations.md,
// then those of http://label-schema.org, which came before. There is none for a
// branch, a build or the time of a commit but ours.
var labels = []struct {
	names []string
	put   func(f *Facts, value string)
}{
	{[]string{"dev.pinion.commit", "org.opencontainers.image.revision", "org.label-schema.vcs-ref"}, func(f *Facts, v string) { f.Commit = v }},
	{[]string{"dev.pinion.branch"}, func(f *Facts, v string) { f.Branch = v }},
	{[]string{"dev.pinion.source", "org.opencontainers.image.source", "org.label-schema.vcs-url"}, func(f *Facts, v string) { f.Source = v }},
	{[]string{"dev.pinion.build"}, func(f *Facts, v string) { f.Build = v }},
	{[]string{"dev.pinion.tests"}, func(f *Facts, v string) { f.Tests = Result(v) }},
	{[]string{"dev.pinion.quality"}, func(f *Facts, v string) { f.Quality = Result(v) }},
	{[]string{"dev.pinion.created", "org.opencontainers.image.created", "org.label-schema.build-date"}, func(f *Facts, v string) {
		f.Created, _ = time.Parse(time.RFC3339, v)
	}},
	{[]string{"dev.pinion.committed"}, func(f *Facts, v string) { f.Committed, _ = time.Parse(time.RFC3339, v) }},
}

// FactsOf reads what the labels of an image say. Without one for that, it was
// built when its configuration was created, unless that is the time of no clock.
// What can't be recorded is left out, and told.
func FactsOf(all map[string]string, created time.Time) (Facts, []string) {
	var f Facts
	for _, l := range labels {
		for _, name := range l.names {
			if v := strings.TrimSpace(all[name]); v != "" {
				l.put(&f, v)
				break
			}
		}
	}
	// Who builds reproducibly writes the beginning of Unix's time.
	if f.Created.IsZero() && created.Year() > 1980 {
		f.Created = created
	}
	return f.Sound()
}
