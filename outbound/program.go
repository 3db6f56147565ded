package outbound

import (
	"context"
	"net"
	"net/url"
)

// Vet says whether another program may be started that will ask an address: a
// *ForbiddenError if the list does not admit it, and whatever the list says a
// *MetadataError if its host leads to credentials as it is looked up now. A name
// that can't be looked up is left to the program. A nil resolver is the system's.
func Vet(ctx context.Context, allow Allow, resolver *net.Resolver, u *url.URL) error {
	if err := allow.Check(u); err != nil {
		return err
	}
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	all, err := resolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return ctx.Err()
	}
	for _, a := range all {
		if isMetadata(a) {
			return &MetadataError{a.Unmap()}
		}
	}
	return nil
}
