package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/forge"
)

// Options say which repository of which forge is meant, and who asks.
type Options struct {
	Kind       forge.Kind
	URL        string // of the forge, as one opens it; "": the public one
	Repository string // owner/name, on GitLab with all groups
	// Token returns the access token; it is asked before each request.
	Token func() (string, error)
	HTTP  *http.Client // nil: http.DefaultClient
	// Count is told of each request, from any goroutine; nil: nobody counts.
	Count func(Result)
}

// Result is what became of a request.
type Result string

// The results.
const (
	Success Result = "success"
	Refused Result = "refused" // 4xx, which may be an answer as good as another
	Limited Result = "limited" // the forge asks to be left alone
	Failure Result = "failure" // 5xx, no answer, or one that can't be read
)

// Results are all of them.
var Results = []Result{Success, Refused, Limited, Failure}

// Client talks to a forge about one repository. Its methods may be called from
// any goroutine.
type Client struct {
	dialect
	kind forge.Kind
}

// dialect is the API of one kind of forge.
type dialect interface {
	// Whoami returns the login of who asks.
	Whoami(ctx context.Context) (string, error)
	// SetStatus says something of a commit.
	SetStatus(ctx context.Context, commit string, s forge.Status) error
	// Statuses returns the last that was said of a commit, by context.
	Statuses(ctx context.Context, commit string) (map[string]forge.Status, error)
	// Pulls returns the open pull requests into a branch, oldest first.
	Pulls(ctx context.Context, base string) ([]forge.Pull, error)
	// Pull returns one, with what the list leaves out.
	Pull(ctx context.Context, number int) (forge.Pull, error)
	// PullOf returns the newest one of a branch, in whatever state; nil: there
	// never was one.
	PullOf(ctx context.Context, base, branch string) (*forge.Pull, error)
	// OpenPull opens one; Title, Body, Branch and Base are read.
	OpenPull(ctx context.Context, p forge.Pull) (forge.Pull, error)
	// EditPull changes the title and the body of one.
	EditPull(ctx context.Context, number int, title, body string) error
	// ClosePull closes one without merging it.
	ClosePull(ctx context.Context, number int) error
	// MergePull merges one if its head is still the commit that is named.
	MergePull(ctx context.Context, number int, m Merge) error
	// Reviews returns the last word of each reviewer of a head.
	Reviews(ctx context.Context, p forge.Pull) ([]forge.Review, error)
	// Comments returns the comments of a pull request, oldest first.
	Comments(ctx context.Context, number int) ([]forge.Comment, error)
	// AddComment and EditComment write one.
	AddComment(ctx context.Context, number int, body string) error
	EditComment(ctx context.Context, number int, id int64, body string) error
	// HeadRef is the reference of the repository that leads to a head, also to
	// one in a fork.
	HeadRef(number int) string
}

// Merge says how a pull request is to be merged.
type Merge struct {
	Head    string // the commit that was judged
	Method  Method
	Subject string // of the commit
	Message string // its body
}

// Method is the way in which a pull request becomes part of its base.
type Method string

// The methods.
const (
	MethodMerge  Method = "merge"
	MethodSquash Method = "squash"
	MethodRebase Method = "rebase"
)

// Methods are all of them.
var Methods = []Method{MethodMerge, MethodSquash, MethodRebase}

