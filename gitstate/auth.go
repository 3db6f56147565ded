package gitstate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// Auth says how we prove who we are, and whom we believe. Nothing is ever
// taken from an agent, a home folder, an ssh configuration or a credential
// helper. The files are read again for each connection, so that a mounted
// secret may be rotated under a running daemon.
type Auth struct {
	// Username and Password are for http(s), and for ssh servers that take a
	// password. What a URL itself says comes second to them.
	Username string
	Password string
	// Token is for http(s): the password of Username, or of "x-access-token"
	// if that is empty. TokenFile is a file with the same.
	Token     string
	TokenFile string
	// CAFile is a PEM file of certificates that https trusts besides those of
	// the system.
	CAFile string
	// KeyFile is an ssh private key, KeyPassphrase what it is encrypted with.
	KeyFile       string
	KeyPassphrase string
	// KnownHostsFile holds the host keys that ssh accepts, in the format of
	// OpenSSH. There is no way to accept any key.
	KnownHostsFile string
}

// secrets are the texts that must not get into a message.
func (a Auth) secrets(ep *transport.Endpoint) []string {
	var list []string
	for _, s := range []string{a.Password, a.Token, a.KeyPassphrase, ep.Password} {
		if len(s) >= 4 { // shorter ones would only garble the text
			list = append(list, s, url.QueryEscape(s), url.PathEscape(s))
		}
	}
	return list
}

// basic is the user and the password for http(s); nil if there is none.
func (a Auth) basic(ep *transport.Endpoint) (*githttp.BasicAuth, error) {
	user, password := a.Username, a.Password
	token := a.Token
	if a.TokenFile != "" {
		data, err := os.ReadFile(a.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
		token = strings.TrimSpace(string(data))
		if token == "" {
			return nil, fmt.Errorf("read the token: %s is empty", a.TokenFile)
		}
	}
	if token != "" {
		password = token
		if user == "" {
			user = "x-access-token"
		}
	}
	if user == "" && password == "" {
		user, password = ep.User, ep.Password
	}
	if user == "" && password == "" {
		return nil, nil
	}
	return &githttp.BasicAuth{Username: user, Password: password}, nil
}

// httpClient is a client of our own, so that nothing is shared with the rest
// of the process.
func (a Auth) httpClient() (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true // sessions are minutes apart
	if a.CAFile != "" {
		pem, err := os.ReadFile(a.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificates: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the certificates: %s holds none in PEM form", a.CAFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t}, nil
}

// sshConfig is what an ssh connection to addr (host:port) needs.
func (a Auth) sshConfig(ep *transport.Endpoint, addr string) (*ssh.ClientConfig, error) {
	config := &ssh.ClientConfig{User: ep.User}
	if config.User == "" {
		config.User = a.Username
	}
	if config.User == "" {
		config.User = "git"
	}
	if a.KnownHostsFile == "" {
		return nil, fmt.Errorf("ssh needs a file of known host keys: there is none to check %s against", addr)
	}
	hosts, err := knownhosts.NewDB(a.KnownHostsFile)
	if err != nil {
		return nil, fmt.Errorf("read the known host keys: %w", err)
	}
	check := hosts.HostKeyCallback()
	config.HostKeyCallback = hostKeyCheck(check, a.KnownHostsFile)
	config.HostKeyAlgorithms = hosts.HostKeyAlgorithms(addr)
	if a.KeyFile != "" {
		pem, err := os.ReadFile(a.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the ssh key: %w", err)
		}
		signer, err := ssh.ParsePrivateKey(pem)
		if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
			if a.KeyPassphrase == "" {
				return nil, fmt.Errorf("read the ssh key: %s is encrypted, and no passphrase was given", a.KeyFile)
			}
			signer, err = ssh.ParsePrivateKeyWithPassphrase(pem, []byte(a.KeyPassphrase))
		}
		if err != nil {
			return nil, fmt.Errorf("read the ssh key %s: %w", a.KeyFile, err)
		}
		config.Auth = append(config.Auth, ssh.PublicKeys(signer))
	}
	password := a.Password
	if password == "" {
		password = ep.Password
	}
	if password != "" {
		config.Auth = append(config.Auth, ssh.Password(password))
	}
	if len(config.Auth) == 0 {
		return nil, fmt.Errorf("ssh needs a key file or a password for %s@%s", config.User, addr)
	}
	return config, nil
}

// explained says what an error of authentication means and what to do.
func (a Auth) explained(ctx context.Context, err error) error {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired):
		return fmt.Errorf("%w: the server wants other credentials (or hides that the repository does not exist); check the user, the password or the token", ErrAuthentication)
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("%w: the server knows us and does not allow it; give the account the right to this repository", ErrAuthentication)
	case errors.As(err, &cert):
		return fmt.Errorf("%w: %w; if the certificate is meant, add its authority to the CA file", ErrAuthentication, err)
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("%w; check the URL, and that the account may see it", err)
	}
	return cause(ctx, err)
}
