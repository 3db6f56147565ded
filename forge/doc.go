// Package forge knows the places that host deployment repositories: GitHub,
// GitLab, Gitea and Forgejo, and Bitbucket.
//
// It decides what a status says of a commit, what the next step of a promotion's
// pull request is and what its body says, what is said of a person's pull
// request, and whether a delivery of a webhook is genuine. It believes nothing
// that a delivery says: that it came is all that counts, and means "look again
// soon". So one that is replayed, comes late, twice, or out of order, does no
// harm, and one that never comes costs the time until the next poll.
//
// It does no I/O and reads no clock.
package forge
