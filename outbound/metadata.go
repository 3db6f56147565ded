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
// those of a link, and those that some clouds have put elsewhere (AWS's and
// Google's for IPv6, Azure's, Alibaba's).
var metadata = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("fd20:ce::/32"),
	netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("100.100.100.200/32"),
}

// nat64 and mapped addresses stand for an IPv4 address (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func isMetadata(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, p := range metadata {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
