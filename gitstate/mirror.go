package gitstate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Options say what to mirror, and where.
type Options struct {
	URL    string // https, http, ssh, file, or a path; user info in it is used, and never shown
	Dir    string // the mirror's own folder, made if need be; one process at a time may use it
	Branch string // "main" if empty
	Auth   Auth
	// AllowRewrite takes a branch over as the remote has it, also if that is
	// not a descendant of what it was.
	AllowRewrite bool
	Logger       *slog.Logger  // nil: nothing is logged
	Poll         time.Duration // how often Watch says to look; 1 minute if 0, give or take a fifth
	// Timeout is how long the remote may say nothing, 1 minute if 0. A clone
	// may take longer than that as long as something arrives.
	Timeout time.Duration
	// MaxPacks is how many packs may gather, which could not be merged, before the
	// mirror is cloned anew; 50 if 0.
	MaxPacks int
}

// Tip is where the branch is after a fetch.
type Tip struct {
	Commit    string // the full id
	Previous  string // where it was before; empty: it was not known
	Rewritten bool   // Commit does not descend from Previous
}

// Mirror is a bare copy of one branch of a remote repository and of its
// ledgers. See the package comment for what it promises. Its methods may be
// called from any goroutine.
type Mirror struct {
	options Options
	remote  *remote
	log     *slog.Logger
	lock    *os.File
	store   *store

	// network is held by whoever talks to the remote or writes to the mirror.
	network chan struct{}
	sent    sent // guarded by network
	pushes  atomic.Uint64

	mu       sync.Mutex
	present  *generation            // guarded by mu to replace, by network to change
	branches map[string]string      // guarded by mu; present.refs, for readers
	damaged  error                  // guarded by mu
	renewing bool                   // guarded by mu
	watchers map[chan struct{}]bool // guarded by mu
	closed   bool                   // guarded by mu

	// done ends the goroutines that running counts.
	done    context.Context
	end     context.CancelFunc
	running sync.WaitGroup
}

// Open opens the mirror in its folder. If it is sound, the remote is not asked.
// If there is none, or it is damaged, it is cloned, beside what is there.
func Open(ctx context.Context, o Options) (*Mirror, error) {
	if o.Branch == "" {
		o.Branch = "main"
	}
	if !validBranch(o.Branch) {
		return nil, fmt.Errorf("open mirror: %q is not a name for a branch", o.Branch)
	}
	if o.Dir == "" {
		return nil, errors.New("open mirror: it needs a folder")
	}
	if o.Poll <= 0 {
		o.Poll = time.Minute
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.MaxPacks <= 0 {
		o.MaxPacks = 50
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r, err := newRemote(o)
	if err != nil {
		return nil, fmt.Errorf("open mirror: %w", err)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open mirror: %w", err)
	}
	o.Dir = dir
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open mirror: %w", spelled(o.Dir, err))
	}
	lock, err := lockFolder(ctx, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open mirror: %w", err)
	}
	m := &Mirror{options: o, remote: r, log: o.Logger.With("remote", r.name()), lock: lock,
		network: make(chan struct{}, 1), watchers: map[chan struct{}]bool{}, store: newStore()}
	if r.exposed() {
		m.log.Warn("the password is sent without encryption; use https")
	}
	m.done, m.end = context.WithCancel(context.Background())
	m.store.damage = m.harmed
	if err := m.open(ctx); err != nil {
		m.Close()
		return nil, fmt.Errorf("open mirror: %w", err)
	}
	return m, nil
}

func (m *Mirror) open(ctx context.Context) error {
	g, err := currentGeneration(m.options.Dir, m.options.URL)
	if err == nil {
		g.clean()
		s := newStore(openODB(g.dir))
		if err = g.check(ctx, s); err == nil {
			m.store.replace(s.odbs[0], false)
			m.store.commits, m.store.trees = s.commits, s.trees
			m.use(g)
			m.sweep(m.present)
			return nil
		}
		s.close()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, fs.ErrNotExist) && g == nil {
		m.log.Info("cloning", "branch", m.options.Branch)
	} else {
		m.log.Warn("the mirror is damaged, cloning anew", "error", err)
	}
	var known map[string]plumbing.Hash
	if g != nil {
		known = g.refs
	}
	m.sweep(g)
	if err := m.renew(ctx, known); err != nil {
		return err
	}
	m.sweep(m.present)
	return nil
}

// use makes a generation the present one for readers.
func (m *Mirror) use(g *generation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.present = g
	m.damaged = nil
	m.publish()
}

// publish shows readers where the branches are; mu is held.
func (m *Mirror) publish() {
	m.branches = make(map[string]string, len(m.present.refs))
	for name, id := range m.present.refs {
		m.branches[name] = id.String()
	}
}

// harmed remembers that the mirror has to be cloned anew, and asks for a look.
func (m *Mirror) harmed(err error) {
	m.mu.Lock()
	first := m.damaged == nil
	if first {
		m.damaged = err
	}
	m.mu.Unlock()
	if first {
		m.log.Warn("the mirror is damaged", "error", err)
		m.Poke()
	}
}

// acquire waits until nobody else talks to the remote. The context that it
// returns ends with the mirror, too; release lets the next one in.
func (m *Mirror) acquire(ctx context.Context) (_ context.Context, release func(), err error) {
	select {
	case m.network <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	case <-m.done.Done():
		return nil, nil, ErrClosed
	}
	if m.done.Err() != nil {
		<-m.network
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.done, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		<-m.network
	}, nil
}

// Fetch brings the mirror up to date and returns where the branch is.
//
// A branch that was rewritten or deleted is an [ErrRewritten] and stays where
// it was, unless the options allow it. If only a ledger was, the returned Tip
// is valid beside the error. That the remote has no such branch is an
// [ErrNoBranch].
func (m *Mirror) Fetch(ctx context.Context) (Tip, error) {
	ctx, release, err := m.acquire(ctx)
	if err != nil {
		return Tip{}, fmt.Errorf("fetch: %w", err)
	}
	defer release()
	return m.fetch(ctx)
}

func (m *Mirror) fetch(ctx context.Context) (Tip, error) {
	before := maps.Clone(m.present.refs)
	err := m.update(ctx)
	m.compact()
	tip := Tip{}
	id, ok := m.present.refs[m.options.Branch]
	if ok {
		tip.Commit = id.String()
	}
	if old, known := before[m.options.Branch]; known {
		tip.Previous = old.String()
		if ok && old != id && m.options.AllowRewrite {
			descends, e := m.store.isAncestor(ctx, old, id)
			tip.Rewritten = e == nil && !descends
		}
	}
	if err != nil {
		return tip, err
	}
	if !ok {
		return tip, fmt.Errorf("fetch %s: %w: %s", m.remote.name(), ErrNoBranch, m.options.Branch)
	}
	m.thin()
	return tip, nil
}

// update fetches, and clones anew if that is what it takes.
func (m *Mirror) update(ctx context.Context) error {
	if err := m.present.standing(); err != nil {
		m.harmed(err)
	}
	if m.damage() == nil {
		refs, err := m.remote.download(ctx, m.present, m.store)
		if err != nil {
			return err
		}
		err = m.remote.advance(ctx, m.present, m.store, refs, m.options.AllowRewrite)
		m.mu.Lock()
		m.publish()
		m.mu.Unlock()
		if m.damage() == nil {
			return err
		}
	}
	m.log.Warn("cloning anew", "error", m.damage())
	if err := m.renew(ctx, m.present.refs); err != nil {
		return fmt.Errorf("%w: cloning anew: %w", ErrDamaged, err)
	}
	m.log.Info("cloned anew")
	return nil
}

func (m *Mirror) damage() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.damaged
}

