// Package registry reads container registries: which tags a repository has, to
// which digest one leads, and what the manifest, its configuration and what
// refers to it say.
//
// It decides nothing of versions. What it gives is what the registry says, with
// two exceptions: content that is asked for by its digest is the content of that
// digest or an error, and what is larger, longer or slower than its bounds is an
// error, never a part. A registry is not trusted: its pages lead nowhere else,
// its redirects are few and go only where the operator's list admits them, plain
// HTTP is spoken only to this machine and to hosts that the operator names, and
// what it says in an error is cut to a line. Credentials go to the registry that
// they are for, and never into an error.
//
// Each host is asked at one bounded rate, whoever asks. One that answers that it
// is asked too often is left alone for as long as it wants (a [BusyError] says
// until when); nothing is tried again here, for who asks knows when. What was
// asked before is asked for with its entity tag.
//
// Credentials are those of one file in the form of Docker's; a program that it
// names is started only if the operator lists it. The file is read again when
// the registry does not take what it said.
//
// All that is kept is in memory, within bounds; a crash leaves nothing behind.
package registry
