package outbound

import (
	"context"
	"errors"
	"net"
	"net/url"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// names is a resolver that knows one name.
func names(t *testing.T, name string, address [4]byte) *net.Resolver {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			m.Response = true
			q := m.Questions[0]
			switch {
			case q.Name.String() != name:
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}, Body: &dnsmessage.AResource{A: address}}}
			}
			m.Additionals = nil
			if answer, err := m.Pack(); err == nil {
				c.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", c.LocalAddr().String())
	}}
}

// A program that would ask an address is vetted by the list, and by what the name
// leads to.
func TestVet(t *testing.T) {
	vault, err := ParseAllow([]string{"vault.example", "other.example"})
	if err != nil {
		t.Fatal(err)
	}
	good, bad := names(t, "vault.example.", [4]byte{10, 0, 0, 7}), names(t, "vault.example.", [4]byte{169, 254, 169, 254})
	for name, c := range map[string]struct {
		allow             Allow
		resolver          *net.Resolver
		address           string
		forbidden, secret bool
	}{
		"listed":                             {vault, good, "https://vault.example:8200", false, false},
		"not listed":                         {Allow{}, good, "https://vault.example:8200", true, false},
		"listed, and leads to credentials":   {vault, bad, "https://vault.example:8200", false, true},
		"all are, and leads to credentials":  {Any(), bad, "https://vault.example:8200", false, true},
		"all are, and its number is theirs":  {Any(), good, "http://[::ffff:169.254.169.254]/", false, true},
		"a name that nobody knows is let be": {vault, good, "https://other.example", false, false},
	} {
		u, err := url.Parse(c.address)
		if err != nil {
			t.Fatal(err)
		}
		err = Vet(t.Context(), c.allow, c.resolver, u)
		_, forbidden := errors.AsType[*ForbiddenError](err)
		_, secret := errors.AsType[*MetadataError](err)
		if forbidden != c.forbidden || secret != c.secret || err != nil && !forbidden && !secret {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Vet(ctx, vault, good, &url.URL{Scheme: "https", Host: "vault.example"}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end it says %v", err)
	}
}
