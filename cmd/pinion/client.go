package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pinion-cd/pinion/api"
	"github.com/spf13/pflag"
)

// exitCodeOf is what a command ends with that has met a problem.
func exitCodeOf(p *api.Problem) int {
	switch {
	case p.Status == http.StatusUnauthorized, p.Status == http.StatusForbidden:
		return exitDenied
	case p.Code == api.NotCurrent, p.Code == api.Decided, p.Code == api.NotTracked:
		return exitDifferent
	}
	return exitFailed
}

// client asks the daemon: the flags of each command that does.
type client struct {
	server, tokenFile string
	insecure          bool
	timeout           time.Duration
}

const defaultServer = "http://127.0.0.1:8080"

func (c *client) flags(f *pflag.FlagSet) {
	f.StringVar(&c.server, "server", "", "the daemon's address (default: PINION_SERVER, or "+defaultServer+")")
	f.StringVar(&c.tokenFile, "token-file", "", "file that holds the token (default: the token in PINION_TOKEN)")
	f.BoolVar(&c.insecure, "insecure", false, "send the token over http, readable on its way, to another machine")
	f.DurationVar(&c.timeout, "timeout", time.Minute, "how long to try")
}

// clientHelp is what the commands that ask the daemon have in common.
const clientHelp = `It asks the daemon, and ends when the record has been pushed. While the daemon can't
be reached, or if its answer is lost, it is asked again until --timeout; what is
recorded already is not recorded twice.

Exit code 1 if that version is not the current one, so that nothing moves, or if
another result is there already; 4 if the token does not allow it.`

// endpoint returns the address to ask and the token to send.
func (c *client) endpoint(path string) (address, token string, err error) {
	server := c.server
	if server == "" {
		server = os.Getenv("PINION_SERVER")
	}
	if server == "" {
		server = defaultServer
	}
	u, err := url.Parse(server)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		// The parser's error repeats the address, which may hold a password.
		return "", "", errors.New("the daemon's address is not http://HOST or https://HOST; see --server and PINION_SERVER")
	case u.User != nil:
		return "", "", errors.New("the daemon's address holds credentials, which would not be used; remove what is before the @, and give --token-file")
	}
	if token = os.Getenv("PINION_TOKEN"); c.tokenFile != "" {
		if token, err = secret(c.tokenFile); err != nil {
			return "", "", fmt.Errorf("%w; see --token-file", err)
		}
	}
	token = strings.TrimSpace(token)
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return "", "", errors.New("the token has characters that no token has; see --token-file and PINION_TOKEN")
		}
	}
	if token != "" && u.Scheme == "http" && !loopback(u.Hostname()) && !c.insecure {
		return "", "", fmt.Errorf("over http, all on the way to %s can read the token, so it is not sent; use https, or give --insecure if the way is safe", u.Host)
	}
	if c.timeout <= 0 {
		return "", "", fmt.Errorf("--timeout %s is no time at all; give more", c.timeout)
	}
	return u.JoinPath(path).String(), token, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// The pace of asking again.
const (
	firstPause = 200 * time.Millisecond
	mostPause  = 5 * time.Second
	mostAnswer = 1 << 20
)

// post has something written, and asks until there is an answer.
func (c *client) post(ctx context.Context, path string, request any) (*api.Receipt, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r := &api.Receipt{}
	err = c.ask(ctx, question{method: http.MethodPost, path: path, body: body}, func(data []byte) bool {
		return json.Unmarshal(data, r) == nil && r.Recorded != ""
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// get asks until there is an answer.
func (c *client) get(ctx context.Context, path string, query url.Values, answer any) error {
	return c.ask(ctx, question{method: http.MethodGet, path: path, query: query}, func(data []byte) bool { return json.Unmarshal(data, answer) == nil })
}

// question is a request. The address and the token are the client's.
type question struct {
	method, path   string
	query          url.Values
	body           []byte
	address, token string
}

// ask asks until there is an answer. take tells whether it is a daemon's.
func (c *client) ask(ctx context.Context, q question, take func([]byte) bool) (err error) {
	if q.address, q.token, err = c.endpoint(q.path); err != nil {
		return err
	}
	address := q.address
	if len(q.query) > 0 {
		q.address += "?" + q.query.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	caller := &http.Client{
		// A redirect could lead the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var last error
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		data, after, err := q.send(ctx, caller)
		if err == nil && !take(data) {
			err = fmt.Errorf("what %s answers is not of a Pinion daemon; see --server", address)
		}
		if err == nil {
			return nil
		}
		var again *passing
		if ctx.Err() == nil && !errors.As(err, &again) {
			return err
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-time.After(max(pause, after)):
		case <-ctx.Done():
		}
		switch {
		case ctx.Err() == nil:
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return &exitError{exitTimeout, fmt.Errorf("no answer within %s: %w; see whether the daemon runs there, or give another --server or a longer --timeout", c.timeout, last)}
		default:
			return ctx.Err()
		}
	}
}

// passing is an error after which it is worth asking again.
type passing struct{ err error }

func (e *passing) Error() string { return e.err.Error() }
func (e *passing) Unwrap() error { return e.err }

// send asks once. after is how long the server wants to be left alone.
func (q question) send(ctx context.Context, caller *http.Client) (data []byte, after time.Duration, err error) {
	address, token := q.address, q.token
	req, err := http.NewRequestWithContext(ctx, q.method, address, bytes.NewReader(q.body))
	if err != nil {
		return nil, 0, err
	}
	if q.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := caller.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = fmt.Errorf("ask %s: %w", address, u.Err)
		}
		if lost(err) {
			return nil, 0, &passing{err}
		}
		return nil, 0, err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return nil, 0, &passing{fmt.Errorf("read the answer of %s: %w", address, err)}
	}
	if resp.StatusCode == http.StatusOK {
		return data, 0, nil
	}
	p := &api.Problem{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "application/problem+json" {
		if json.Unmarshal(data, p) != nil {
			p.Detail = ""
		}
		p.Status = resp.StatusCode
	} else if resp.StatusCode == http.StatusNotFound {
		p.Detail = fmt.Sprintf("%s is not there; see whether --server is the address of a Pinion daemon", address)
	} else if to := resp.Header.Get("Location"); resp.StatusCode/100 == 3 && to != "" {
		p.Detail = fmt.Sprintf("%s redirects, and is not followed with a token; give the address that it redirects to with --server", address)
	}
	err = &exitError{exitCodeOf(p), p}
	switch resp.StatusCode {
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusTooManyRequests:
		if s, convErr := strconv.Atoi(resp.Header.Get("Retry-After")); convErr == nil && s > 0 {
			after = min(time.Duration(s)*time.Second, time.Minute)
		}
		return nil, after, &passing{err}
	}
	return nil, 0, err
}

// lost tells whether the daemon was not there, or went away before it had
// answered.
func lost(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// writeReceipt writes what was recorded.
func (g *globals) writeReceipt(format string, r *api.Receipt) error {
	if format == "json" {
		if err := g.writeJSON(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(g.out, "recorded in %s: %s\n", printable(r.Branch), printable(r.Recorded))
	}
	if r.Message != "" {
		fmt.Fprintln(g.err, printable(r.Message))
	}
	if r.Late {
		return &exitError{code: exitDifferent}
	}
	return nil
}
