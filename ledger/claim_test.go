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

func TestImitates(t *testing.T) {
	message := Change{Kind: ChangePromoted, Environment: "production", Service: "web", Before: "1.4.1", From: []string{"staging@aaaa"}, Reason: "Verified.",
		Release: Release{Pins: []Pin{{Artifact: "web", Image: "r.example/web:1.4.2"}}}}.Message()
	subject, rest, _ := strings.Cut(message, "\n")
	for _, tt := range []struct {
		name, message string
		env, svc      string // "-": it does not
	}{
		{"all of it", message, "production", "web"},
		{"the subject", subject, "production", "web"},
		{"the subject, of a squash", subject + " (#5)", "production", "web"},
		{"the subject, nearly", "Promote( production ) : web 1.4.2", "production", "web"},
		{"a tracked version", "track(dev): web 1.4.1 → 1.4.2", "dev", "web"},
		{"without its pins", strings.Replace(message, "Pinion-Pin", "Pin", 1), "production", "web"},
		{"trailers under another subject", "a bump\n" + rest, "production", "web"},
		{"an event that stands there twice", "a bump\n" + rest + "Pinion-Event: promoted\n", "production", "web"},
		{"other ends of lines", strings.ReplaceAll("a bump\n"+rest, "\n", "\r\n"), "production", "web"},
		{"no ends of lines that git knows", strings.ReplaceAll("a bump\n"+rest, "\n", "\r"), "production", "web"},
		{"other letters", "a bump\n\nPINION-EVENT : Promoted", "", ""},
		{"a person's own words", "web 1.4.2 to production", "-", ""},
		{"a revert", "Revert \"" + subject + "\"\n\nThis reverts commit aaaa.", "-", ""},
		{"a merge in a forge's page", "Merge pull request #5 from shop/pinion/promote/production/web\n\n" + subject, "-", ""},
		{"words about it", "docs: how promote(production): works\n\nEach has a Pinion-Event: promoted.", "-", ""},
		{"a rollback by a command", strings.NewReplacer("promote(", "rollback(", "promoted", "rolled-back").Replace(message), "-", ""},
		{"an entry of a ledger", pinned("a", "1").Message(), "-", ""},
	} {
		c, ok := Imitates(tt.message)
		if ok != (tt.env != "-") || ok && (string(c.Environment) != tt.env || string(c.Service) != tt.svc || c.Kind != ChangePromoted && c.Kind != ChangeTracked) {
			t.Errorf("%s: %t, %+v", tt.name, ok, c)
		}
	}
}
