package gitstate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing"
)

// The errors that a caller may have to tell apart; ask with errors.Is.
var (
	// ErrMoved says that a compare-and-swap was refused, because the branch is
	// not (any more) where the change was judged. Nothing was written: fetch,
	// judge again from nothing, and plan again. See [MovedError].
	ErrMoved = errors.New("the branch has moved")
	// ErrUnknown says that a push was sent, that its reply was lost, and that
	// it can't be told (yet) whether it was applied. Fetch and judge again, as
	// for ErrMoved: whichever of the two pushes arrives first wins, the other
	// one is refused.
	ErrUnknown = errors.New("it is unknown whether the push was applied")
	// ErrRefused says that the remote does not want the push: a hook, a
	// protected branch. Trying again does not help, somebody has to act.
	ErrRefused = errors.New("the remote refuses the push")
	// ErrRewritten says that a branch of the remote is not a descendant of
	// what it was. The old tip was kept. See [RewrittenError].
	ErrRewritten = errors.New("the branch was rewritten")
	// ErrNoBranch says that the remote could be read and has no such branch.
	ErrNoBranch = errors.New("the remote has no such branch")
	// ErrNoCommit says that there is no commit of that name or id.
	ErrNoCommit = errors.New("no such commit")
	// ErrShallow says that the history is cut off where one would have to
	// look.
	ErrShallow = errors.New("the clone is shallow")
	// ErrAuthentication says that the remote does not accept our credentials,
	// or that we do not accept its host key or certificate.
	ErrAuthentication = errors.New("authentication failed")
	// ErrUnchanged says that a change's files are already as it wants them.
	ErrUnchanged = errors.New("nothing to commit")
	// ErrClosed says that the mirror was closed.
	ErrClosed = errors.New("the mirror is closed")
	// ErrDamaged says that an object that has to be there can't be read. The
	// next Fetch mends it by cloning anew.
	ErrDamaged = errors.New("the mirror is damaged")

	errIdle = errors.New("no answer in time")
)

// MovedError is the ErrMoved of one branch.
type MovedError struct {
	Branch   string
	Expected string // the id that the push was judged on; empty: that there is no such branch
	Actual   string // the id that was seen; empty: there is no such branch, or it could not be asked
}

func (e *MovedError) Error() string {
	if e.Actual == e.Expected {
		return fmt.Sprintf("push %s: another push is at work on the branch, which is at %s", e.Branch, named(e.Expected))
	}
	return fmt.Sprintf("push %s: the branch has moved from %s to %s", e.Branch, named(e.Expected), named(e.Actual))
}

// Is makes errors.Is(err, ErrMoved) true.
func (e *MovedError) Is(target error) bool { return target == ErrMoved }

// RewrittenError is the ErrRewritten of one branch.
type RewrittenError struct {
	Branch string
	Old    string // the id that was kept
	New    string // the id that the remote has; empty: it has no such branch any more
}

func (e *RewrittenError) Error() string {
	if e.New == "" {
		return fmt.Sprintf("fetch %s: the remote has no such branch any more, it was at %s; restore it there, or allow rewriting once", e.Branch, e.Old)
	}
	return fmt.Sprintf("fetch %s: the branch was rewritten from %s to %s, which does not descend from it; restore it, or allow rewriting once", e.Branch, e.Old, e.New)
}

// Is makes errors.Is(err, ErrRewritten) true.
func (e *RewrittenError) Is(target error) bool { return target == ErrRewritten }

func named(id string) string {
	if id == "" {
		return "nothing"
	}
	return id
}

// quiet is an error whose text was cleaned of secrets. It answers errors.Is
// for what it hides, and never hands it out.
type quiet struct {
	text string
	err  error
}

func (e *quiet) Error() string        { return e.text }
func (e *quiet) Is(target error) bool { return errors.Is(e.err, target) }

// missing is what reading an object that is not there gives. It is never an
// fs.ErrNotExist: an object that is named has to be there.
type missing struct {
	id  plumbing.Hash
	err error
}

func (e *missing) Error() string {
	if e.err == nil || errors.Is(e.err, plumbing.ErrObjectNotFound) || errors.Is(e.err, fs.ErrNotExist) {
		return fmt.Sprintf("object %s is missing", e.id)
	}
	return fmt.Sprintf("object %s can't be read: %v", e.id, e.err)
}

// malformed is what reading a folder gives that was written wrong.
type malformed struct {
	id  plumbing.Hash
	err error
}

func (e *malformed) Error() string {
	return fmt.Sprintf("tree %s: %v; `git fsck` names it too", e.id, e.err)
}

// spelled adds to an error of writing what to do about it.
func spelled(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EFBIG), isQuota(err):
		return fmt.Errorf("%w; make room on the volume of %s (it is a cache: it can be deleted as a whole while no daemon runs)", err, dir)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; %s must be writable by this process", err, dir)
	}
	return err
}

func isQuota(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && strings.Contains(no.Error(), "quota")
}

// cause prefers the reason for which a context was cancelled over the error
// that this led to.
func cause(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}
