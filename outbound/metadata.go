package outbound

import (
	"fmt"
	"net/netip"
)

// MetadataError says that a connection was not made, for it could give away
// credentials of the machine.
type MetadataError struct{ Address netip.Addr }

func (e *MetadataError) Error() string {
	return fmt.Sprintf("%s is an address at which clouds hand out credentials, and is never asked", e.Address)
}

// metadata are the addresses at which a cloud tells a machine its credentials:
// those of a link, and those that some clouds have put elsewhere (AWS's,
// Google's, Oracle's and Scaleway's for IPv6; Azure's, Alibaba's, Oracle's).
var metadata = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("fd20:ce::/32"),
	netip.MustParsePrefix("fd00:c1::/32"), netip.MustParsePrefix("fd00:42::42/128"),
	netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("192.0.0.192/32"),
}

// embedding are the prefixes of IPv6 addresses that lead to an IPv4 address,
// and at which byte that one is: compatible (RFC 4291), NAT64 (RFC 6052, and for
// networks of one's own RFC 8215), 6to4 (RFC 3056).
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

func isMetadata(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, e := range embedding {
		if e.prefix.Contains(a) {
			b := a.As16()
			if isMetadata(netip.AddrFrom4([4]byte(b[e.at:]))) {
				return true
			}
		}
	}
	for _, p := range metadata {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
