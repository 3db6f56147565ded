package artifact

import "strings"

// hub is the registry that is meant where a reference names none, under its
// usual name.
const hub = "docker.io"

// Normal writes a repository's name in the one way in which it is compared and
// recorded: with its registry, that in lower case and without the port that
// https has anyway. So nginx, index.docker.io/nginx and docker.io/library/nginx
// are one. What is no repository's name comes back as something that is none.
func Normal(repository string) string {
	host, rest, ok := strings.Cut(repository, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = hub, repository
	}
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		host = hub
	}
	if host == hub && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return host + "/" + rest
}
