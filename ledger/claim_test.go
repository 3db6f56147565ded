package ledger

import (
	"strings"
	"testing"
)

func TestClaim(t *testing.T) {
	next := Release{Pins: []Pin{{Artifact: "web", Image: "r.example/web:1.4.2"}}, Source: "4f1c"}
	c := Change{Kind: ChangePromoted, Environment: "production", Service: "web", Release: Release{Pins: next.Pins}, Before: "1.4.1",
		From: []string{"staging@aaaa"}, Reason: "Verified."}
	message := c.Message()
	subject, _, _ := strings.Cut(message, "\n")
	waits := Record{Environment: "production", Service: "web", Candidate: &Candidate{Release: next}}
	for _, tt := range []struct {
		name, message, merged string
		record                Record
		want                  Cause
	}{
		{"its own commit", message, "", waits, CausePromotion},
		{"a merge", "Merge pull request #5 from shop/pinion/promote/production/web\n\n" + subject, message, waits, CausePromotion},
		{"a merge by a message of ours", message, message, waits, CausePromotion},
		{"a squash with all", strings.Replace(message, subject, subject+" (#5)", 1), "", waits, CausePromotion},
		{"a squash with the title", subject + " (#5)", "", waits, CausePromotion},
		{"a squash with the title, of GitLab", subject + " (!5)\n\nSee merge request shop/deploy!5", "", waits, CausePromotion},
		{"the title, and another version waits", subject, "", Record{Environment: "production", Service: "web", Candidate: &Candidate{Release: Release{Pins: []Pin{{"web", "r.example/web:2"}}}}}, CausePin},
		{"the title, and nothing waits", subject, "", Record{Environment: "production", Service: "web"}, CausePin},
		{"the title of another service", strings.Replace(subject, "web", "api", 1), "", waits, CausePin},
		{"a merge of something else", "Merge branch 'x'", "bump web", waits, CausePin},
		{"a person's own words", "web 1.4.2", "", waits, CausePin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			change, claimed := Claim(tt.message, tt.merged)
			if got := CauseOf(tt.record, next, change, claimed); got != tt.want {
				t.Errorf("%s, want %s (%+v, %t)", got, tt.want, change, claimed)
			}
		})
	}
}
