// Package gitstate is all of Pinion's git: a mirror of the deployment
// repository that is kept up to date, immutable snapshots of its commits, and
// commits that are written by compare and swap.
//
// # What it decides
//
// A [Mirror] is a folder with one or more generations (git-1, git-2, …), each a
// bare repository, and a file that names the present one. A generation only
// grows. When it is damaged, or crowded with packs (go-git can't repack), the
// next one is cloned beside it and swapped in by renaming one small file;
// readers do not notice. It holds one branch, the ledgers (ledger/…),
// ArtifactsBranch and SinksBranch, with their whole history, and no tags. A
// fetch that brings little adds loose
// objects, one that brings much adds a pack.
//
// Where a branch is, is what the mirror's own references say; they move only
// once the objects behind them are complete, and only forward. A branch that
// was rewritten is an error until somebody allows it; of SinksBranch it is none.
//
// A commit is built as objects in memory and sent by one receive-pack request
// with the id that the branch was judged at. So either it lands on exactly
// that commit, or nothing happens. If the reply is lost, the remote is asked
// whether the commit is there.
//
// A push may carry a chain of commits for each of several branches; a branch
// moves past all of its chain, or not at all. The pack is of our own making,
// with each version of a file or folder as a delta against the one before it,
// and complete in itself: what was sent is what is kept, as loose objects if it
// is little and as that pack if it is much; packs that were kept so are merged
// when there are several. Only what a push brought that then
// lost the race for its branch is left out of the next one (see sent).
//
// A push is done when the remote has reported on it. What the server does behind that,
// as its post-receive hook and its upkeep, is listened to until it ends, by up to four
// listeners at once; a push that would need a fifth waits for its own server to end.
//
// go-git is not safe even for concurrent reads. Reading goes through one
// store with one lock, which is never held while something is fetched, written
// or indexed; snapshots share what was parsed, by object id. Talking to the
// remote is one operation at a time.
//
// A repository on the same machine is served by the git program, which takes
// git's locks and runs the hooks. Without that program its files are copied,
// which is as good for reading; a push is refused then, for nothing would run
// the hooks that may guard the branch.
//
// # What it never does
//
// It never forces, never rebases, never overwrites a commit of a branch that it
// mirrors, and never moves a branch of the remote by any other way than the push
// above. A branch beside those, which a caller says is its own, may be taken
// elsewhere or removed, from where it was seen. It takes no key
// from an agent and nothing from a home folder or an ssh configuration,
// accepts no unknown host key, and shows no user info of a URL and no secret
// in an error or a log. It runs no hook and no filter, checks nothing out, and
// follows no link. An object that can't be read is never "not there": no error
// of it is an fs.ErrNotExist.
//
// # What a crash leaves behind
//
// Files with names of their own (tmp_…), a generation that is not the present
// one, objects that no branch names or that two packs have: the next [Open]
// removes the former, and the latter do no harm. Nothing is flushed to the disk
// with special care, since all of it is a copy: whatever a loss of power damages
// is found by Open or by the first read, and cloned anew. What [Mirror.Commit]
// has acknowledged is on the remote.
package gitstate
