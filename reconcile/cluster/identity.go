package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A cluster is known by the UID of this namespace, which lives as long as the
// cluster does.
const identityNamespace = "kube-system"

const (
	// proofAge is how long a proof holds, for who sends the requests on can
	// change its mind without a new connection.
	proofAge = time.Second
	// proofTimeout bounds the request that a proof is.
	proofTimeout = 10 * time.Second
	// mostProofs bounds how often a write is begun on connections that turn out
	// to be new.
	mostProofs = 20
)

// IdentityError says that a cluster is not, or can't show that it is, the one
// that is meant. Nothing is written to it.
type IdentityError struct {
	Cluster    string
	Want, Got  string // UIDs of the namespace kube-system; Got is empty if it can't be read
	Configured bool   // Want stands in the configuration
	Record     string // the file that remembers Want; may be empty
	Err        error  // why it can't be read
}

func (e *IdentityError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("cluster %s: nothing is written as long as it can't be seen to be cluster %s: read Namespace %s: %v", e.Cluster, e.Want, identityNamespace, e.Err)
	}
	s := fmt.Sprintf("cluster %s: nothing is written: this is cluster %s, and ", e.Cluster, e.Got)
	switch {
	case e.Configured:
		s += fmt.Sprintf("the configuration says identity: %s; mend the kubeconfig, or, if the other one is meant, write clusters.%s.identity: %s", e.Want, e.Cluster, e.Got)
	case e.Record != "":
		s += fmt.Sprintf("it was %s before; mend the kubeconfig, or, if the other one is meant, write clusters.%s.identity: %s into the configuration, or remove %s", e.Want, e.Cluster, e.Got, e.Record)
	default:
		s += fmt.Sprintf("it was %s when this process began; mend the kubeconfig, or, if the other one is meant, begin anew", e.Want)
	}
	return s
}

func (e *IdentityError) Unwrap() error { return e.Err }

// identity is which cluster is meant.
type identity struct {
	cluster string
	record  string // file that keeps want; "": nothing does
	logger  *slog.Logger

	configured bool // want stands in the configuration

	mu   sync.Mutex
	want string // guarded by mu; "": the first that is seen
	told bool   // guarded by mu; that nothing can be proved
}

// newIdentity returns what the configuration says, else what was recorded.
func newIdentity(c Config) (*identity, error) {
	i := &identity{cluster: c.Name, record: c.Record, logger: c.Logger, want: c.Identity, configured: c.Identity != ""}
	if i.configured || i.record == "" {
		return i, nil
	}
	data, err := os.ReadFile(i.record)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read which cluster %s was: %w", c.Name, err)
	}
	i.want = strings.TrimSpace(string(data))
	return i, nil
}

func (i *identity) expected() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.want
}

// judge takes in which cluster answered; the first one is kept in mind.
func (i *identity) judge(uid string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.want == uid {
		return nil
	}
	if i.want != "" {
		return &IdentityError{Cluster: i.cluster, Want: i.want, Got: uid, Configured: i.configured, Record: i.record}
	}
	i.want = uid
	if i.record == "" {
		return nil
	}
	if err := write(i.record, uid+"\n"); err != nil {
		i.logger.Error("it can't be recorded which cluster this is", "cluster", i.cluster, "error", err)
	}
	return nil
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// unreadable takes in that a cluster does not let us read who it is. That is an
// error only if something is known that it must be.
func (i *identity) unreadable(err error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.want != "" {
		return &IdentityError{Cluster: i.cluster, Want: i.want, Configured: i.configured, Record: i.record, Err: err}
	}
	if !i.told {
		i.told = true
		i.logger.Warn("it would not be noticed if the kubeconfig led to another cluster: our account may not get the namespace "+identityNamespace, "cluster", i.cluster, "error", err)
	}
	return nil
}

// proof is what a leg has shown of the cluster that it leads to.
type proof struct {
	lock chan struct{} // of capacity one; held while it is proved

	mu      sync.Mutex
	at      time.Time // guarded by mu; zero: never, or no more
	blind   bool      // guarded by mu; nothing can be proved, and nothing is expected
	refuted error     // guarded by mu; another cluster has answered
}

func (p *proof) holds(age time.Duration) (blind, ok bool, _ error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := !p.at.IsZero() && (age == 0 || time.Since(p.at) < age)
	return p.blind && fresh, fresh, p.refuted
}

func (p *proof) void() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = time.Time{}
}

