package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
)

// PublishRequest says that there is a new version of an artifact.
type PublishRequest struct {
	Principal  Principal
	Repository string
	Version    string // the tag
	Digest     string
	artifact.Facts
	// Within are the environments that it may enter; nil: any.
	Within []desired.EnvironmentName
}

// Publish records that there is a version. It returns when that is pushed; the
// error is a *Rejection if the request was not taken.
func (c *Clerk) Publish(ctx context.Context, r PublishRequest) (Receipt, error) {
	return c.ask(ctx, &request{ctx: ctx, publish: &r})
}

// servePublish takes up what somebody publishes.
func (c *Clerk) servePublish(b *batch, r *request) {
	a := answer{request: r}
	var rejection *Rejection
	if a.receipt.Message, rejection = c.takePublish(b, *r.publish); rejection != nil {
		a.err = rejection
	}
	b.answers = append(b.answers, a)
}

// answerPublish tells who has published that it is pushed, if it is.
func (c *Clerk) answerPublish(b *batch, a answer) {
	if len(b.finds) > 0 {
		b.answers = append(b.answers, a)
		return
	}
	a.receipt.Commit, a.receipt.Branch = c.shelf.At(), artifact.Branch
	a.request.reply <- a
}

func (c *Clerk) takePublish(b *batch, r PublishRequest) (string, *Rejection) {
	if c.shelfErr != nil {
		return "", reject(NotReady, "what is known of artifacts can't be used; somebody has to mend %s: %v", artifact.Branch, c.shelfErr)
	}
	image := r.Repository + ":" + r.Version
	rules := c.rulesFor(r.Repository)
	if len(rules) == 0 {
		return "", reject(UnknownArtifact, "no stage tracks %s; %s", r.Repository, c.trackedRepositories())
	}
	by := append([]string{r.Principal.Name}, r.Principal.Groups...)
	mine := slices.DeleteFunc(slices.Clone(rules), func(t desired.Tracked) bool {
		return !slices.ContainsFunc(by, func(n string) bool { return slices.Contains(t.Publishers, n) })
	})
	for _, t := range mine {
		if r.Within != nil && !slices.Contains(r.Within, t.Environment) {
			return "", reject(NotAPublisher, "%s may not publish %s: it would enter %s, too, where %s may not write", r.Principal.Name, r.Repository, t.Environment, r.Principal.Name)
		}
	}
	named := publishers(mine)
	as := slices.DeleteFunc(by, func(n string) bool { return !slices.Contains(named, n) })
	if len(mine) == 0 {
		who := "names no publishers"
		if all := publishers(rules); len(all) > 0 {
			who = "lets " + strings.Join(all, ", ") + " do that"
		}
		return "", reject(NotAPublisher, "%s may not publish %s; the stage that tracks it %s", r.Principal.Name, r.Repository, who)
	}
	if err := choosable(mine, r.Version, r.Branch); err != nil {
		return "", reject(NotTracked, "%s is not recorded, for no stage could take it: %v", image, err)
	}
	t, err := b.shelf(c).Take(artifact.Sighting{Repository: r.Repository, Version: r.Version, Digest: r.Digest, Facts: r.Facts,
		Origin: artifact.FromPublisher, By: r.Principal.Name, As: as, Time: b.now})
	if err != nil {
		return "", reject(Invalid, "%v", err)
	}
	b.find(t)
	switch {
	case t.Foreign:
		return "", reject(NotAPublisher, "%s", t.Refused)
	case t.Refused != "":
		return "", &Rejection{Code: MovedTag, Message: t.Refused}
	case t.Event == "":
		return image + " is recorded already", nil
	}
	return image + " is recorded", nil
}

