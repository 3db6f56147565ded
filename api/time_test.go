package api

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are pipes within the process, so that their
// deadlines go by the test's clock.
type pipes struct{ server chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.server
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// servePipe serves operations that anybody may read, and returns a connection to it.
func servePipe(t *testing.T, more ...Operation) net.Conn {
	s, err := New(Options{Anonymous: true, More: more})
	if err != nil {
		t.Fatal(err)
	}
	s.Open(&Backend{})
	here, there := net.Pipe()
	p := pipes{make(chan net.Conn, 1)}
	p.server <- there
	h := &http.Server{Handler: s}
	go h.Serve(p)
	t.Cleanup(func() {
		here.Close()
		close(p.server)
		h.Close()
	})
	return here
}

func request(t *testing.T, c net.Conn, text string) {
	if _, err := io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// Who follows the events and does not read them is waited for no longer than patience
// for each write, and holds nothing afterwards.
func TestFollowerWhoDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		c := servePipe(t, Streaming(Operation{Path: "/api/v1/flood", ID: "flood", Scope: ScopeRead}, func(c *Call, s *Stream) (err error) {
			for err == nil {
				err = s.send("begin", "-", strings.Repeat("x", 1<<10))
			}
			ended <- err
			return err
		}))
		begun := time.Now()
		request(t, c, "GET /api/v1/flood HTTP/1.1\nHost: x")
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it ends with: %v", err)
			}
		case <-time.After(2 * patience):
			t.Error("it does not end")
		}
		if took := time.Since(begun); took != patience {
			t.Errorf("it was waited for %s", took)
		}
	})
}

// What can't be answered in time is said to be so; and so is to whom it takes too
// long to send a body.
func TestAnswerTime(t *testing.T) {
	answer := func(t *testing.T, c net.Conn) (status int, text string) {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		b.ReadFrom(resp.Body)
		return resp.StatusCode, b.String()
	}
	synctest.Test(t, func(t *testing.T) {
		c := servePipe(t, Reading(Operation{Path: "/api/v1/slow", ID: "slow", Scope: ScopeRead}, func(c *Call) (string, error) {
			<-c.Done()
			return "", c.Err()
		}))
		begun := time.Now()
		request(t, c, "GET /api/v1/slow HTTP/1.1\nHost: x")
		status, text := answer(t, c)
		if took := time.Since(begun); status != http.StatusServiceUnavailable || !strings.Contains(text, "could not be answered in time") || took != AnswerTime {
			t.Errorf("after %s: %d %s", took, status, text)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		type empty struct{}
		c := servePipe(t, Writing(Operation{Path: "/api/v1/write", ID: "write", Scope: ScopeRead}, nil, func(*Call, *empty) (string, error) { return "", nil }))
		begun := time.Now()
		request(t, c, "POST /api/v1/write HTTP/1.1\nHost: x\nContent-Length: 100")
		status, text := answer(t, c)
		if took := time.Since(begun); status != http.StatusBadRequest || !strings.Contains(text, "can't be read") || took != AnswerTime {
			t.Errorf("after %s: %d %s", took, status, text)
		}
	})
}
