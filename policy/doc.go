// Package policy judges: which gates hold for a deployment and which do not,
// whether it is verified or has failed, which release may enter a stage next,
// and where to go back to after a failure. Every judgement says why, in words
// that a person can act on.
//
// Two sets of rules are at work. Whether a deployment is verified is judged by
// the pipeline and the policies of the commit that it comes from; whether a
// stage may be entered now, by those of the commit that the promotion would
// extend, and by its holds.
//
// It never does I/O, reads no clock, and remembers nothing: what was found out
// is in the ledger's records, and what can only be seen now (health, whether a
// commit is older than another) is an argument. The zero value of every
// judgement allows nothing. `pinion why`, `pinion promote`, `pinion audit` and
// the daemon call the same functions.
package policy
