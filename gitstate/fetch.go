package gitstate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// LedgerPrefix is what the names of the ledgers' branches begin with.
const LedgerPrefix = "ledger/"

// SinksBranch is where it is kept how far each sink was told the news. Unlike
// the others it may be rewritten or deleted by anybody: whoever does so has news
// told twice.
const SinksBranch = "pinion/sinks"

// ArtifactsBranch is the branch that says which artifacts are known.
const ArtifactsBranch = "pinion/artifacts"

// recorded tells whether a branch is one that Pinion records something on.
func recorded(name string) bool {
	return strings.HasPrefix(name, LedgerPrefix) || name == ArtifactsBranch || name == SinksBranch
}

// remote is the repository that is mirrored.
type remote struct {
	ep      *transport.Endpoint
	auth    Auth
	branch  string
	timeout time.Duration
	left    chan struct{} // holds one for each conversation that was left; see Mirror.leave
}

func newRemote(o Options) (*remote, error) {
	ep, err := transport.NewEndpoint(o.URL)
	if err != nil {
		return nil, fmt.Errorf("the URL %q: %s", Redact(o.URL), redact(err.Error(), nil))
	}
	switch ep.Protocol {
	case "http", "https", "ssh", "file":
	default:
		return nil, fmt.Errorf("the URL %q: the protocol %q is not supported; use https, ssh or a path", Redact(o.URL), ep.Protocol)
	}
	return &remote{ep: ep, auth: o.Auth, branch: o.Branch, timeout: o.Timeout, left: make(chan struct{}, mostLeft)}, nil
}

// exposed tells whether a password goes over the network as it is.
func (r *remote) exposed() bool {
	host, err := netip.ParseAddr(strings.Trim(r.ep.Host, "[]"))
	near := r.ep.Host == "localhost" || err == nil && host.IsLoopback()
	a := r.auth
	return r.ep.Protocol == "http" && !near && (a.Password != "" || a.Token != "" || a.TokenFile != "" || r.ep.Password != "")
}

// name is the remote for messages.
func (r *remote) name() string {
	plain := *r.ep
	plain.User, plain.Password = "", ""
	if plain.Protocol == "file" {
		return plain.Path
	}
	return plain.String()
}

// failed forms the error of an operation: no user info and no secret is in
// it, and what the remote said is.
func (r *remote) failed(ctx context.Context, op string, s session, err error) error {
	if err == nil {
		return nil
	}
	err = r.auth.explained(ctx, err)
	text := fmt.Sprintf("%s %s: %v", op, r.name(), err)
	if s != nil {
		if said := s.said(); said != "" {
			text += ": the remote says: " + said
		}
	}
	return &quiet{redact(text, r.auth.secrets(r.ep)), err}
}

// local tells whether the repository has to be read without the git program.
func (r *remote) local() bool { return r.ep.Protocol == "file" && !haveGit() }

// follows tells whether a reference is one of those that are mirrored, and
// its short name.
func (r *remote) follows(ref string) (string, bool) {
	name, ok := strings.CutPrefix(ref, "refs/heads/")
	if !ok || name != r.branch && !recorded(name) {
		return "", false
	}
	return name, validBranch(name)
}

// download brings what the remote's branches have into g, and returns where
// they are. It moves no branch of g.
func (r *remote) download(ctx context.Context, g *generation, s *store) (refs map[string]plumbing.Hash, err error) {
	whole := ctx // indexing what has come is no waiting for the remote
	ctx, progress, cancel := withIdle(ctx, r.timeout)
	defer cancel()
	defer func() {
		if err != nil {
			g.clean()
			err = spelled(g.dir, err)
		}
	}()
	if r.local() {
		refs, err = r.copyLocal(ctx, g, s)
		return refs, r.failed(ctx, "fetch", nil, err)
	}
	if r.ep.Protocol == "file" && ctx.Err() == nil {
		// Each of our own pushes wakes a fetch, which seldom finds anything; that is
		// seen without starting a program. What can't be read here, git may.
		if refs, same, err := r.readLocal(g); err == nil && same {
			return refs, nil
		}
	}
	c, err := dial(ctx, r.ep, r.auth, transport.UploadPackServiceName)
	if err != nil {
		return nil, r.failed(ctx, "fetch", nil, err)
	}
	defer c.close()
	all, err := c.advertise(ctx)
	if err != nil {
		return nil, r.failed(ctx, "fetch", c, err)
	}
	progress.touch()
	refs = map[string]plumbing.Hash{}
	for ref, id := range all.References {
		if name, ok := r.follows(ref); ok {
			refs[name] = id
		}
	}
	// Only what a branch of ours points to is known to be complete.
	have := map[plumbing.Hash]bool{}
	for _, id := range g.refs {
		have[id] = true
	}
	req := packp.NewUploadPackRequestFromCapabilities(all.Capabilities)
	if all.Capabilities.Supports(capability.NoProgress) {
		req.Capabilities.Set(capability.NoProgress)
	}
	for _, id := range refs {
		if !have[id] && !slices.Contains(req.Wants, id) {
			req.Wants = append(req.Wants, id)
		}
	}
	// The history of a branch that has not moved has nothing to do with what is wanted;
	// and a server that is told of it looks through all of its folders.
	var from []plumbing.Hash
	for name, id := range g.refs {
		if refs[name] != id {
			from = append(from, id)
		}
	}
	if len(req.Wants) > 0 {
		req.Haves = haves(from, s)
	}
	// A branch that was set back is at a commit from before a tip of ours, which is
	// complete as well. And over http, who wants only what he has is not asked at all.
	req.Wants = slices.DeleteFunc(req.Wants, func(id plumbing.Hash) bool { return slices.Contains(req.Haves, id) })
	if len(req.Wants) == 0 {
		return refs, nil
	}
	plumbing.HashesSort(req.Wants)
	body, err := c.fetch(ctx, req)
	if err != nil {
		return nil, r.failed(ctx, "fetch", c, err)
	}
	defer body.Close()
	messages := &tail{}
	if err := g.addPack(whole, unband(req.Capabilities, progress.reader(body), messages)); err != nil {
		return nil, r.failed(ctx, "fetch", c, err)
	}
	s.refresh(g)
	return refs, nil
}

