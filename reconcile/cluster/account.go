package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Account is a service account in whose name requests are made. The zero
// Account is the one of the kubeconfig.
type Account struct {
	Namespace, Name string
}

// String returns the account's name as Kubernetes has it in its messages.
func (a Account) String() string { return "system:serviceaccount:" + a.Namespace + ":" + a.Name }

// accountAge is how long it is taken for granted that an account is there.
const accountAge = 30 * time.Second

// AccountError says that there is no such service account. Kubernetes would
// let us act in the name of one that does not exist.
type AccountError struct {
	Op      string
	Cluster string
	Account Account
}

func (e *AccountError) Error() string {
	s := fmt.Sprintf("namespace %s of cluster %s has no ServiceAccount %s, which the environment's serviceAccount: names; make it, or mend the environment's file",
		e.Account.Namespace, e.Cluster, e.Account.Name)
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	return s
}

// As returns the same cluster as another account sees it and may change it. It
// shares nothing with this one but the way there, the limits on requests, and
// Changes: it has watches of its own, and every request that it sends is made
// in the name of the account. It ends with this one.
func (c *Cluster) As(a Account) *Cluster {
	if a == (Account{}) {
		return c
	}
	if c.account != (Account{}) {
		return c.parent.As(a)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tenants[a] == nil {
		t, err := c.derive(&impersonation{account: a, cluster: c.config.Name, route: c.route, lock: make(chan struct{}, 1)})
		if err != nil {
			// The clients of this very configuration could be made before.
			panic("cluster: make a client a second time: " + err.Error())
		}
		t.account, t.parent, t.changes = a, c, c.changes
		c.tenants[a] = t
	}
	return c.tenants[a]
}

// Account returns in whose name requests are made.
func (c *Cluster) Account() Account { return c.account }

// impersonation sends requests in the name of an account.
type impersonation struct {
	account Account
	cluster string
	route   *route
	lock    chan struct{} // of capacity one; held while it is asked whether the account is there

	mu   sync.Mutex
	seen time.Time // guarded by mu; when the account was seen last
}

func (i *impersonation) RoundTrip(q *http.Request) (*http.Response, error) {
	if err := i.exists(q.Context()); err != nil {
		return nil, err
	}
	q = q.Clone(q.Context())
	for key := range q.Header {
		if strings.HasPrefix(key, "Impersonate-") {
			q.Header.Del(key)
		}
	}
	q.Header.Set("Impersonate-User", i.account.String()) // its groups follow from that
	return i.route.RoundTrip(q)
}

func (i *impersonation) fresh() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.seen.IsZero() && time.Since(i.seen) < accountAge
}

// exists sees to it that the account is there. The daemon's own account asks
// that, and nothing else for an environment that has an account.
func (i *impersonation) exists(ctx context.Context) error {
	if i.account.Name == "" || i.account.Namespace == "" {
		return &AccountError{Cluster: i.cluster, Account: i.account}
	}
	if i.fresh() {
		return nil
	}
	select {
	case i.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-i.lock }()
	if i.fresh() {
		return nil
	}
	var m metav1.PartialObjectMetadata
	err := get(ctx, i.route, i.route.host.JoinPath("api", "v1", "namespaces", i.account.Namespace, "serviceaccounts", i.account.Name).String(), &m)
	if apierrors.IsNotFound(err) {
		err = &AccountError{Cluster: i.cluster, Account: i.account}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.seen = time.Now(); err != nil {
		i.seen = time.Time{}
	}
	return err
}

// DeniedImpersonation says what our own account may not do and must be able
// to, in order to act in the name of an account; and whether that is there.
func (c *Cluster) DeniedImpersonation(ctx context.Context, a Account) ([]string, error) {
	if c.account != (Account{}) {
		c = c.parent
	}
	denied, err := c.deniedNamed(ctx, "", "serviceaccounts", a.Namespace, a.Name, "get", "impersonate")
	if err != nil || len(denied) > 0 {
		return denied, err
	}
	var m metav1.PartialObjectMetadata
	err = c.send(ctx, func(ctx context.Context) error {
		return get(ctx, c.route, c.route.host.JoinPath("api", "v1", "namespaces", a.Namespace, "serviceaccounts", a.Name).String(), &m)
	})
	if apierrors.IsNotFound(err) {
		return nil, &AccountError{Cluster: c.config.Name, Account: a}
	}
	return nil, classify(failure{op: "look for ServiceAccount " + a.Namespace + "/" + a.Name}, err)
}
