// Package worker renders in processes that may die.
//
// The manifests of a service are a program that somebody wrote. It may run for
// ever, use up the memory, or nest so deep that the stack overflows, which
// ends a Go process whatever it recovers from. So a Pool starts the same
// binary again, as many times as there are renderings at once, and each worker
// runs render.Build for one request after another.
//
// A worker decides nothing. It has no files, no environment and no network: it
// asks for every file over its standard input and output, and the pool answers
// from the tree and writes down what was read. On Linux a seccomp filter
// refuses it everything else: sockets, opening files, other programs, signals
// to others. Elsewhere only the code of render does.
//
// Encrypted files are decrypted in the worker, with keys that it gets over the
// same pipe. What no key opens, the pool has the sops program decrypt, and
// passes the plaintext on without keeping it.
//
// The pool decides when a worker goes: when a rendering takes too long, when
// the context is done, when it asks for more memory or writes more than it
// may, after any error, and after a number of renderings. One that dies is the
// error of the one rendering that it was doing, with the service's file; the
// next rendering gets another worker.
//
// A crash of either side leaves nothing behind: a worker whose standard input
// ends is gone.
package worker
