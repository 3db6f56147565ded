package outbound

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// Allow is a list of hosts that may be asked. The zero value admits none.
type Allow struct {
	any     bool
	entries []entry
}

// entry admits one host, all below a domain, or the addresses of a network.
type entry struct {
	host   string // in lower case; of a domain with the dot before it
	port   string // "": all
	prefix netip.Prefix
}

// Any admits all hosts: for addresses that the operator wrote down.
func Any() Allow { return Allow{any: true} }

var (
	hostForm = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([-a-z0-9_.]*[a-z0-9_])?$`)
	portForm = regexp.MustCompile(`^[0-9]{1,5}$`)
)

// ParseAllow reads a list: "*", a host, a domain as in "*.shop.example", or a
// network as in "10.0.0.0/8", for addresses that are written as numbers. A host
// or a domain may have a port: "status.shop.example:8443".
func ParseAllow(list []string) (Allow, error) {
	var a Allow
	for _, text := range list {
		if text == "*" {
			a.any = true
			continue
		}
		e, err := parseEntry(text)
		if err != nil {
			return Allow{}, err
		}
		a.entries = append(a.entries, e)
	}
	return a, nil
}

func parseEntry(text string) (entry, error) {
	wrong := fmt.Errorf(`%q is not a host; write a name (status.shop.example), a domain (*.shop.example), each with a port if only that is meant (:8443), a network (10.0.0.0/8), or "*" for all`, text)
	if p, err := netip.ParsePrefix(text); err == nil {
		if p.Addr().Is4In6() {
			return entry{}, fmt.Errorf("%q is a network of IPv4 written as IPv6; write it as in 10.0.0.0/8", text)
		}
		return entry{prefix: p.Masked()}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return entry{host: a.Unmap().String()}, nil
	}
	host, port := strings.ToLower(text), ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host, port = host[:i], host[i+1:]
		if !portForm.MatchString(port) {
			return entry{}, wrong
		}
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return entry{host: a.Unmap().String(), port: port}, nil
	}
	if !hostForm.MatchString(host) {
		return entry{}, wrong
	}
	return entry{host: strings.TrimPrefix(host, "*"), port: port}, nil
}

// ForbiddenError is about an address that no list admits.
type ForbiddenError struct {
	Host string // as one would write it into the list
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("%s is not asked, for the daemon's operator does not list it; have it added to outbound.allow in the daemon's configuration", e.Host)
}

// Check returns a *ForbiddenError if the list does not admit an address.
func (a Allow) Check(u *url.URL) error {
	if a.any {
		return nil
	}
	host, port := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), u.Port()
	number, err := netip.ParseAddr(host)
	if err == nil {
		number = number.Unmap().WithZone("")
		host = number.String()
	}
	explicit := port
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	for _, e := range a.entries {
		switch {
		case e.port != "" && e.port != port:
		case e.prefix.IsValid():
			if number.IsValid() && e.prefix.Contains(number) {
				return nil
			}
		case strings.HasPrefix(e.host, "."):
			if strings.HasSuffix(host, e.host) && !number.IsValid() {
				return nil
			}
		case e.host == host:
			return nil
		}
	}
	shown := host
	if number.IsValid() && number.Is6() {
		shown = "[" + host + "]"
	}
	if explicit != "" {
		shown += ":" + explicit
	}
	return &ForbiddenError{Host: shown}
}
