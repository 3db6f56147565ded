// Package outbound is how the daemon asks an address that somebody wrote down:
// in the deployment repository, in its configuration, or in the answer of
// another server.
//
// It decides which addresses may be asked. Those that stand in the repository
// only if the operator's list admits them (Allow), for who may merge a file
// must not be able to look around in the daemon's network; the zero Allow
// admits nobody. And whatever a list says: never an address at which a cloud
// hands out credentials to its machines. That is looked at when a connection is
// made, after the name was looked up, so no name server and no redirect leads
// there. Loopback is an address like others.
//
// Another program that will ask such an address (sops) is vetted before it is
// started, by the list and by what the name leads to at that time (Vet). How it
// connects then is beyond this package.
//
// Requests never go through a proxy of the process's environment. Certificates
// are verified. Redirects are bounded, and lead to another host only if the
// caller wants that and the list admits it. Each request has a limit of time,
// from the first byte out to the last one in.
//
// It keeps nothing, and a crash leaves nothing behind.
package outbound
