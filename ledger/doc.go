// Package ledger is the language of the ledger branches: what an entry says,
// how it is written as a commit, what the present is after it, and which moves
// there are.
//
// A ledger is the branch ledger/<environment>. Each of its commits is one
// Entry: one thing that happened to a deployment. The commit's message has all
// that the entry says, its trailers for machines; the commit's tree is the
// present, one Record for each service. Record.Apply makes the next present
// from the present and an entry alone, so whoever has the messages can work out
// the trees, and `pinion audit` does: an entry whose tree is not what the
// entries before it lead to was forged.
//
// It decides which move is allowed: a state never goes backwards and skips
// none, and what comes late is recorded and moves nothing. It never decides
// that a move is to be made; that is package policy's.
//
// What others say, in a report or in a reason, is text and never more: it can
// neither become a trailer nor hide one, it is cut to a size, and passwords in
// addresses, the values of Secrets and what can't be shown are left out. The
// cost of a record does not grow with the number of entries.
//
// It is pure: it makes values, and who writes them makes each commit whole, so
// a crash leaves an entry there with its tree, or not at all. Times have the
// precision of git, a second.
package ledger
