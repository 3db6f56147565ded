// Package api is the daemon's HTTP API, /api/v1: what it answers, to whom, and
// how it says so in OpenAPI.
//
// # What it decides
//
// Each thing that can be asked is an [Operation]: a value with its path, its
// parameters, the types of its body and of its answer, the problems that it may
// meet, and the scope that a caller needs. Requests are checked by it, answers
// are written by it, and the OpenAPI document is made from it, so the three can't
// part. Whatever goes wrong is a [Problem] with a code.
//
// What is read comes from package history, by the same functions as the commands
// use. What is written is handed to the clerk and is acknowledged after it was
// pushed; the caller's principal is on the ledger.
//
// # What it never does
//
// It never answers before who asks is known, unless the configuration lets
// anybody read. It takes no parameter and no field that it does not know, no body
// above a size, and nobody's time for longer than a bound. No answer holds a
// token, a secret, or the user info of an address. It keeps no state but what can
// be read again: a cursor and the id of an event name commits of the ledgers, so
// they hold over a restart. An answer that is kept (see answers) was found without
// knowing who asks, and is sent after it was judged who does.
//
// # What a crash leaves behind
//
// A caller without an answer. Asking again is safe: nothing is recorded twice.
package api
