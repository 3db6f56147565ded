package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/proposal"
	"github.com/pinion-cd/pinion/reconcile"
)

// The bounds of a request.
const (
	maxBody = 64 << 10
	// AnswerTime is less than what the daemon's server gives a request as a whole.
	AnswerTime = 25 * time.Second
)

// Backend is what answers come from, once the repository has been read.
type Backend struct {
	Present *history.Present
	Index   *history.Index
	Clerk   *reconcile.Clerk
	Writer  *proposal.Writer
	Reconciler
	// Reading says how the looks at a repository of a registry go; ok is false if
	// it is not looked at here. It fills in what main does not say.
	Reading func(*history.Registry) (ok bool)
	// Forward passes a request on to the replica that has an environment; nil:
	// there are no others.
	Forward Forwarder
}

// Reconciler has things looked at now, instead of when their time comes.
type Reconciler interface {
	// Reconcile fetches, and has all objects of an environment, or of all,
	// compared with the cluster. It returns where main is.
	Reconcile(ctx context.Context, env desired.EnvironmentName) (main string, err error)
}

// Forwarder passes requests on to other replicas. It returns false if the
// environment is ours, and a problem if it could not be passed on.
type Forwarder interface {
	Forward(w http.ResponseWriter, r *http.Request, env desired.EnvironmentName, body []byte) (bool, *Problem)
}

// Options say how a Server answers.
type Options struct {
	Authenticators []Authenticator
	// Anonymous: who sends no token may read.
	Anonymous bool
	Limits    Limits
	// Log is told who was refused what, and who had something looked at; nil:
	// nobody is.
	Log *slog.Logger
	// More are operations that others add.
	More []Operation
	// Clock tells the time; nil: time.Now.
	Clock func() time.Time
}

// Server answers /api/v1. It answers "not ready" until it is opened.
type Server struct {
	options  Options
	backend  atomic.Pointer[Backend]
	mux      *http.ServeMux
	document encoded

	callers, strangers *limits
	answers            answers
	deployments        texts[*history.Deployment]

	streams chan struct{}   // holds one for each stream
	again   time.Duration   // after which a stream's caller is asked for again
	mu      sync.Mutex      // guards follows
	follows map[string]int  // how many streams a caller has
	ended   context.Context // of the streams
	end     context.CancelFunc
}

// New returns a server of all operations.
func New(o Options) (*Server, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{options: o, mux: http.NewServeMux(), streams: make(chan struct{}, MaxStreams), again: askAgain, follows: map[string]int{},
		callers: newLimits(o.Limits), strangers: newLimits(Limits{PerSecond: strangersPerSecond})}
	s.ended, s.end = context.WithCancel(context.Background())
	all := append(Operations(), o.More...)
	text, err := document(all)
	if err != nil {
		return nil, err
	}
	s.document = encoded{text, tagOf(text)}
	for i := range all {
		op := &all[i]
		s.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, op) })
	}
	s.mux.HandleFunc("GET "+documentPath, func(w http.ResponseWriter, r *http.Request) { s.document.write(w, r) })
	s.mux.HandleFunc("/api/", s.stray)
	return s, nil
}

const documentPath = "/api/v1/openapi.json"

// Open has the server answer from a backend.
func (s *Server) Open(b *Backend) { s.backend.Store(b) }

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// EndStreams ends the answers that go on, for the daemon stops.
func (s *Server) EndStreams() { s.end() }

// stream answers as long as the caller stays.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, c *Call, o *Operation) {
	who := nameOf(c.Caller, r)
	if !s.begins(who) {
		w.Header().Set("Retry-After", "10")
		Refusal(TooMany, "you follow the events %d times already; end one of them", maxStreamsOfOne).Write(w)
		return
	}
	defer s.ends(who)
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		Refusal(TooMany, "%d callers follow the events already; ask again later", MaxStreams).Write(w)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ended, cancel)()
	go s.watch(ctx, cancel, r, c.Caller, o.Scope)
	c.Context = ctx
	st := &Stream{w: w, control: http.NewResponseController(w)}
	st.control.SetReadDeadline(time.Time{}) // nothing more is to be read
	if err := o.stream(c, st); err != nil && !st.begun {
		problemOf(err).Write(w)
	}
}

