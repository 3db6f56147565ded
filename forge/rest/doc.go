// Package rest talks to a forge over HTTP: GitHub, GitLab, and Gitea with
// Forgejo. It turns values into requests and answers into values, and decides
// nothing.
//
// It never follows a redirect to another host, for the token would go with it,
// and shows no token in an error. It remembers nothing but that the forge asked
// to be left alone for a while, and then sends nothing until that is over.
//
// A request whose answer is lost may have done its work: that is an
// [ErrUnknown], and whoever asked has to look before asking again.
package rest
