// Package envoy carries to a forge what the ledgers say and what policy allows.
//
// A [Teller] writes commit statuses: for each commit of main that brought a
// deployment, how far it has come in each environment. A [Proposer] keeps the
// pull requests of the promotions into stages that are entered by them, merges
// them where it is to, and hands on the approvals that are given there.
//
// A [Reviewer] says of each open pull request what it would do: by a status on
// its head, and by one comment. What is in it is not trusted, so it is the
// caller's to look at it without keys.
//
// All are level-triggered: they compare what is to be with what the forge and
// the remote have, and do the difference, so that a request that is lost, a
// forge that is down, and a restart cost time and nothing else. They keep
// nothing on disk, and nothing that they can't do holds anything else up or
// makes it fail. What is to be is decided elsewhere: what a status says and what
// the next step of a proposal is in package forge, whether a version may enter
// in package policy.
//
// A branch that somebody else has written to is never written, removed or merged,
// and no branch but those of proposals ever is written. What a head does tells
// whose it is, and our signature if there is a key: message and committer can be
// copied. Main moves only by the forge's own
// merge, at the head that was looked at.
package envoy
