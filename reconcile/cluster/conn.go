package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// dialer makes connections, as client-go does by default.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

var plainDialer = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext

// conns knows the open connections of one reading of a kubeconfig, and which of
// them have been seen to lead to the right cluster.
type conns struct {
	dial dialer

	mu     sync.Mutex
	open   map[string]*conn // guarded by mu; by its addresses
	closed bool             // guarded by mu
}

// conn is one connection. It is known by its two addresses, for TLS and others
// wrap it.
type conn struct {
	net.Conn
	of     *conns
	key    string
	proved atomic.Bool
	cut    atomic.Bool
}

var errCut = errors.New("the connection was cut before anything was written: it is not known where it leads")

func (c *conn) Write(b []byte) (int, error) {
	if c.cut.Load() {
		return 0, errCut
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	if c.of.open[c.key] == c {
		delete(c.of.open, c.key)
	}
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func addressesOf(c net.Conn) string { return c.LocalAddr().String() + " " + c.RemoteAddr().String() }

// DialContext makes a connection of which nothing is proved yet.
func (s *conns) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n, err := s.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: n, of: s, key: addressesOf(n)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		n.Close()
		return nil, errors.New("the kubeconfig has changed")
	}
	s.open[c.key] = c
	return c, nil
}

func (s *conns) find(n net.Conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[addressesOf(n)]
}

// end closes all connections, so that what uses them begins anew elsewhere.
func (s *conns) end() {
	s.mu.Lock()
	all := s.open
	s.open, s.closed = map[string]*conn{}, true
	s.mu.Unlock()
	for _, c := range all {
		c.Conn.Close()
	}
}
