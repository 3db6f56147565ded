package desired

import (
	"fmt"
	"slices"
	"strings"
)

// News is something that others may want to be told of: what becomes of a
// deployment, or of a hold.
type News string

// The news.
const (
	NewsPinned     News = "pinned"
	NewsPromoted   News = "promoted"   // pinned, by a promotion
	NewsRolledBack News = "rolledBack" // pinned, by going back
	NewsStarted    News = "started"
	NewsCompleted  News = "completed"
	NewsVerified   News = "verified"
	NewsFailed     News = "failed"
	NewsSuperseded News = "superseded"
	NewsCheck      News = "check"
	NewsRerun      News = "rerun"
	NewsOffered    News = "offered"
	NewsWanted     News = "approvalWanted"
	NewsApproved   News = "approved"
	NewsDrifted    News = "drifted"
	NewsRetired    News = "retired"
	NewsHeld       News = "held"
	NewsReleased   News = "released"
)

// AllNews are the news that there are, in the order in which they come about.
var AllNews = []News{
	NewsPinned, NewsPromoted, NewsRolledBack, NewsStarted, NewsCompleted, NewsVerified, NewsFailed, NewsSuperseded,
	NewsCheck, NewsRerun, NewsOffered, NewsWanted, NewsApproved, NewsDrifted, NewsRetired, NewsHeld, NewsReleased,
}

// Notify asks that a sink of the daemon's configuration is told the news of an
// environment.
type Notify struct {
	Sink     string
	Events   []News        // empty: all
	Services []ServiceName // empty: all
	Position Position
}

type notifyFile struct {
	Sink     word `yaml:"sink,required" form:"label" example:"chat" doc:"A sink of the daemon's configuration, by its name."`
	Events   list `yaml:"events" form:"news" doc:"What is told. Absent or []: all."`
	Services list `yaml:"services" form:"label" doc:"Of which services. Absent or []: of all."`
}

func notifications(raw []notifyFile) []Notify {
	var all []Notify
	for _, x := range raw {
		if x.Sink.or("") != "" {
			all = append(all, Notify{x.Sink.Text, namesOf[News](x.Events), namesOf[ServiceName](x.Services), x.Sink.Position})
		}
	}
	return all
}

// newsNames are AllNews as they are written.
var newsNames = func() []string {
	names := make([]string, len(AllNews))
	for i, n := range AllNews {
		names[i] = string(n)
	}
	return names
}()

func checkNews(s string) (message, hint string) {
	if slices.Contains(newsNames, s) {
		return "", ""
	}
	hint = "write " + strings.Join(newsNames, ", ")
	if guess := nearest(s, newsNames); guess != "" {
		hint = fmt.Sprintf("did you mean %q?", guess)
	}
	return fmt.Sprintf("there are no news %q", abridge(s)), hint
}

// ParseNews reads one of the news.
func ParseNews(s string) (News, error) {
	if message, hint := checkNews(s); message != "" {
		return "", fmt.Errorf("%s; %s", message, hint)
	}
	return News(s), nil
}

// notify looks up the services that are named under notify: of environments.
func (l *linker) notify() {
	for _, name := range sortedNames(l.Environments) {
		for _, x := range rawOf[*environmentFile](l.Repository, KindEnvironment, name).Notify {
			for _, w := range x.Services.Items {
				if _, there := l.known(KindService, w.Text); !there {
					l.tell(l.dangling(w, KindService, KindEnvironment, name), false)
				}
			}
		}
	}
}

// CheckSinks returns an error for each environment that names a sink which is
// not among the known ones, which are a matter of the daemon's configuration.
func (r *Repository) CheckSinks(known []string) []Problem {
	var problems []Problem
	for name, e := range r.Environments {
		for _, n := range e.Notify {
			if slices.Contains(known, n.Sink) {
				continue
			}
			hint := "no sink of the configuration can be named here"
			if len(known) > 0 {
				hint = "known are " + strings.Join(known, ", ")
			}
			if guess := nearest(n.Sink, known); guess != "" {
				hint = fmt.Sprintf("did you mean %q?", guess)
			}
			problems = append(problems, Problem{SeverityError, n.Position, fmt.Sprintf("notify: there is no sink %s", n.Sink), hint, KindEnvironment, string(name)})
		}
	}
	return sorted(problems)
}