// begins counts a stream, unless it is one too many of a caller's.
func (s *Server) begins(who string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follows[who] >= maxStreamsOfOne {
		return false
	}
	s.follows[who]++
	return true
}

func (s *Server) ends(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follows[who]--; s.follows[who] == 0 {
		delete(s.follows, who)
	}
}

// watch ends a stream when its caller's token is over, or when the caller may not
// follow any more.
func (s *Server) watch(ctx context.Context, end func(), r *http.Request, c Caller, scope Scope) {
	tick := time.NewTicker(s.again)
	defer tick.Stop()
	for {
		var over <-chan time.Time
		if !c.until.IsZero() {
			over = time.After(c.until.Sub(s.options.Clock()))
		}
		select {
		case <-ctx.Done():
			return
		case <-over:
			end()
			return
		case <-tick.C:
		}
		asking, cancel := context.WithTimeout(ctx, AnswerTime)
		now, err := s.caller(asking, r)
		cancel()
		switch {
		case err != nil && problemOf(err).Code == NotReady: // no verdict
		case err != nil || !now.may(scope):
			end()
			return
		default:
			c = now
		}
	}
}

// nameOf names a caller, or where one comes from who is not known.
func nameOf(c Caller, r *http.Request) string {
	if c.Known {
		return c.Name
	}
	return "from " + addressOf(r)
}

// stray answers what is no operation.
func (s *Server) stray(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		again := r.Clone(r.Context())
		again.Method = method
		if _, pattern := s.mux.Handler(again); pattern != "/api/" {
			allow = append(allow, method)
		}
	}
	if len(allow) > 0 {
		methods := strings.Join(allow, ", ")
		w.Header().Set("Allow", methods)
		Refusal(MethodNotAllowed, "%s is for %s", cut(r.URL.Path), methods).Write(w)
		return
	}
	Refusal(NotFound, "there is no %s; %s lists what there is", cut(r.URL.Path), documentPath).Write(w)
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, o *Operation) {
	ctx, cancel := context.WithTimeout(r.Context(), AnswerTime)
	defer cancel()
	now := s.options.Clock()
	caller, err := s.caller(ctx, r)
	if after, ok := s.callers.admit(nameOf(caller, r), now); !ok {
		tooMany(w, after)
		return
	}
	if err == nil && !caller.may(o.Scope) {
		if err = Refusal(Denied, "%s does not have the scope %s; see tokens and api.grants in the daemon's configuration", caller.Name, o.Scope); !caller.Known {
			err = Refusal(Unauthenticated, "send a token as Authorization: Bearer …")
		}
	}
	c := &Call{Context: ctx, Caller: caller, Now: now.UTC(), Backend: s.backend.Load(), deployments: &s.deployments, log: s.options.Log, operation: o, request: r}
	refuse := func(err error) {
		p := problemOf(err)
		if p.Status == http.StatusForbidden && o.body != nil {
			c.log.Info("a request was refused", append(c.asked(), "code", string(p.Code), "reason", p.Detail)...)
		}
		p.Write(w)
	}
	if err != nil {
		refuse(err)
		return
	}
	var branches map[string]string
	if o.lasting && c.Backend != nil && c.Backend.Present != nil {
		branches = c.Backend.Present.Branches()
		if e, ok := s.answers.find(branches, r.RequestURI); ok { // so it was a good question
			e.write(w, r)
			return
		}
	}
	if c.values, err = o.parse(r); err != nil {
		refuse(err)
		return
	}
	if c.Backend == nil {
		Refusal(NotReady, "the repository has not been read yet; ask again").Write(w)
		return
	}
	if o.body != nil {
		// Before the server's own time is over, so that who is too slow is told.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(AnswerTime))
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			problem := invalid("the body can't be read: %v", err)
			if errors.As(err, new(*http.MaxBytesError)) {
				problem = Refusal(TooLarge, "the body has more than %d bytes", maxBody)
			}
			w.Header().Set("Connection", "close") // what is left of it is not read
			problem.Write(w)
			return
		}
		if c.body, err = o.decode(data); err != nil {
			refuse(err)
			return
		}
		if env := o.about(c.body); env != "" {
			if err := c.authorize(env); err != nil {
				refuse(err)
				return
			}
		}
		if env := o.about(c.body); env != "" && c.Backend.Forward != nil {
			done, problem := c.Backend.Forward.Forward(w, r, env, data)
			if problem != nil {
				problem.Write(w)
			}
			if done || problem != nil {
				return
			}
		}
	}
	if o.stream != nil {
		s.stream(w, r, c, o)
		return
	}
	if branches != nil {
		c.Caller, c.request = Caller{}, nil // whose answer is kept does not know who asks
	}
	x, err := o.serve(c)
	if err != nil {
		refuse(err)
		return
	}
	buffer := buffers.Get().(*bytes.Buffer)
	if err := encode(buffer, x); err != nil {
		Refusal(Internal, "write the answer: %v", err).Write(w)
		return
	}
	e := encoded{data: buffer.Bytes()}
	if o.Method == http.MethodGet {
		e.tag = tagOf(e.data)
	}
	if branches != nil && !c.fleeting {
		s.answers.keep(branches, r.RequestURI, encoded{bytes.Clone(e.data), e.tag})
	}
	e.write(w, r)
	if buffer.Cap() <= largestBuffer {
		buffers.Put(buffer)
	}
}

