package proposal

import (
	"testing"

	"github.com/pinion-cd/pinion/gitstate"
)

// After a push without an answer, a commit that asked for the same before is not
// taken for the one that was pushed.
func TestCommitThatAChangeMade(t *testing.T) {
	t.Parallel()
	us := gitstate.Signature{Name: "Pinion", Email: "pinion@shop.example"}
	change := &gitstate.Change{Expected: "c3", Message: "hold(production): audit", Author: us}
	for what, x := range map[string]struct {
		commit gitstate.CommitInfo
		want   bool
	}{
		"its own":                   {gitstate.CommitInfo{ID: "c4", Parents: []string{"c3"}, Message: change.Message, Author: us}, true},
		"the same, asked before":    {gitstate.CommitInfo{ID: "c1", Parents: []string{"c0"}, Message: change.Message, Author: us}, false},
		"another, on the same":      {gitstate.CommitInfo{ID: "c4", Parents: []string{"c3"}, Message: "hold(dev): audit", Author: us}, false},
		"the same of somebody else": {gitstate.CommitInfo{ID: "c4", Parents: []string{"c3"}, Message: change.Message, Author: gitstate.Signature{Email: "dana@shop.example"}}, false},
		"the first commit of all":   {gitstate.CommitInfo{ID: "c0", Message: change.Message, Author: us}, false},
	} {
		if got := made(change, x.commit); got != x.want {
			t.Errorf("%s: %t, want %t", what, got, x.want)
		}
	}
}