// guard sends a request, and nothing that could write over a connection that
// has not been seen to lead to the right cluster.
func (r *route) guard(l *leg, q *http.Request) (*http.Response, error) {
	if q.Method == http.MethodGet || q.Method == http.MethodHead {
		_, proved, refuted := l.proof.holds(0)
		// What another cluster has says nothing of ours. Whether it still is
		// another one is asked again with the next look.
		if refuted != nil || !proved && r.identity.configured {
			if _, err := r.prove(q.Context(), l, 0); err != nil {
				return nil, err
			}
		}
		return l.transport.RoundTrip(q)
	}
	for n := 1; ; n++ {
		blind, err := r.prove(q.Context(), l, proofAge)
		if err != nil {
			return nil, err
		}
		if blind {
			return l.transport.RoundTrip(q)
		}
		strange := false // of the connection that was taken last
		var mu sync.Mutex
		try := q.WithContext(httptrace.WithClientTrace(q.Context(), &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) {
				c := l.conns.find(info.Conn)
				mu.Lock()
				defer mu.Unlock()
				if strange = c != nil && !c.proved.Load(); strange {
					c.cut.Store(true) // before the request is written
				}
			},
		}))
		if n > 1 && q.Body != nil {
			if q.GetBody == nil {
				return nil, errCut
			}
			if try.Body, err = q.GetBody(); err != nil {
				return nil, err
			}
		}
		answer, err := l.transport.RoundTrip(try)
		mu.Lock()
		new := strange
		mu.Unlock()
		if err == nil || !new || n == mostProofs {
			return answer, err
		}
		l.proof.void()
	}
}

// prove sees to it that the cluster has shown who it is, within the last age;
// 0: at any time. blind says that it can't, and that nothing is expected.
func (r *route) prove(ctx context.Context, l *leg, age time.Duration) (blind bool, _ error) {
	if blind, ok, refuted := l.proof.holds(age); ok && refuted == nil {
		return blind, nil
	}
	select {
	case l.proof.lock <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-l.proof.lock }()
	blind, ok, refuted := l.proof.holds(age)
	if ok && refuted == nil {
		return blind, nil
	}
	uid, c, err := r.ask(ctx, l)
	l.proof.mu.Lock()
	defer l.proof.mu.Unlock()
	l.proof.at, l.proof.blind = time.Time{}, false
	switch {
	case err == nil:
		l.proof.refuted = nil
		if err := r.identity.judge(uid); err != nil {
			l.proof.refuted = err
			return false, err
		}
		if c != nil {
			c.proved.Store(true)
		}
	case apierrors.IsForbidden(err) || apierrors.IsNotFound(err):
		if err := r.identity.unreadable(err); err != nil {
			return false, err
		}
		l.proof.blind, l.proof.refuted = true, nil
	default:
		return false, err
	}
	l.proof.at = time.Now()
	return l.proof.blind, nil
}

// ask reads the cluster's identity, and says over which connection.
func (r *route) ask(ctx context.Context, l *leg) (uid string, c *conn, _ error) {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	var mu sync.Mutex
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		mu.Lock()
		defer mu.Unlock()
		c = l.conns.find(info.Conn)
	}})
	r.requests.add("identity")
	var m metav1.PartialObjectMetadata
	err := get(ctx, l.transport, l.base.JoinPath("api", "v1", "namespaces", identityNamespace).String(), &m)
	mu.Lock()
	defer mu.Unlock()
	if err == nil && m.UID == "" {
		err = errors.New("the API server's answer is not a namespace")
	}
	return string(m.UID), c, err
}

// get reads the metadata of an object; what the API server refuses is an
// [apierrors.APIStatus].
func get(ctx context.Context, transport http.RoundTripper, address string, into *metav1.PartialObjectMetadata) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	q.Header.Set("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json")
	answer, err := transport.RoundTrip(q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode == http.StatusOK {
		return json.Unmarshal(body, into)
	}
	var status metav1.Status
	if json.Unmarshal(body, &status) != nil || status.Kind != "Status" {
		// What a proxy answers is about no object.
		return apierrors.NewGenericServerResponse(max(answer.StatusCode, 500), "get", metav1.SchemeGroupVersion.WithResource("").GroupResource(), "", answer.Status, 0, true)
	}
	return &apierrors.StatusError{ErrStatus: status}
}

// Identity returns the UID of the namespace kube-system, by which a cluster is
// known, and the one that is expected of it; "" if any is.
func (c *Cluster) Identity(ctx context.Context) (uid, expected string, err error) {
	l, err := c.route.present()
	if err != nil {
		return "", "", err
	}
	uid, _, err = c.route.ask(ctx, l)
	return uid, c.route.identity.expected(), classify(failure{op: "ask cluster " + c.config.Name + " who it is"}, err)
}