// caller finds out who asks.
func (s *Server) caller(ctx context.Context, r *http.Request) (Caller, error) {
	c := Caller{}
	if s.options.Anonymous {
		c.Grants = []Grant{{Scopes: []Scope{ScopeRead}}}
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return c, nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return c, Refusal(Unauthenticated, "send a token as Authorization: Bearer …")
	}
	// Others are asked: not as often as somebody likes who guesses tokens.
	address, reserved, found := addressOf(r), false, false
	mayAsk := func() error {
		if !reserved && !s.strangers.reserve(address, s.options.Clock()) {
			return Refusal(TooMany, "too many tokens from your address were nobody's; ask again later")
		}
		reserved = true
		return nil
	}
	defer func() {
		if reserved {
			s.strangers.settle(address, s.options.Clock(), !found)
		}
	}()
	var failures []error
	for _, a := range s.options.Authenticators {
		authenticate := a.Authenticate
		if m, asks := a.(*Remembered); asks {
			authenticate = func(ctx context.Context, token string) (Caller, bool, error) {
				return m.authenticate(ctx, token, mayAsk)
			}
		}
		var known Caller
		var err error
		known, found, err = authenticate(ctx, token)
		if refusal := new(*Problem); errors.As(err, refusal) {
			return c, *refusal
		}
		if err != nil {
			failures = append(failures, err)
		}
		if found {
			return known, nil
		}
	}
	if len(failures) > 0 {
		return c, Refusal(NotReady, "whose the token is could not be found out: %v; ask again", errors.Join(failures...))
	}
	return c, Refusal(Unauthenticated, "nobody is known who has that token; send another one as Authorization: Bearer …")
}

// authorize makes sure that the caller may do this in environments; none stands
// for all.
func (c *Call) authorize(envs ...desired.EnvironmentName) error {
	scope := c.operation.Scope
	if len(envs) == 0 && !c.Caller.mayIn(scope, "") {
		return Refusal(Denied, "%s does not have the scope %s in all environments; name those that it is for", c.Caller.Name, scope)
	}
	for _, env := range envs {
		if !c.Caller.mayIn(scope, env) {
			return Refusal(Denied, "%s does not have the scope %s in %s; see tokens and api.grants in the daemon's configuration", c.Caller.Name, scope, cut(string(env)))
		}
	}
	return nil
}
