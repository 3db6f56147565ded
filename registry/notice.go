package registry

import (
	"encoding/json"
	"slices"
	"strings"
)

// Notice returns the repositories into which something was pushed, as a
// registry's notification says it, with their registry as far as it is there: of
// CNCF Distribution, Harbor, Quay, Docker Hub, and of GitHub's packages. A pull
// is no news: each of our own looks is one. Nothing else counts, and whoever has
// sent it, what it leads to is a look at what is watched anyway.
func Notice(body []byte) []string {
	var n struct {
		Events []struct { // Distribution
			Action  string
			Target  struct{ Repository, Tag string }
			Request struct{ Host string }
		}
		Type      string
		EventData struct { // Harbor
			Resources []struct {
				URL string `json:"resource_url"`
			}
			Repository struct {
				FullName string `json:"repo_full_name"`
			}
		} `json:"event_data"`
		DockerURL   string          `json:"docker_url"` // Quay
		UpdatedTags json.RawMessage `json:"updated_tags"`
		Repository  json.RawMessage // Quay: a text; Docker Hub: an object
		Package     *githubPackage
		Registry    *githubPackage `json:"registry_package"`
	}
	if json.Unmarshal(body, &n) != nil {
		return nil
	}
	var all []string
	add := func(parts ...string) {
		if !slices.Contains(parts, "") {
			all = append(all, strings.ToLower(strings.Join(parts, "/")))
		}
	}
	for _, e := range n.Events {
		if e.Action != "push" || e.Target.Tag == "" { // of an image, a layer is told of besides
			continue
		}
		add(e.Target.Repository)
		add(e.Request.Host, e.Target.Repository)
	}
	if n.Type != "PUSH_ARTIFACT" {
		n.EventData.Resources, n.EventData.Repository.FullName = nil, ""
	}
	for _, r := range n.EventData.Resources {
		name, _, _ := strings.Cut(r.URL, "@")
		if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
			name = name[:i]
		}
		add(name)
	}
	add(n.EventData.Repository.FullName)
	var text string
	var hub struct {
		Name string `json:"repo_name"`
	}
	if json.Unmarshal(n.Repository, &text) == nil {
		if len(n.UpdatedTags) > 0 {
			add(n.DockerURL)
			add(text)
		}
	} else if json.Unmarshal(n.Repository, &hub) == nil {
		add(hub.Name)
	}
	for _, p := range []*githubPackage{n.Package, n.Registry} {
		if p != nil {
			add("ghcr.io", p.Namespace, p.Name)
			add("ghcr.io", p.Owner.Login, p.Name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// githubPackage is a package in the events package and registry_package.
type githubPackage struct {
	Name, Namespace string
	Owner           struct{ Login string }
}
