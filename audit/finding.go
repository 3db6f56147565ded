package audit

import (
	"cmp"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Severity is how bad a finding is.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // something is not what it claims to be
	Warning Severity = "warning" // odd, and no proof of anything
	Note    Severity = "note"    // nothing is wrong; somebody may want to know
)

func (s Severity) rank() int {
	switch s {
	case Error:
		return 0
	case Warning:
		return 1
	}
	return 2
}

// Rule is what a finding is about.
type Rule string

// The rules.
const (
	RuleLine       Rule = "line"       // a ledger is a line of commits
	RuleEntry      Rule = "entry"      // each commit of a ledger is an entry of its environment
	RuleMove       Rule = "move"       // each entry is a move that those before it allow
	RuleTree       Rule = "tree"       // the tree is what the entries lead to
	RuleFiles      Rule = "files"      // an entry changes its service's files only
	RuleTime       Rule = "time"       // time goes forward
	RuleSubject    Rule = "subject"    // the subject says what the trailers say
	RuleCommitter  Rule = "committer"  // the daemon alone writes ledgers
	RuleSignature  Rule = "signature"  // what the daemon writes is signed by its key
	RuleArtifact   Rule = "artifact"   // a commit adds to what is known of artifacts what it says, and takes nothing away
	RuleRewritten  Rule = "rewritten"  // a branch has only grown since it was last known
	RuleDeployment Rule = "deployment" // what is pinned was asked for, by whom the entry says
	RuleVerified   Rule = "verified"   // what is verified has passed its stage's policies
	RuleFailed     Rule = "failed"     // what has failed has failed a policy, as far as the daemon does not say so of a rollout
	RulePromotion  Rule = "promotion"  // a promotion was allowed at its moment
	RuleTracked    Rule = "tracked"    // a version that was brought to a first stage was known and allowed at its moment
	RuleRollback   Rule = "rollback"   // a rollback leads to what was verified there
	RuleRequest    Rule = "request"    // what somebody has asked the daemon for does what it says, and no more
	RuleDaemon     Rule = "daemon"     // the daemon writes promotions, tracked versions, rollbacks and what somebody asks for to main, and nothing else
	RulePin        Rule = "pin"        // a person has changed a version: a note
)

// Finding is one thing that is wrong, or a note.
type Finding struct {
	Severity    Severity                `json:"severity"`
	Rule        Rule                    `json:"rule"`
	Branch      string                  `json:"branch"`
	Commit      string                  `json:"commit"`
	Time        time.Time               `json:"time,omitzero"` // the commit's
	Environment desired.EnvironmentName `json:"environment,omitempty"`
	Service     desired.ServiceName     `json:"service,omitempty"`
	Message     string                  `json:"message"`           // what is wrong
	Meaning     string                  `json:"meaning,omitempty"` // what it may mean
	// More is of how many later commits of the branch the same is true.
	More int `json:"more,omitempty"`
}

func (f Finding) compare(o Finding) int {
	return cmp.Or(cmp.Compare(f.Severity.rank(), o.Severity.rank()), f.Time.Compare(o.Time), cmp.Compare(f.Branch, o.Branch),
		cmp.Compare(f.Commit, o.Commit), cmp.Compare(f.Rule, o.Rule), cmp.Compare(f.Environment, o.Environment), cmp.Compare(f.Service, o.Service), cmp.Compare(f.Message, o.Message))
}

// Sort puts the worst first, and of those the oldest. What is the same of many
// commits of a branch becomes one finding, of the first of them.
func Sort(all []Finding) []Finding {
	slices.SortFunc(all, Finding.compare)
	type same struct {
		severity Severity
		rule     Rule
		branch   string
		env      desired.EnvironmentName
		service  desired.ServiceName
		message  string
	}
	first := map[same]int{}
	var kept []Finding
	for _, f := range all {
		key := same{f.Severity, f.Rule, f.Branch, f.Environment, f.Service, f.Message}
		if i, ok := first[key]; ok && f.Severity != Note {
			kept[i].More++
			continue
		}
		first[key] = len(kept)
		kept = append(kept, f)
	}
	return kept
}

// Commit is what a commit says of itself.
type Commit struct {
	ID                string
	Parents           []string
	Author, Committer ledger.Person
	Time              time.Time // the committer's
	Message           string
	// Merged is the message of the commit that a merge brings, and MergedBy who
	// has made the commits there that matter.
	Merged   string
	MergedBy []ledger.Person
	// ByPullRequest: the stage that its message names was entered by pull requests
	// at its first parent. It is asked of a claim that is [ledger.Change.Open].
	ByPullRequest bool
}

// Claim returns what the commit claims to do, as a daemon takes it.
func (c Commit) Claim() (ledger.Change, bool) {
	change, claimed := ledger.Claim(c.Message, c.Merged)
	if change.Open() && !c.ByPullRequest {
		return ledger.Change{}, false
	}
	return change, claimed
}

func short(id string) string { return id[:min(12, len(id))] }