// choosable says why no rule could choose a version; nil: one could.
func choosable(rules []desired.Tracked, tag, branch string) error {
	var first error
	for _, t := range rules {
		v, err := t.Rule.Read(tag)
		if err == nil {
			err = t.Rule.Allows(v, branch)
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func publishers(rules []desired.Tracked) []string {
	var all []string
	for _, t := range rules {
		all = append(all, t.Publishers...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// rulesFor returns by which rules versions of a repository are tracked.
func (c *Clerk) rulesFor(repository string) []desired.Tracked {
	repository = artifact.Normal(repository)
	return slices.DeleteFunc(slices.Clone(c.tracked), func(t desired.Tracked) bool { return artifact.Normal(t.Pin.Image.Repository) != repository })
}

func (c *Clerk) trackedRepositories() string {
	all := map[string]bool{}
	for _, t := range c.tracked {
		all[t.Pin.Image.Repository] = true
	}
	if len(all) == 0 {
		return "none tracks anything; see track: of a pipeline's stages"
	}
	return "tracked are " + names(all)
}

// find puts into the batch what came to be known.
func (b *batch) find(t artifact.Taken) {
	if t.Event != "" {
		b.finds = append(b.finds, t)
	}
}

// shelf is what is known as the batch leaves it.
func (b *batch) shelf(c *Clerk) *artifact.Shelf {
	if len(b.finds) == 0 {
		return c.shelf
	}
	records := make([]artifact.Record, len(b.finds))
	for i, t := range b.finds {
		records[i] = t.Record
	}
	return c.shelf.With(c.shelf.At(), records...)
}

// finds returns the commits that record what came to be known.
func (c *Clerk) finds(b *batch, who gitstate.Signature) []gitstate.Change {
	var all []gitstate.Change
	for i, t := range b.finds {
		change := gitstate.Change{
			Branch: artifact.Branch, Files: map[string][]byte{artifact.File(t.Record.Repository, t.Record.Version): t.Record.Encode()},
			Message: t.Message(), Author: who, Committer: who, Sign: c.options.Sign,
		}
		if i == 0 {
			change.Expected = c.shelf.At()
		}
		all = append(all, change)
	}
	return all
}

// shelved takes in what of the finds is on the remote; their ids begin at n.
func (c *Clerk) shelved(b *batch, ids []string, n int, any bool) (int, bool) {
	finds := b.finds
	if len(finds) == 0 {
		return n, any
	}
	ids = ids[n : n+len(finds)]
	n += len(finds)
	if ids[0] == "" {
		return n, any
	}
	news := map[string]bool{}
	for i, t := range finds {
		c.shelf = c.shelf.With(ids[i], t.Record)
		ev := Event{Type: EventArtifact, Version: t.Record.Version, Recorded: ids[i], Message: subject(t.Message())}
		if t.Event == artifact.EventMoved {
			ev.Type = EventWarning
			ev.Message = fmt.Sprintf("the tag %s:%s was moved to %s, which is refused: it is bound to %s", t.Record.Repository, t.Record.Version, t.Record.Moved[len(t.Record.Moved)-1], t.Record.Digest)
		}
		c.report(ev)
		news[t.Record.Repository] = true
	}
	c.trackedAgain(news)
	b.finds = nil
	return n, true
}

// trackedAgain has the stages looked at that track some repositories, and, for
// their policies may ask what is known of them, all stages of the services that
// have them.
func (c *Clerk) trackedAgain(repositories map[string]bool) {
	for _, t := range c.tracked {
		if repositories[artifact.Normal(t.Pin.Image.Repository)] {
			c.stages[Key{t.Environment, t.Service}] = true
		}
	}
	c.askedAgain(func(image desired.Image) bool { return repositories[artifact.Normal(image.Repository)] })
}

// askedAgain has all stages looked at of the services that have certain images.
func (c *Clerk) askedAgain(has func(desired.Image) bool) {
	if c.commit == nil {
		return
	}
	seen := map[desired.ServiceName]bool{}
	for _, d := range c.commit.Repository.Deployments() {
		svc := d.Service.Name
		p := c.commit.Repository.StagesOf(svc)
		if p == nil || seen[svc] || !slices.ContainsFunc(d.Pins, func(p desired.Pin) bool { return has(p.Image) }) {
			continue
		}
		seen[svc] = true
		for _, s := range p.Stages {
			k := Key{s.Environment, svc}
			c.dirty[k], c.stages[k] = true, true
		}
	}
}
