package gitstate

import (
	"context"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Access is what a remote lets us do.
type Access struct {
	// Push says that the remote has begun to serve a push with our
	// credentials. Whether a rule protects the branch, only a push can tell.
	Push bool
	// Refusal says why not, in the remote's words.
	Refusal string
}

// Probe asks a remote, without changing anything, whether it can be fetched
// from, which is an error if not, and pushed to.
func Probe(ctx context.Context, o Options) (Access, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	r, err := newRemote(o)
	if err != nil {
		return Access{}, err
	}
	if err := r.greet(ctx, "fetch from", transport.UploadPackServiceName); err != nil {
		return Access{}, err
	}
	if err := r.greet(ctx, "push to", transport.ReceivePackServiceName); err != nil {
		return Access{Refusal: err.Error()}, nil
	}
	return Access{Push: true}, nil
}

// greet starts a conversation with a service, and ends it.
func (r *remote) greet(ctx context.Context, op, service string) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	c, err := dial(ctx, r.ep, r.auth, service)
	if err != nil {
		return r.failed(ctx, op, nil, err)
	}
	defer c.close()
	if _, err := c.advertise(ctx); err != nil {
		return r.failed(ctx, op, c, err)
	}
	return nil
}
