// Package health judges how an object does, from the object alone: is it as it
// was asked to be, on its way, or has it failed?
//
// A service's own rules (`health:` in its file, CEL over the whole object) go
// before anything that is known here. Then come the kinds of a table, for which
// the general rules of kstatus say nothing or the wrong thing: each has a small
// function. All else is judged by kstatus
// (https://github.com/fluxcd/cli-utils/tree/main/pkg/kstatus), and, whatever
// the kind, by the conditions that Crossplane writes.
//
// What is not known is never healthy. A controller that has not spoken yet of
// an object of a known kind, a condition that is older than the newest
// generation, a rule that ends with an error: all that is on its way, and says
// why. Failed is only what will not come right by waiting, for a rollout ends
// with it; what a controller tries again is on its way, in its words, until the
// rollout's time is up.
//
// There is no clock, no I/O and no state: the same object is judged the same,
// and a crash leaves nothing behind. The one thing that an object does not tell
// itself, how the storage class of a claim binds, is brought as a [Fact].
package health
