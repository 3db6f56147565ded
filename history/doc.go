// Package history reads what a deployment repository and its ledgers say into
// values: where services stand, why, where a version is, what happened.
//
// # What it decides
//
// Nothing of what is to happen: that is package policy's, which it asks. It
// decides how what is recorded is read: a [View] is the repository at one
// moment, the tip of main and the tips of the ledgers, and each answer follows
// from those alone. Who asks for the same thing gets the same answer, by the
// same function. The commands open one on a clone and end. The daemon keeps one
// that goes along with its mirror ([Present]): what has not changed from one tip
// to the next is not read again.
//
// What happened comes from an [Index], which holds the newest part of the ledgers:
// it reads nothing before somebody asks, then backwards from the tips, in the
// background, as far as its bounds go. A page of it begins behind an item, and a
// [Position] names commits, so both hold while entries arrive and over a restart.
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
