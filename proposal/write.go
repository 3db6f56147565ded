package proposal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// Writer writes proposals as the daemon does: by compare and swap, onto the very
// commit that they were judged on.
type Writer struct {
	Mirror   *gitstate.Mirror
	Present  *history.Present
	Branch   string // the name of main
	Name     string // of the repository, without user info
	Identity ledger.Person
	Sign     func(commit []byte) (string, error) // nil: commits are not signed
	// Guard tells right before a push whether an environment is ours to write to;
	// nil: all are.
	Guard func(desired.EnvironmentName) error
}

// Written is what has become of a proposal.
type Written struct {
	Proposal *Proposal
	Message  string
	Commit   string // on main; empty: nothing was written
}

// attempts is how often a proposal is judged again because main has moved.
const attempts = 6

// ErrPush says that a proposal could not be pushed. Nothing was acknowledged.
var ErrPush = errors.New("push to main")

// Write judges what is asked for, for whom it is, and pushes it. With dry, it
// stops before that. Whoever has moved main meanwhile has it judged again.
func (w *Writer) Write(ctx context.Context, now time.Time, asked Asked, who ledger.Person, dry bool) (Written, error) {
	for try := 0; ; try++ {
		written, change, err := w.judge(ctx, now, asked, who)
		if err != nil || change == nil || dry {
			return written, err
		}
		written.Commit, err = w.Mirror.Commit(ctx, *change)
		if err == nil {
			w.Mirror.Poke()
			return written, nil
		}
		if errors.Is(err, gitstate.ErrUnknown) {
			// It may have arrived: then what is asked for is there already.
			if id, found := w.find(ctx, change); found {
				written.Commit = id
				return written, nil
			}
		}
		if !errors.Is(err, gitstate.ErrMoved) && !errors.Is(err, gitstate.ErrUnknown) {
			return Written{}, fmt.Errorf("%w: %w", ErrPush, err)
		}
		if try == attempts {
			return Written{}, fmt.Errorf("%w: %w %d times while the commit was made", ErrPush, err, attempts)
		}
		if _, err := w.Mirror.Fetch(ctx); err != nil {
			return Written{}, fmt.Errorf("%w: %w", ErrPush, err)
		}
	}
}

// judge makes the commit; it is nil if there is nothing to write.
func (w *Writer) judge(ctx context.Context, now time.Time, asked Asked, who ledger.Person) (written Written, change *gitstate.Change, err error) {
	err = w.Present.Look(ctx, now, func(view *history.View) error {
		commit, err := view.Commit(ctx)
		if err != nil {
			return err
		}
		gr := &Ground{View: view, Commit: commit, Branch: w.Branch, Name: w.Name}
		p, err := asked.Propose(ctx, gr)
		if err != nil {
			return err
		}
		written.Proposal = p
		if p.Nothing != "" || p.Refused != nil {
			return nil
		}
		after, err := reconcile.ReadTree(&overlay{commit.Snapshot, p.Files}, commit.ID, commit)
		if err != nil {
			return err
		}
		if err := gr.Sound(after.Repository); err != nil {
			return err
		}
		p.Change.RequestedBy = append(p.Change.RequestedBy, who)
		written.Message = p.Change.Message()
		by := gitstate.Signature{Name: w.Identity.Name, Email: w.Identity.Email, Time: now}
		change = &gitstate.Change{Expected: commit.ID, Files: p.Files, Message: written.Message, Author: by, Committer: by, Sign: w.Sign}
		if env := p.Change.Environment; env != "" && w.Guard != nil {
			change.Guard = func() error { return w.Guard(env) }
		}
		return nil
	})
	return written, change, err
}

// mostLooked is how many of the newest commits are looked through for one whose
// push had no answer.
const mostLooked = 50

// find looks for the commit that a change made, among those after the one that it
// was judged on.
func (w *Writer) find(ctx context.Context, change *gitstate.Change) (id string, found bool) {
	tip, err := w.Mirror.Fetch(ctx)
	if err != nil {
		return "", false
	}
	n := 0
	w.Mirror.History(ctx, tip.Commit, func(c gitstate.CommitInfo) bool {
		if found = made(change, c); found {
			id = c.ID
		}
		n++
		return !found && c.ID != change.Expected && n < mostLooked
	})
	return id, found
}

// made tells whether a change made a commit. One that says the same, but follows
// another commit, was asked for before.
func made(change *gitstate.Change, c gitstate.CommitInfo) bool {
	return slices.Equal(c.Parents, []string{change.Expected}) && c.Message == change.Message && c.Author.Email == change.Author.Email
}

// overlay is a commit's files with some of them changed. A file that is new or
// gone is not in the lists of folders, and so not looked at.
type overlay struct {
	*gitstate.Snapshot
	files map[string][]byte
}

// ID returns an id of our own for what has changed, and for the folders that it
// is in.
func (o *overlay) ID(name string) (string, error) {
	id, err := o.Snapshot.ID(name)
	for file, data := range o.files {
		if err == nil && data != nil && (file == name || name == "." || path.Dir(file) == name) {
			sum := sha256.Sum256(append([]byte(id), data...))
			id = hex.EncodeToString(sum[:20])
		}
	}
	return id, err
}

// ReadFile reads a file as it has changed.
func (o *overlay) ReadFile(name string) ([]byte, error) {
	if data := o.files[name]; data != nil {
		return bytes.Clone(data), nil
	}
	return o.Snapshot.ReadFile(name)
}

// Open opens a file as it has changed.
func (o *overlay) Open(name string) (fs.File, error) {
	f, err := o.Snapshot.Open(name)
	if data := o.files[name]; err == nil && data != nil {
		return &changed{f, bytes.NewReader(data)}, nil
	}
	return f, err
}

// changed is an open file with another content.
type changed struct {
	fs.File
	data *bytes.Reader
}

func (c *changed) Read(p []byte) (int, error) { return c.data.Read(p) }
