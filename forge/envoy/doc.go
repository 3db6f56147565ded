// Package envoy carries to a forge what the ledgers say.
//
// A [Teller] writes commit statuses: for each commit of main that brought a
// deployment, how far it has come in each environment. It is level-triggered:
// it compares what the records say with what the forge says, and writes the
// difference, so that a request that is lost, a forge that is down, and a
// restart cost time and nothing else. It keeps nothing on disk, and nothing
// that it can't do holds anything else up or makes it fail.
package envoy
