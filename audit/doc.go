// Package audit judges a history: whether the ledgers are what they claim to
// be, and whether each promotion was allowed by what was true at its moment.
//
// A ledger is replayed: each entry must follow from those before it by
// [ledger.Record.Apply], and its tree must hold, byte for byte, the record that
// this leads to. So an entry that was changed, left out or put in by hand is
// found, wherever whoever did it has not made everything after it anew. What
// was made anew as a whole can only be told by signatures, or by who has kept
// the tip of before; see [Book.Has].
//
// What is known of artifacts is replayed the same way, by [artifact.Follows]: a
// commit adds to one version what its message says, and takes nothing away.
//
// Verifications, promotions and rollbacks are judged once more, by the same
// functions that the daemon calls, from the records and the rules of then.
//
// It never says that something is in order because it could not be read: that
// is an error. It does no I/O and reads no clock; commits, files and the rules
// of a commit are handed to it.
package audit
