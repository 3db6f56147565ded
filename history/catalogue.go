package history

import (
	"maps"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// catalogue lists the deployments that an Index holds, the newest first: all of
// them, and those of one service, of one environment and of one version. The
// order of two of them never changes, whatever comes in.
type catalogue struct {
	all          []*slot
	services     map[desired.ServiceName][]*slot
	environments map[desired.EnvironmentName][]*slot
	versions     map[string][]*slot // by the names of versionKeys
}

func newCatalogue() catalogue {
	return catalogue{services: map[desired.ServiceName][]*slot{}, environments: map[desired.EnvironmentName][]*slot{}, versions: map[string][]*slot{}}
}

// before tells which of two deployments is listed first.
func (s *slot) before(o *slot) int {
	if c := o.now.Pinned.Compare(s.now.Pinned); c != 0 {
		return c
	}
	if c := strings.Compare(string(s.now.Environment), string(o.now.Environment)); c != 0 {
		return c
	}
	return o.place - s.place
}

// add takes in a deployment. What it is filed by never changes.
func (c *catalogue) add(s *slot, name func(string) string) {
	d := s.now
	c.all = file(c.all, s)
	c.services[d.Service] = file(c.services[d.Service], s)
	c.environments[d.Environment] = file(c.environments[d.Environment], s)
	for _, k := range d.versionKeys() {
		c.versions[name(k)] = file(c.versions[k], s)
	}
}

// file puts one where it belongs: as a rule at one of the ends.
func file(all []*slot, s *slot) []*slot {
	if n := len(all); n == 0 || all[n-1].before(s) < 0 {
		return append(all, s)
	}
	i, _ := slices.BinarySearchFunc(all, s, (*slot).before)
	return slices.Insert(all, i, s)
}

// remove takes out those of an environment.
func (c *catalogue) remove(env desired.EnvironmentName) {
	theirs := func(s *slot) bool { return s.now.Environment == env }
	c.all = slices.DeleteFunc(c.all, theirs)
	delete(c.environments, env)
	for k, all := range c.services {
		c.services[k] = slices.DeleteFunc(all, theirs)
	}
	for k, all := range c.versions {
		c.versions[k] = slices.DeleteFunc(all, theirs)
	}
	maps.DeleteFunc(c.services, func(_ desired.ServiceName, all []*slot) bool { return len(all) == 0 })
	maps.DeleteFunc(c.versions, func(_ string, all []*slot) bool { return len(all) == 0 })
}

// among returns a list that has all deployments which a query wants, and as few
// others as are easily left out.
func (c *catalogue) among(q DeploymentQuery) []*slot {
	all := c.all
	if q.Service != "" {
		all = c.services[q.Service]
	}
	if here := c.environments[q.Environment]; q.Environment != "" && len(here) < len(all) {
		all = here
	}
	keys, ok := keysOf(q.Version)
	if !ok {
		return all
	}
	lists, count := [][]*slot{}, 0
	for _, k := range keys {
		if l := c.versions[k]; len(l) > 0 {
			lists, count = append(lists, l), count+len(l)
		}
	}
	switch {
	case count >= len(all):
		return all
	case len(lists) == 0:
		return nil
	case len(lists) == 1:
		return lists[0]
	}
	all = slices.Concat(lists...)
	slices.SortFunc(all, (*slot).before)
	return slices.Compact(all)
}

// How many characters of a commit's id, and of a digest, a deployment is filed by.
const (
	commitKey = 7
	digestKey = len("sha256:") + 6
)

// versionKeys are the names by which a deployment is filed for who says a version.
func (d *Deployment) versionKeys() []string {
	keys := []string{d.Version}
	if len(d.Commit) >= commitKey {
		keys = append(keys, d.Commit[:commitKey])
	}
	for _, i := range d.images {
		switch {
		case i.Version != "":
			keys = append(keys, i.Version)
		case i.Digest == "":
			keys = append(keys, i.Reference)
		}
		if len(i.Digest) >= digestKey {
			keys = append(keys, i.Digest[:digestKey])
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// keysOf returns the names under which everything is filed that a person who says
// version can mean: more than [Deployment.hasVersion] wants, and never less. ok is
// false if there are none to go by.
func keysOf(version string) (keys []string, ok bool) {
	if version == "" {
		return nil, false
	}
	keys = []string{version}
	if len(version) >= commitKey {
		keys = append(keys, strings.ToLower(version[:commitKey]))
	}
	if strings.HasPrefix(version, "sha256:") {
		if len(version) < digestKey {
			return nil, false
		}
		keys = append(keys, version[:digestKey])
	}
	if tag, digest, found := strings.Cut(version, "@"); found {
		keys = append(keys, tag)
		if len(digest) >= digestKey {
			keys = append(keys, digest[:digestKey])
		}
	}
	if i, err := desired.ParseImage(version); err == nil && i.Version != "" {
		keys = append(keys, i.Version)
	}
	slices.Sort(keys)
	return slices.Compact(keys), true
}