// New returns a client.
func New(o Options) (*Client, error) {
	if err := o.Kind.Check(); err != nil {
		return nil, err
	}
	if o.Kind == forge.Bitbucket {
		return nil, fmt.Errorf("nothing can be written to a forge of the kind %s; only its webhooks are taken", o.Kind)
	}
	public := map[forge.Kind]string{forge.GitHub: "https://api.github.com", forge.GitLab: "https://gitlab.com"}[o.Kind]
	base := strings.TrimRight(o.URL, "/")
	switch {
	case base == "" && public == "":
		return nil, fmt.Errorf("which %s? there is none that is everybody's; give its URL", o.Kind)
	case base == "":
		base = public
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the forge's URL is not http(s)://HOST, without user info and query")
	}
	owner, name, ok := strings.Cut(o.Repository, "/")
	if !ok || owner == "" || name == "" || strings.ContainsAny(o.Repository, "?#% \\") || strings.Contains("/"+o.Repository+"/", "/../") {
		return nil, fmt.Errorf("%q is not a repository; write OWNER/NAME", o.Repository)
	}
	t := &transport{http: o.HTTP, token: o.Token, kind: o.Kind, count: o.Count}
	if t.count == nil {
		t.count = func(Result) {}
	}
	if t.http == nil {
		t.http = http.DefaultClient
	}
	c := &Client{kind: o.Kind}
	switch o.Kind {
	case forge.GitHub:
		if u.Host != "api.github.com" && o.URL != "" {
			base += "/api/v3" // an Enterprise Server
			if u.Host == "github.com" {
				base = public
			}
		}
		t.base = base
		c.dialect = &github{hub{t, "/repos/" + o.Repository}}
	case forge.Gitea, forge.Forgejo:
		t.base = base + "/api/v1"
		c.dialect = &gitea{hub{t, "/repos/" + o.Repository}}
	case forge.GitLab:
		t.base = base + "/api/v4"
		c.dialect = &gitlab{t, "/projects/" + url.PathEscape(o.Repository)}
	}
	return c, nil
}

// The bounds of a conversation.
const (
	requestTime = 30 * time.Second
	maxAnswer   = 8 << 20
	pageSize    = 50 // Gitea's own bound
	mostPages   = 20
	// mostPagesBack is for what has to be looked for among all that ever was.
	mostPagesBack = 200
	// restAtLeast is for how long nothing is sent after "too many requests"
	// that does not say for how long.
	restAtLeast = time.Minute
	restAtMost  = time.Hour
)

// The errors that callers tell apart.
var (
	// ErrUnknown: the answer was lost; the request may have done its work.
	ErrUnknown = errors.New("the answer was lost")
	// ErrNotNow: the forge refuses for now what it may take later, as a merge
	// before a required status.
	ErrNotNow = errors.New("the forge does not take it now")
	// ErrConflict: what the request names is not as it says any more, or is
	// there already.
	ErrConflict = errors.New("it is otherwise by now")
	// ErrNotFound: there is no such thing, or the token may not see it.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the token is wrong, or may not do that.
	ErrDenied = errors.New("the token may not do that")
	// ErrResting: the forge has asked to be left alone for a while.
	ErrResting = errors.New("the forge asks to wait")
)

// transport sends requests and reads answers.
type transport struct {
	http  *http.Client
	token func() (string, error)
	kind  forge.Kind
	base  string
	count func(Result)

	mu   sync.Mutex // guards rest
	rest time.Time  // nothing is sent until then
}