// Tip is where the branch was when it was last looked at.
func (m *Mirror) Tip() (string, bool) { return m.Branch(m.options.Branch) }

// Branch is where one of the mirrored branches was when it was last looked
// at: the branch itself, or a ledger.
func (m *Mirror) Branch(name string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.branches[name]
	return id, ok
}

// Branches are the mirrored branches and where they were when they were last
// looked at. The map is the caller's.
func (m *Mirror) Branches() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.branches)
}

// Snapshot is the tree of a commit, by the full id.
func (m *Mirror) Snapshot(ctx context.Context, commit string) (*Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.store.snapshot(commit)
}

// Resolve turns a revision into the full id of a commit: a branch, a full or
// an abbreviated id (4 digits or more), "HEAD" for the tip, each with any
// number of ~N and ^N behind it.
func (m *Mirror) Resolve(ctx context.Context, rev string) (string, error) {
	id, err := m.store.resolve(ctx, rev, func(name string) (plumbing.Hash, bool, error) {
		if name == "HEAD" || name == "" {
			name = m.options.Branch
		}
		for _, prefix := range []string{"", "refs/heads/", "heads/", "origin/", "refs/remotes/origin/"} {
			if len(name) > len(prefix) && name[:len(prefix)] == prefix {
				if id, ok := m.Branch(name[len(prefix):]); ok {
					return plumbing.NewHash(id), true, nil
				}
			}
		}
		return plumbing.ZeroHash, false, nil
	})
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

// IsAncestor tells whether descendant has ancestor in its history; a commit is
// its own ancestor.
func (m *Mirror) IsAncestor(ctx context.Context, ancestor, descendant string) (bool, error) {
	return m.store.ancestry(ctx, ancestor, descendant)
}

// Info reads a commit, by the full id.
func (m *Mirror) Info(ctx context.Context, id string) (CommitInfo, error) {
	return m.store.describe(ctx, id)
}

// History yields a commit and its first parents, newest first, as long as
// yield wants more. Each is read when it is asked for.
func (m *Mirror) History(ctx context.Context, from string, yield func(CommitInfo) bool) error {
	return m.store.walk(ctx, from, yield)
}

// Close ends what runs in the background. Snapshots can't be read any more.
func (m *Mirror) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	m.end()
	m.running.Wait()
	m.network <- struct{}{} // whoever is at it finishes first
	defer func() { <-m.network }()
	return errors.Join(m.store.close(), unlockFolder(m.lock))
}
