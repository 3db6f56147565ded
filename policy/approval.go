package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

const approvedBy = "approved by "

// approval counts people. Who approves by two principals with one address, or
// by two addresses with one principal, is one person; who chose the version is
// none, unless the policy says so.
func (b *bench) approval(p *desired.Policy) (v Verdict, by string) {
	want := max(1, p.Approval.Count)
	groups := strings.Join(p.Approval.Groups, " or ")
	if len(p.Approval.Groups) == 0 {
		return Verdict{Outcome: Pending, Reason: "no group is named, so nobody may approve", Needs: "name one in " + p.File}, ""
	}
	v = Verdict{Outcome: Pending, Since: b.begun}
	var approved, refused []string
	for _, one := range persons(b.approvals, p.Name) {
		author := slices.ContainsFunc(one, func(a ledger.Approval) bool { return Chose(b.authors, a) })
		member := slices.IndexFunc(one, func(a ledger.Approval) bool {
			return slices.ContainsFunc(a.Groups, func(g string) bool { return slices.Contains(p.Approval.Groups, g) })
		})
		switch {
		case member < 0:
			refused = append(refused, one[0].By+"'s does not count: not in "+groups)
		case author && !p.Approval.AllowAuthor:
			refused = append(refused, one[0].By+"'s does not count: who chose the version does not approve it")
		default:
			approved = append(approved, one[member].By)
			if len(approved) == want {
				v.Outcome, v.Since = Passed, one[member].Time
			}
		}
	}
	v.Reason = fmt.Sprintf("%d of %s by %s", len(approved), counted(want, "approval"), groups)
	if len(approved) > 0 {
		v.Reason += ": " + strings.Join(approved, ", ")
	}
	if v.Outcome == Passed {
		return v, approvedBy + strings.Join(approved, ", ")
	}
	for _, r := range refused {
		v.Reason += "; " + r
	}
	v.Needs = fmt.Sprintf("somebody in %s approves with `pinion approve %s %s %s%s`", groups, b.environment, b.service, p.Name, b.flag())
	return v, ""
}

// persons parts the approvals for a policy by who gave them, in the order in
// which the people came.
func persons(all []ledger.Approval, policy desired.PolicyName) [][]ledger.Approval {
	all = slices.Clone(all)
	slices.SortFunc(all, func(x, y ledger.Approval) int {
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.By, y.By), cmp.Compare(x.Email, y.Email))
	})
	var groups [][]ledger.Approval
	for _, a := range all {
		if a.Policy != policy || a.By == "" {
			continue
		}
		merged := []ledger.Approval{}
		place := len(groups)
		for i := 0; i < len(groups); {
			if slices.ContainsFunc(groups[i], func(o ledger.Approval) bool {
				return strings.EqualFold(o.By, a.By) || a.Email != "" && strings.EqualFold(o.Email, a.Email)
			}) {
				merged = append(merged, groups[i]...)
				groups = slices.Delete(groups, i, i+1)
				place = min(place, i)
				continue
			}
			i++
		}
		merged = append(merged, a)
		groups = slices.Insert(groups, min(place, len(groups)), merged)
	}
	return groups
}