// do sends one request. The body of the answer is decoded into answer, unless
// that is nil.
func (t *transport) do(ctx context.Context, method, path string, body, answer any) error {
	what := method + " " + strings.SplitN(path, "?", 2)[0]
	t.mu.Lock()
	rest := t.rest
	t.mu.Unlock()
	if wait := time.Until(rest); wait > 0 {
		return fmt.Errorf("%s: %w until %s", what, ErrResting, rest.UTC().Format(time.TimeOnly))
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	var sent io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		sent = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, t.base+path, sent)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r.Header.Set("User-Agent", "pinion")
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if t.kind == forge.GitHub {
		r.Header.Set("Accept", "application/vnd.github+json")
		r.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	}
	if t.token != nil {
		token, err := t.token()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	result := Failure
	defer func() { t.count(result) }()
	resp, err := t.http.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		if method != http.MethodGet && !unsent(err) {
			return fmt.Errorf("%s: %w: %w", what, ErrUnknown, err)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case resp.StatusCode/100 != 2:
		err := t.refused(resp, data)
		switch {
		case errors.Is(err, ErrResting):
			result = Limited
		case resp.StatusCode < 500:
			result = Refused
		}
		return fmt.Errorf("%s: %w", what, err)
	case err != nil && method != http.MethodGet:
		return fmt.Errorf("%s: %w: %w", what, ErrUnknown, err)
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case len(data) > maxAnswer:
		return fmt.Errorf("%s: the answer has more than %d MiB", what, maxAnswer>>20)
	case answer == nil:
		result = Success
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s: the answer can't be read: %w", what, err)
	}
	result = Success
	return nil
}

// unsent tells whether nobody can have got the request.
func unsent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// refused makes an error of an answer.
func (t *transport) refused(resp *http.Response, body []byte) error {
	said := saying(body)
	text := fmt.Sprintf("the forge answers %d", resp.StatusCode)
	if said != "" {
		text += ": " + said
	}
	kind := error(nil)
	limited := resp.StatusCode == http.StatusForbidden && (resp.Header.Get("X-Ratelimit-Remaining") == "0" || resp.Header.Get("Retry-After") != "")
	switch {
	case resp.StatusCode == http.StatusTooManyRequests || limited || resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		t.mu.Lock()
		t.rest = time.Now().Add(pauseOf(resp.Header, time.Now()))
		t.mu.Unlock()
		kind = ErrResting
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		kind = ErrDenied
	case resp.StatusCode == http.StatusNotFound:
		kind = ErrNotFound
	case resp.StatusCode == http.StatusConflict:
		kind = ErrConflict
	case resp.StatusCode == http.StatusMethodNotAllowed || resp.StatusCode == http.StatusNotAcceptable || resp.StatusCode == http.StatusLocked:
		kind = ErrNotNow
	case resp.StatusCode >= 500 && resp.Request != nil && resp.Request.Method != http.MethodGet:
		kind = ErrUnknown // a gateway that gave up may have handed it on
	}
	if kind == nil {
		return &statusError{resp.StatusCode, text}
	}
	return fmt.Errorf("%w: %w", &statusError{resp.StatusCode, text}, kind)
}

// statusError is an answer that is not 2xx.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// statusOf returns the status of an answer that was refused; 0: there was none.
func statusOf(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return 0
}

// pauseOf is for how long the forge wants to be left alone.
func pauseOf(h http.Header, now time.Time) time.Duration {
	wait := restAtLeast
	if s := h.Get("Retry-After"); s != "" {
		if n, err := strconv.Atoi(s); err == nil {
			wait = time.Duration(n) * time.Second
		} else if at, err := http.ParseTime(s); err == nil {
			wait = at.Sub(now)
		}
	} else {
		for _, name := range []string{"X-Ratelimit-Reset", "Ratelimit-Reset"} {
			if n, err := strconv.ParseInt(h.Get(name), 10, 64); err == nil {
				wait = time.Unix(n, 0).Sub(now)
			}
		}
	}
	return min(max(wait, time.Second), restAtMost)
}

// saying is what a forge says of an error, in one line.
func saying(body []byte) string {
	var said struct {
		Message any             `json:"message"`
		Error   any             `json:"error"`
		Errors  json.RawMessage `json:"errors"`
	}
	if json.Unmarshal(body, &said) != nil {
		return ""
	}
	var parts []string
	for _, v := range []any{said.Message, said.Error} {
		switch v := v.(type) {
		case nil:
		case string:
			parts = append(parts, v)
		default:
			data, _ := json.Marshal(v)
			parts = append(parts, string(data))
		}
	}
	if len(said.Errors) > 0 && string(said.Errors) != "null" {
		parts = append(parts, string(said.Errors))
	}
	return forge.Short(strings.Join(strings.Fields(strings.Join(parts, ": ")), " "))
}

// pages reads the pages of a list, until one is not full.
func pages[T any](ctx context.Context, t *transport, path, size string) ([]T, error) {
	var all []T
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	for n := 1; n <= mostPages; n++ {
		var page []T
		if err := t.do(ctx, http.MethodGet, fmt.Sprintf("%s%s%s=%d&page=%d", path, join, size, pageSize, n), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < pageSize {
			return all, nil
		}
	}
	return nil, fmt.Errorf("GET %s: there are more than %d", strings.SplitN(path, "?", 2)[0], mostPages*pageSize)
}

// newest returns the newest pull request of a branch of the repository itself.
func newest(all []forge.Pull, base, branch string) *forge.Pull {
	var last *forge.Pull
	for i, p := range all {
		if p.Branch == branch && p.Base == base && !p.Fork && (last == nil || p.Number > last.Number) {
			last = &all[i]
		}
	}
	return last
}
