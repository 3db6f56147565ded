// Package notify decides what others are told of deployments: which news an
// entry of a ledger, or a commit that changes the holds, is; who is to be told;
// how it is written (compact JSON, CDEvents, text for a chat) and signed; and
// what an answer of a receiver means.
//
// News are a function of the commit that they come from. So is their id, which
// is the same however often they are sent, and by whichever replica; a receiver
// that was told twice knows by it. That a hold comes to its end is a function of
// the main branch and the time: a [Mark] is a place there. What is kept of a sink is a Position on each
// branch: how far it was told. All between that and the tip waits, and is read
// again from git when its time comes; nothing else is a queue.
//
// The order holds for each deployment in an environment, and for all holds: what
// came later is not told before what came earlier was taken, or was given up.
// Others go on meanwhile (see Stream). A receiver that takes nothing at all is
// asked with one piece of news at a time, less and less often.
//
// The package is pure: it sends nothing, keeps nothing, and is told the time.
// It never has a secret in a body: what it tells is in the repository.
package notify
