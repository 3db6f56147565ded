// Package history reads what a deployment repository and its ledgers say into
// values: where services stand, why, where a version is, what happened.
//
// # What it decides
//
// Nothing of what is to happen: that is package policy's, which it asks. It
// decides how what is recorded is read: a [View] is the repository at one
// moment, the tip of main and the tips of the ledgers, and each answer follows
// from those alone. Who asks for the
// same thing gets the same answer, by the same function.
//
// # What it never does
//
// It writes nothing, asks no cluster, and reads no clock: the time of a View is
// given. "Could not read" is an error, never an empty answer.
//
// # What a crash leaves behind
//
// Nothing: all that it holds is read from git, and is read again.
package history
