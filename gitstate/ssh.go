package gitstate

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// dialSSH starts a git service on an ssh server. go-git's own ssh transport
// is not used: it reads the user's ssh configuration, falls back to an agent,
// and waits for ever for a server that accepts a connection and says nothing.
func dialSSH(ctx context.Context, ep *transport.Endpoint, auth Auth, service string) (*stream, error) {
	port := ep.Port
	if port <= 0 {
		port = 22
	}
	addr := net.JoinHostPort(strings.Trim(ep.Host, "[]"), strconv.Itoa(port))
	config, err := auth.sshConfig(ep, addr)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	fail := func(err error) (*stream, error) {
		stop()
		conn.Close()
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		if strings.Contains(err.Error(), "unable to authenticate") {
			err = fmt.Errorf("%w: %w; add the public key to the account that may read and write the repository", ErrAuthentication, err)
		}
		return fail(err)
	}
	client := ssh.NewClient(c, channels, requests)
	session, err := client.NewSession()
	if err != nil {
		return fail(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		return fail(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return fail(err)
	}
	messages := &tail{}
	session.Stderr = messages
	if err := session.Start(service + " " + shellQuote(ep.Path)); err != nil {
		return fail(err)
	}
	return &stream{in: in, out: out, messages: messages, wait: func() error {
		err := session.Wait()
		stop()
		client.Close()
		return err
	}, kill: func() {
		stop()
		client.Close()
	}}, nil
}

// shellQuote quotes as git does, for the shell or git-shell at the other end.
func shellQuote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// hostKeyCheck says in words what a refused host key means.
func hostKeyCheck(check ssh.HostKeyCallback, file string) ssh.HostKeyCallback {
	return func(host string, addr net.Addr, key ssh.PublicKey) error {
		err := check(host, addr, key)
		seen := fmt.Sprintf("%s %s", key.Type(), ssh.FingerprintSHA256(key))
		switch {
		case err == nil:
			return nil
		case knownhosts.IsHostKeyChanged(err):
			return fmt.Errorf("%w: the host key of %s is not the one in %s: somebody may be in between; the server showed %s; if it was really given a new key, put that in the file", ErrAuthentication, host, file, seen)
		case knownhosts.IsHostUnknown(err):
			return fmt.Errorf("%w: %s has no key of %s; the server showed %s; compare it with what the server's owner says, then add it", ErrAuthentication, file, host, seen)
		}
		return fmt.Errorf("%w: check the host key of %s: %w", ErrAuthentication, host, err)
	}
}
