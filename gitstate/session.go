package gitstate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// session is one conversation with a git service: first the references, then
// at most one request.
type session interface {
	advertise(ctx context.Context) (*packp.AdvRefs, error)
	// fetch returns the pack, still in side bands if those were agreed on.
	fetch(ctx context.Context, req *packp.UploadPackRequest) (io.ReadCloser, error)
	// push returns the report, or an error if there is none to go by.
	push(ctx context.Context, req *packp.ReferenceUpdateRequest) (*packp.ReportStatus, error)
	// rest is what the other side says behind its answer to a push: it ends when the
	// other side does.
	rest() io.Reader
	// said is what the other side wrote for a person to read.
	said() string
	close()
}

// dial starts a session with the service git-upload-pack or git-receive-pack.
func dial(ctx context.Context, ep *transport.Endpoint, auth Auth, service string) (session, error) {
	switch ep.Protocol {
	case "http", "https":
		return dialHTTP(ep, auth, service)
	case "ssh":
		return dialSSH(ctx, ep, auth, service)
	case "file":
		return execGit(ctx, ep.Path, service)
	}
	return nil, fmt.Errorf("the protocol %q is not supported; use https, ssh or a path", ep.Protocol)
}

// stream is a session over the two pipes of a process, here or behind ssh.
type stream struct {
	in       io.WriteCloser
	out      io.Reader
	messages *tail
	wait     func() error // waits for the end of the process
	kill     func()       // ends it
	sent     bool         // a request was sent
	refs     *packp.AdvRefs
}

func (s *stream) advertise(ctx context.Context) (*packp.AdvRefs, error) {
	refs := packp.NewAdvRefs()
	if err := refs.Decode(s.out); err != nil {
		switch {
		case errors.Is(err, packp.ErrEmptyAdvRefs): // an empty repository
		case errors.Is(err, packp.ErrEmptyInput):
			s.in.Close()
			s.wait()
			if s.messages.String() == "" {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, errors.New("the server ended the conversation")
		default:
			return nil, err
		}
	}
	transport.FilterUnsupportedCapabilities(refs.Capabilities)
	s.refs = refs
	return refs, nil
}

func (s *stream) fetch(ctx context.Context, req *packp.UploadPackRequest) (io.ReadCloser, error) {
	s.sent = true
	if err := req.UploadRequest.Encode(s.in); err != nil {
		return nil, err
	}
	if err := req.UploadHaves.Encode(s.in, true); err != nil {
		return nil, err
	}
	if err := pktline.NewEncoder(s.in).EncodeString("done\n"); err != nil {
		return nil, err
	}
	if err := s.in.Close(); err != nil {
		return nil, err
	}
	res := packp.NewUploadPackResponse(req)
	return res, res.Decode(io.NopCloser(s.out))
}

func (s *stream) push(ctx context.Context, req *packp.ReferenceUpdateRequest) (*packp.ReportStatus, error) {
	s.sent = true
	if err := req.Encode(s.in); err != nil {
		return nil, err
	}
	if err := s.in.Close(); err != nil {
		return nil, err
	}
	report := packp.NewReportStatus()
	if err := report.Decode(unband(req.Capabilities, s.out, s.messages)); err != nil {
		return nil, err
	}
	return report, nil
}

func (s *stream) rest() io.Reader { return s.out }

func (s *stream) said() string { return s.messages.String() }

func (s *stream) close() {
	if !s.sent {
		s.in.Write(pktline.FlushPkt)
		s.in.Close()
	}
	s.kill()
}

// unband takes the side bands apart.
func unband(l *capability.List, r io.Reader, messages io.Writer) io.Reader {
	var d *sideband.Demuxer
	switch {
	case l.Supports(capability.Sideband64k):
		d = sideband.NewDemuxer(sideband.Sideband64k, r)
	case l.Supports(capability.Sideband):
		d = sideband.NewDemuxer(sideband.Sideband, r)
	default:
		return r
	}
	d.Progress = messages
	return d
}

// haveGit tells whether the git program is there to serve a local repository.
func haveGit() bool {
	_, err := exec.LookPath("git")
	return err == nil
}

// execGit serves a repository on this machine by the git program, which takes
// the right locks and runs the hooks. Like a server, it is never killed: one that
// is leaves its locks behind, and nobody can move the branch again. When ctx ends,
// we hang up, and it ends by itself.
func execGit(ctx context.Context, path, service string) (session, error) {
	if fi, err := os.Stat(path); err != nil {
		return nil, err
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("%s is not a folder: %w", path, transport.ErrRepositoryNotFound)
	}
	cmd := exec.Command("git", strings.TrimPrefix(service, "git-"), path)
	cmd.Env = gitEnvironment()
	cmd.WaitDelay = time.Second // a hook that outlives git may keep the pipe open
	messages := &tail{}
	cmd.Stderr = messages
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	reap := sync.OnceValue(cmd.Wait)
	stop := context.AfterFunc(ctx, func() {
		in.Close()
		out.Close()
		reap()
	})
	wait := func() error {
		ended := make(chan error, 1)
		go func() { ended <- reap() }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		select {
		case <-ended: // as it does at once, unless a hook is at work
		case <-time.After(time.Second):
		}
		return context.Cause(ctx)
	}
	return &stream{in: in, out: out, messages: messages, wait: wait, kill: func() {
		in.Close()
		io.Copy(io.Discard, out)
		wait()
		stop()
	}}, nil
}

// gitEnvironment is ours without what would point git at another repository.
func gitEnvironment() []string {
	env := []string{"LC_ALL=C"}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
			"GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PROTOCOL", "GIT_QUARANTINE_PATH", "GIT_PREFIX", "LC_ALL", "LANGUAGE":
		default:
			env = append(env, v)
		}
	}
	return env
}

