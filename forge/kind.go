package forge

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is the software of a forge.
type Kind string

// The kinds. Forgejo is Gitea as far as we talk to it.
const (
	GitHub    Kind = "github"
	GitLab    Kind = "gitlab"
	Gitea     Kind = "gitea"
	Forgejo   Kind = "forgejo"
	Bitbucket Kind = "bitbucket"
)

// Kinds are all of them.
var Kinds = []Kind{GitHub, GitLab, Gitea, Forgejo, Bitbucket}

// Check refuses a word that is no kind.
func (k Kind) Check() error {
	if slices.Contains(Kinds, k) {
		return nil
	}
	var names []string
	for _, one := range Kinds {
		names = append(names, string(one))
	}
	return fmt.Errorf("%q is no kind of forge; write %s or %s", string(k), strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
}
