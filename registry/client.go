package registry

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/time/rate"

	"github.com/pinion-cd/pinion/outbound"
)

const (
	// DefaultRate is how many requests one host gets in a second.
	DefaultRate = 10
	// The time that one question may take, with all that it leads to, and that a
	// list of tags may take with all its pages.
	askTime  = 30 * time.Second
	listTime = 2 * time.Minute

	maxPages     = 200
	maxTags      = 100_000
	maxReferrers = 1000
)

// Options say whom a client may ask, and how. The zero value asks nobody.
type Options struct {
	Allow outbound.Allow
	// Insecure are the hosts, with their ports, to which plain HTTP may be
	// spoken besides this machine.
	Insecure    []string
	Credentials Credentials
	Rate        float64        // requests to one host in a second; 0: DefaultRate
	RootCAs     *x509.CertPool // nil: the system's
	Agent       string         // the name by which the client goes; "": the library's
	// Count is told of each request, from any goroutine; nil: nobody counts.
	Count func(host string, r Result)
}

// Client reads registries. Its methods may be called at the same time.
// Repositories are named as in a reference to an image, without a tag.
type Client struct {
	options Options
	edge    *edge
	idle    func()

	mu     sync.Mutex // guards puller
	puller *remote.Puller
}

// New returns a client.
func New(o Options) *Client {
	if o.Rate <= 0 {
		o.Rate = DefaultRate
	}
	if o.Count == nil {
		o.Count = func(string, Result) {}
	}
	insecure := make([]string, len(o.Insecure))
	for i, h := range o.Insecure {
		insecure[i] = strings.ToLower(h)
	}
	o.Insecure = insecure
	base := outbound.NewClient(outbound.Options{Allow: o.Allow, KeepAlive: true, RootCAs: o.RootCAs, Timeout: -1})
	return &Client{options: o, idle: base.CloseIdleConnections, edge: &edge{next: base.Transport, insecure: insecure, rate: rate.Limit(o.Rate), count: o.Count,
		limiters: map[string]*rate.Limiter{}, busy: map[string]time.Time{}, kept: map[string]kept{}}}
}

// Close lets go of connections that nobody uses.
func (c *Client) Close() { c.idle() }

// Descriptor tells of a manifest or a blob.
type Descriptor struct {
	Digest       string
	MediaType    string
	ArtifactType string // of what refers to another one
	Size         int64
	Annotations  map[string]string
}

// Manifest is a manifest as it was read.
type Manifest struct {
	Descriptor
	Data []byte
}

// Tags returns all tags of a repository.
func (c *Client) Tags(ctx context.Context, repository string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	repo, err := c.repository(repository)
	if err != nil {
		return nil, err
	}
	var tags []string
	err = c.do("list the tags of "+repository, func(p *remote.Puller) error {
		tags = nil
		list, err := p.Lister(ctx, repo)
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for pages := 0; list.HasNext(); pages++ {
			page, err := list.Next(ctx)
			if err != nil {
				return err
			}
			tags = append(tags, page.Tags...)
			if pages >= maxPages || len(tags) > maxTags || seen[page.Next] {
				return fmt.Errorf("it has more than %d tags, on more than %d pages, or pages that lead back; publish its versions instead", maxTags, maxPages)
			}
			seen[page.Next] = page.Next != ""
		}
		return nil
	})
	return tags, err
}

// Head returns to what a tag, or a digest, leads. Without a digest in the
// registry's answer the manifest itself is read.
func (c *Client) Head(ctx context.Context, repository, reference string) (Descriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	ref, err := c.reference(repository, reference)
	if err != nil {
		return Descriptor{}, err
	}
	var d Descriptor
	err = c.do("look up "+show(repository, reference), func(p *remote.Puller) error {
		got, err := p.Head(ctx, ref)
		if err == nil {
			d = describe(*got)
			return nil
		}
		if refused(err) != nil || unanswered(err) {
			return err
		}
		whole, err := p.Get(ctx, ref)
		if err != nil {
			return err
		}
		d = describe(whole.Descriptor)
		d.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256(whole.Manifest)) // not the registry's word
		return nil
	})
	return d, err
}

