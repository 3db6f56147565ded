package rest

import (
	"testing"

	"github.com/pinion-cd/pinion/forge"
)

// What is not merged yet for want of an approval has no conflict.
func TestGitLabMergeStatus(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status          string
		conflicts       bool
		mergeable, fits forge.Mergeable
	}{
		{"mergeable", false, forge.Yes, forge.Yes},
		{"checking", false, forge.Undecided, forge.Undecided},
		{"", false, forge.Undecided, forge.Undecided},
		{"not_approved", false, forge.No, forge.Yes},
		{"ci_still_running", false, forge.No, forge.Yes},
		{"discussions_not_resolved", false, forge.No, forge.Yes},
		{"not_approved", true, forge.No, forge.No},
		{"conflict", true, forge.No, forge.No},
		{"conflict", false, forge.No, forge.No},
		{"need_rebase", false, forge.No, forge.No},
	} {
		if p := (gitlabMerge{Status: tt.status, Conflicts: tt.conflicts}).pull(); p.Mergeable != tt.mergeable || p.Fits != tt.fits {
			t.Errorf("%q, conflicts %t: mergeable %q, fits %q", tt.status, tt.conflicts, p.Mergeable, p.Fits)
		}
	}
}
