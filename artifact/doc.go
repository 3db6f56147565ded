// Package artifact is what Pinion knows of the things that are deployed: which
// versions there are, which of them is newer, which a rule allows, and that
// each is what it was when it was first seen.
//
// A [Rule] is what a stage tracks. It takes a tag apart, says why it can't be
// chosen, and orders what can: by semantic versioning, or by the parts of a
// pattern such as {date}-{branch}-{version}, from left to right, so that 1.2.10
// comes after 1.2.9. The order is total. A [Record] is one version of one
// repository with the digest that it is bound to and what its build said of it;
// [Shelf.Take] decides what a sighting adds to what is known. A version is
// bound to its digest for ever: if its tag leads elsewhere, that is recorded,
// and the version is not chosen any more. [Shelf.Choose] returns the newest
// version that a rule allows, with the reason of each refusal.
//
// What is known is a branch of the deployment repository, [Branch]: one commit
// for each thing that came to be known, a file for each version. It is
// append-only: nothing that a file says of a digest is taken away again.
// [Follows] tells whether a record can have come from the one before it, and
// [Shelf.Forgets] what another tip of the branch has lost.
//
// It is pure. What was found in registries, and what was published, is handed
// to it; who writes the branch does so by compare and swap, so a crash leaves a
// record there, or not, and the next look finds it again. What outsiders say is
// text of one line, cut to a size, and an address holds no password.
package artifact