// httpSession is a session over http(s), as go-git speaks it.
type httpSession struct {
	up       transport.UploadPackSession
	down     transport.ReceivePackSession
	answers  *answers
	answer   io.ReadCloser // to a push; go-git leaves it open
	messages tail
}

func dialHTTP(ep *transport.Endpoint, auth Auth, service string) (session, error) {
	client, err := auth.httpClient()
	if err != nil {
		return nil, err
	}
	basic, err := auth.basic(ep)
	if err != nil {
		return nil, err
	}
	var method transport.AuthMethod
	if basic != nil {
		method = basic
	}
	plain := *ep // the session changes it; and no user info may get into a URL
	plain.User, plain.Password = "", ""
	s := &httpSession{answers: &answers{RoundTripper: client.Transport}}
	client.Transport = s.answers
	t := githttp.NewClient(client)
	if service == transport.UploadPackServiceName {
		s.up, err = t.NewUploadPackSession(&plain, method)
	} else {
		s.down, err = t.NewReceivePackSession(&plain, method)
	}
	return s, err
}

func (s *httpSession) advertise(ctx context.Context) (*packp.AdvRefs, error) {
	var refs *packp.AdvRefs
	var err error
	if s.up != nil {
		refs, err = s.up.AdvertisedReferencesContext(ctx)
	} else {
		refs, err = s.down.AdvertisedReferencesContext(ctx)
	}
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return packp.NewAdvRefs(), nil
	}
	return refs, err
}

func (s *httpSession) fetch(ctx context.Context, req *packp.UploadPackRequest) (io.ReadCloser, error) {
	return s.up.UploadPack(ctx, req)
}

func (s *httpSession) push(ctx context.Context, req *packp.ReferenceUpdateRequest) (*packp.ReportStatus, error) {
	req.Progress = &s.messages
	report, err := s.down.ReceivePack(ctx, req)
	s.answer = s.answers.last
	if report != nil {
		return report, nil // what it says is for the caller to judge
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

func (s *httpSession) rest() io.Reader { return s.answer }

func (s *httpSession) said() string { return s.messages.String() }

func (s *httpSession) close() {
	if s.answer != nil {
		s.answer.Close()
	}
}

// tail keeps the end of what is written to it; both sides of a pipe may use
// it.
type tail struct {
	mu   sync.Mutex
	data []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if over := len(t.data) - 4096; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

// String is the text, one line behind the other. Gitea puts a line above and below
// what it says that has nothing but the word error.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for line := range strings.FieldsFuncSeq(string(t.data), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); line != "" && line != "error:" {
			list = append(list, line)
		}
	}
	return strings.Join(list, "; ")
}

// idle cancels an operation that makes no progress.
type idle struct {
	timer *time.Timer
	limit time.Duration
}

// withIdle returns a context that ends when touch is not called for so long.
func withIdle(ctx context.Context, limit time.Duration) (context.Context, *idle, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	err := fmt.Errorf("%w: nothing came for %v: %w", errIdle, limit, context.DeadlineExceeded)
	i := &idle{time.AfterFunc(limit, func() { cancel(err) }), limit}
	return ctx, i, func() {
		i.timer.Stop()
		cancel(nil)
	}
}

func (i *idle) touch() { i.timer.Reset(i.limit) }

// reader touches i whenever something comes.
func (i *idle) reader(r io.Reader) io.Reader { return idleReader{r, i} }

type idleReader struct {
	r io.Reader
	i *idle
}

func (r idleReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.i.touch()
	}
	return n, err
}