// readLocal reads where the branches are of a repository on this machine, and tells
// whether g has all of them there.
func (r *remote) readLocal(g *generation) (refs map[string]plumbing.Hash, same bool, err error) {
	f, err := openFolder(r.ep.Path)
	if err != nil {
		return nil, false, err
	}
	all, err := f.branches()
	if err != nil {
		return nil, false, err
	}
	refs = map[string]plumbing.Hash{}
	for ref, id := range all {
		if name, ok := r.follows(ref); ok {
			refs[name] = id
		}
	}
	_, there := refs[r.branch] // a symbolic reference is git's to follow
	return refs, there && maps.Equal(refs, g.refs), nil
}

// copyLocal is download for a machine without the git program.
func (r *remote) copyLocal(ctx context.Context, g *generation, s *store) (map[string]plumbing.Hash, error) {
	refs, same, err := r.readLocal(g)
	if err != nil || same {
		return refs, err
	}
	f, err := openFolder(r.ep.Path)
	if err != nil {
		return nil, err
	}
	if err := f.copyObjects(ctx, g); err != nil {
		return nil, err
	}
	s.reindex(nil)
	return refs, nil
}

// haves are the commits that the remote is told we have: the tips of some branches,
// and of the first parents before them fewer and fewer, so that a rewritten branch
// does not cost everything.
func haves(tips []plumbing.Hash, s *store) []plumbing.Hash {
	seen := map[plumbing.Hash]bool{}
	for _, id := range tips {
		next := 1
		for n := 0; n <= 512; n++ {
			c, err := s.commit(id)
			if err != nil {
				break
			}
			if n == 0 || n == next {
				seen[id] = true
				if n == next {
					next *= 2
				}
			}
			parents, _ := s.parents(c)
			if len(parents) == 0 {
				break
			}
			id = parents[0]
		}
	}
	ids := make([]plumbing.Hash, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	plumbing.HashesSort(ids)
	return ids
}

// advance moves g's branches to where the remote has them, if the objects are
// all there. A branch that was rewritten or deleted stays, which is an
// ErrRewritten, unless rewrite allows it; the others are moved all the same.
func (r *remote) advance(ctx context.Context, g *generation, s *store, refs map[string]plumbing.Hash, rewrite bool) error {
	names := make([]string, 0, len(refs))
	for name := range refs {
		names = append(names, name)
	}
	for name := range g.refs {
		if _, ok := refs[name]; !ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var errs []error
	for _, name := range names {
		id, there := refs[name]
		old, known := g.refs[name]
		rewrite := rewrite || name == SinksBranch
		if there && known && id == old {
			continue
		}
		if !there {
			if !rewrite {
				errs = append(errs, &RewrittenError{Branch: name, Old: old.String()})
			} else if err := g.removeRef(name); err != nil {
				errs = append(errs, err)
			}
			g.rewritten = g.rewritten || rewrite
			continue
		}
		if err := s.arrived(ctx, id, old); err != nil {
			return fmt.Errorf("fetch %s: branch %s: %w", r.name(), name, err)
		}
		if known {
			descends, err := s.isAncestor(ctx, old, id)
			if err != nil {
				return fmt.Errorf("fetch %s: branch %s: %w", r.name(), name, err)
			}
			if !descends && !rewrite {
				errs = append(errs, &RewrittenError{Branch: name, Old: old.String(), New: id.String()})
				continue
			}
			g.rewritten = g.rewritten || !descends
		}
		if err := g.setRef(name, id); err != nil {
			g.clean()
			return spelled(g.dir, fmt.Errorf("fetch %s: branch %s: %w", r.name(), name, err))
		}
	}
	return errors.Join(errs...)
}

// arrived looks whether a commit came with all its files.
func (s *store) arrived(ctx context.Context, id, old plumbing.Hash) error {
	c, err := s.commit(id)
	if err != nil {
		return s.harmed(err)
	}
	known := plumbing.ZeroHash
	if !old.IsZero() {
		o, err := s.commit(old)
		if err != nil {
			return s.harmed(err)
		}
		known = o.tree
	}
	return s.harmed(s.completeTree(ctx, c.tree, known, "."))
}

func (g *generation) removeRef(branch string) error {
	if err := os.Remove(g.refFile(branch)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(g.refs, branch)
	return nil
}
