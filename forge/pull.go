package forge

import "time"

// PullState is how it is with a pull request.
type PullState string

// The states.
const (
	Open   PullState = "open"
	Closed PullState = "closed"
	Merged PullState = "merged"
)

// Pull is a pull request, or, on GitLab, a merge request.
type Pull struct {
	Number int
	Title  string
	Body   string
	State  PullState
	Author string // who opened it
	// Head is the commit that it would merge, Branch where that is, and Fork
	// says that it is in another repository.
	Head   string
	Branch string
	Fork   bool
	Base   string // the branch that it would merge into
	Draft  bool
	// Mergeable is what the forge makes of it; it needs some time to find out.
	Mergeable Mergeable
	// Fits is whether head and base go together without a conflict, whatever
	// else the forge asks for before it merges.
	Fits Mergeable
	URL  string
}

// Mergeable is whether a pull request can be merged.
type Mergeable string

// The answers.
const (
	Undecided Mergeable = "" // not computed yet, or the forge does not say
	Yes       Mergeable = "yes"
	No        Mergeable = "no"
)

// Review is what somebody thinks of a pull request.
type Review struct {
	User     string
	Approved bool // else changes are asked for, or it was taken back
	Commit   string
	Time     time.Time
}

// Comment is one of a pull request.
type Comment struct {
	ID   int64
	User string
	Body string
}