// Manifest reads a manifest. One that is asked for by its digest has it.
func (c *Client) Manifest(ctx context.Context, repository, reference string) (Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	ref, err := c.reference(repository, reference)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	err = c.do("read "+show(repository, reference), func(p *remote.Puller) error {
		got, err := p.Get(ctx, ref)
		if err != nil {
			return err
		}
		m = Manifest{describe(got.Descriptor), got.Manifest}
		// The library takes a registry's word for the digest of what says that it
		// is of the first version of the format.
		if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(m.Data)); m.Digest != sum {
			return fmt.Errorf("its content has the digest %s, which does not match %s", sum, m.Digest)
		}
		return nil
	})
	if err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// Blob reads a blob that has a digest, and at most so many bytes.
func (c *Client) Blob(ctx context.Context, repository, digest string, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	ref, err := c.reference(repository, digest)
	if err != nil {
		return nil, err
	}
	by, ok := ref.(name.Digest)
	if !ok {
		return nil, fmt.Errorf("read a blob of %s: %.80q is not a digest", repository, digest)
	}
	var data []byte
	err = c.do("read "+show(repository, digest), func(p *remote.Puller) error {
		layer, err := p.Layer(ctx, by)
		if err != nil {
			return err
		}
		body, err := layer.Compressed() // the bytes as they are stored, whatever they are
		if err != nil {
			return err
		}
		defer body.Close()
		data, err = io.ReadAll(io.LimitReader(body, most+1))
		if err == nil && int64(len(data)) > most {
			err = fmt.Errorf("it has more than %d bytes", most)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Referrers returns what refers to a manifest: what the registry lists, or, if
// it does not list such things, what is under the tag that stands in for that.
func (c *Client) Referrers(ctx context.Context, repository, digest string) ([]Descriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	ref, err := c.reference(repository, digest)
	if err != nil {
		return nil, err
	}
	by, ok := ref.(name.Digest)
	if !ok {
		return nil, fmt.Errorf("look for what refers to %s: %.80q is not a digest", repository, digest)
	}
	var all []Descriptor
	err = c.do("look for what refers to "+show(repository, digest), func(p *remote.Puller) error {
		index, err := remote.Referrers(by, remote.WithContext(ctx), remote.Reuse(p))
		if err != nil {
			return err
		}
		m, err := index.IndexManifest()
		if err != nil {
			return err
		}
		if len(m.Manifests) > maxReferrers {
			return fmt.Errorf("more than %d refer to it", maxReferrers)
		}
		all = nil
		for _, d := range m.Manifests {
			all = append(all, describe(d))
		}
		return nil
	})
	return all, err
}

func describe(d v1.Descriptor) Descriptor {
	return Descriptor{Digest: d.Digest.String(), MediaType: string(d.MediaType), ArtifactType: d.ArtifactType, Size: d.Size, Annotations: d.Annotations}
}

// show names a manifest or a blob.
func show(repository, reference string) string {
	if strings.Contains(reference, ":") {
		return repository + "@" + reference
	}
	return repository + ":" + reference
}

func (c *Client) repository(s string) (name.Repository, error) {
	repo, err := name.NewRepository(s)
	if err == nil && slices.Contains(c.options.Insecure, strings.ToLower(repo.RegistryStr())) {
		repo, err = name.NewRepository(s, name.Insecure)
	}
	if err != nil {
		return repo, fmt.Errorf("%.200q is not a repository", s)
	}
	return repo, nil
}

func (c *Client) reference(repository, reference string) (name.Reference, error) {
	repo, err := c.repository(repository)
	if err != nil {
		return nil, err
	}
	var options []name.Option
	if repo.Scheme() == "http" {
		options = append(options, name.Insecure)
	}
	var ref name.Reference
	if strings.Contains(reference, ":") {
		ref, err = name.NewDigest(repository+"@"+reference, options...)
	} else {
		ref, err = name.NewTag(repository+":"+reference, options...)
	}
	if err != nil {
		return nil, fmt.Errorf("%.80q is neither a tag nor a digest", reference)
	}
	return ref, nil
}

// do asks, and once more with credentials that are read again if those that were
// read before are not taken any more.
func (c *Client) do(what string, ask func(*remote.Puller) error) error {
	p, fresh, err := c.open()
	if err != nil {
		return err
	}
	err = ask(p)
	if e := refused(err); e != nil && (e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden) {
		c.mu.Lock()
		if c.puller == p {
			c.puller = nil
		}
		c.mu.Unlock()
		if !fresh {
			if p, _, err = c.open(); err != nil {
				return err
			}
			err = ask(p)
		}
	}
	if err == nil {
		return nil
	}
	return &Error{what, cause(err), hostTrouble(err)}
}

// Error is about a question that was not answered.
type Error struct {
	what string
	err  error
	// Host: it is the whole host that does not answer, or wants to be left alone,
	// whatever it is asked.
	Host bool
}

func (e *Error) Error() string { return e.what + ": " + e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

func hostTrouble(err error) bool {
	_, busy := errors.AsType[*BusyError](err)
	_, reach := errors.AsType[*reachError](err)
	e := refused(err)
	return busy || reach || e != nil && e.StatusCode >= http.StatusInternalServerError || errors.Is(err, context.DeadlineExceeded)
}

// open returns what asks, and whether it was made just now.
func (c *Client) open() (*remote.Puller, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.puller != nil {
		return c.puller, false, nil
	}
	options := []remote.Option{
		remote.WithTransport(c.edge), remote.WithAuthFromKeychain(c.options.Credentials),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryPredicate(func(error) bool { return false }), remote.WithRetryStatusCodes(),
	}
	if c.options.Agent != "" {
		options = append(options, remote.WithUserAgent(c.options.Agent))
	}
	p, err := remote.NewPuller(options...)
	c.puller = p
	return p, true, err
}

// refused returns what a registry has answered in the place of what it was asked
// for; nil: it was something else.
func refused(err error) *transport.Error {
	e, _ := errors.AsType[*transport.Error](err)
	return e
}

// unanswered tells whether there is no use in asking in another way.
func unanswered(err error) bool {
	_, busy := errors.AsType[*BusyError](err)
	_, plain := errors.AsType[*plainError](err)
	return busy || plain || outbound.Forbidden(err) != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// StatusError is an answer of a registry that is not what it was asked for.
type StatusError struct {
	Status int
	said   string // one line
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("the registry answers %d %s", e.Status, http.StatusText(e.Status))
	if e.said != "" {
		text += ": " + e.said
	}
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		text += "; see registry.credentialsFile in the daemon's configuration"
	}
	return text
}

// NotFound tells whether an error says that there is no such thing.
func NotFound(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Status == http.StatusNotFound
}

// cause says why something could not be read, without an address that may hold
// a signature or a password.
func cause(err error) error {
	if busy, ok := errors.AsType[*BusyError](err); ok {
		return busy
	}
	if plain, ok := errors.AsType[*plainError](err); ok {
		return plain
	}
	if e := refused(err); e != nil {
		var said []string
		for _, d := range e.Errors {
			said = append(said, d.Message)
		}
		return &StatusError{e.StatusCode, line(strings.Join(said, "; "))}
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return errors.New("its answer is not that of a registry")
	}
	if reach, ok := errors.AsType[*reachError](err); ok {
		return outbound.Cause(reach.err)
	}
	err = outbound.Cause(err)
	if first, _, more := strings.Cut(err.Error(), "\n"); more { // what follows is quoted, and could be a token
		return errors.New(line(first))
	}
	return err
}

// line makes one line of what a stranger says.
func line(s string) string {
	const most = 200
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// Address is the host that is asked for the repositories of a registry: that of
// docker.io has another name.
func Address(host string) string {
	if host == "docker.io" {
		return name.DefaultRegistry
	}
	return host
}

// Known is the registry that has an address.
func Known(address string) string {
	if address == name.DefaultRegistry {
		return "docker.io"
	}
	return address
}
