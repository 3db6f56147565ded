// Package proposal says which commit on main does what somebody asks for: a pin,
// a promotion, a rollback, a hold or its release.
//
// # What it decides
//
// Whether what is asked may be, judged on one commit of main and the ledgers
// beside it, and what exactly the commit changes and says. The commands and the
// daemon's API ask it with the same values, so both are refused the same, in the
// same words; a [Proposal] can be shown, and is written by whoever asked for it.
//
// # What it never does
//
// It writes nothing and moves nothing. It changes no byte but those of what is
// asked for, and never goes around a policy or a hold: what package policy refuses
// is refused, with each gate.
//
// # What a crash leaves behind
//
// Nothing. Whoever writes a proposal pushes it onto the very commit that it was
// judged on, or has it judged again.
package proposal
