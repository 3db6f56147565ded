// Package check makes the checks that need the world outside: it runs a Job in
// the environment, asks an address, or asks Prometheus, and says what came of
// it. Which check is to be made, and what follows from its result, is decided
// by package policy; what the API server says to a Job, by package cluster.
//
// A check ends with a Result: success or failure, in words. What is no answer
// is no result: while the cluster, the address or Prometheus can't be reached,
// it is tried again, with growing pauses, until the policy's time is up, and
// only that is a failure. What the author of a file has to mend (a manifest that is no
// Job, an expression that does not compile, a query that is none) is a failure
// at once, for the commit that it comes from will never say anything else.
//
// # Jobs
//
// A Job is never run twice for one deployment. Its name follows from what it
// checks (environment, service, policy, deployment, run), it is looked for
// before it is created, and one that is there already, with our labels, is
// taken over and waited for. So a crash at any moment leaves behind at most
// the one Job, which the next run finds. For the same reason it has no
// ttlSecondsAfterFinished until its result is recorded (Recorded); a person
// who deletes it before that has it run again only if nobody saw the deletion.
// It does have an activeDeadlineSeconds that ends it a little after the
// policy's time, also when nobody is there any more to wait for it.
//
// Its labels are not those of the service's objects, so it is never taken for
// one of them. What its containers write becomes part of the result, and with
// it of the ledger: a Job must not print secrets.
//
// # Requests
//
// Addresses are asked as package outbound does: only those that the operator's
// list admits, each on a connection of its own. Redirects are followed on the
// same host only.
package check
