// Package desired reads the files of one commit of a deployment repository
// into validated types, and edits a pin in place.
//
// What it decides: whether a file is sound, what a name refers to, which
// services an environment asks for, and whether it is certain that it asks for
// one no longer. A file is read strictly: what is unknown, doubled, misspelt,
// of the wrong type or dangling is a [Problem] with its place and a way to mend
// it. A Problem takes down as little as can be: a syntax error its file, a bad
// pin that one artifact, a dangling dependency that one service, a stage with
// an unknown environment that one stage. All the rest is returned as if
// nothing had happened, and whoever acts asks [Repository.Broken] and
// [Deployment.Problems] before it takes an absence for an answer.
//
// The YAML that is accepted is the part that says the same to every reader
// and that can be edited by a splice: one document of UTF-8, at most 1 MiB and
// 64 levels. Anchors, aliases, merge keys and tags are refused altogether: with
// them a line of a file would mean something in another place, so that the
// difference of a bump no longer shows what it changes, and a short file could
// expand without bound. A byte order mark and CRLF are accepted and kept.
//
// What it never does: touch anything but the given [Tree], read the clock,
// write a log, or change what it has returned. Everything reachable from a
// Repository is shared with the next one and must not be modified.
//
// There is no state, so a crash leaves nothing behind. [Read] takes the
// previous Repository only to save work: the result is the same without it.
//
// The same Go types, with their struct tags, drive the decoder and make the
// JSON Schemas for editors; see [Schema].
package desired
