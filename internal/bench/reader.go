package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// reader asks over one connection that it keeps. It makes no request while it is
// measured, and looks at no more of an answer than where it ends, for what a client
// costs is taken from the daemon on the same cores.
type reader struct {
	conn net.Conn
	in   *bufio.Reader
}

// question is a request as it goes over the wire.
type question struct {
	path string
	wire []byte
}

func asking(address, path string) question {
	return question{path, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, address, benchToken)}
}

// ask sends a request, and reads the answer to its end.
func (r *reader) ask(q question) (size int, err error) {
	if _, err := r.conn.Write(q.wire); err != nil {
		return 0, err
	}
	line, err := r.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("%s: the answer begins with %q", q.path, line)
	}
	status := string(line[len("HTTP/1.1 "):len("HTTP/1.1 200")])
	size = -1
	for {
		if line, err = r.in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) <= len("\r\n") {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	if size < 0 {
		return 0, fmt.Errorf("%s: the answer does not say how long it is", q.path)
	}
	if status != strconv.Itoa(http.StatusOK) {
		said, _ := r.in.Peek(min(size, 300))
		return 0, fmt.Errorf("%s: %s %s", q.path, status, said)
	}
	_, err = r.in.Discard(size)
	return size, err
}

// readings is what readers have seen, by the kind of question.
type readings struct {
	took  [][]float64 // how long each answer took
	sizes [][]float64
	// others is the share of the cores that neither the server nor the readers had,
	// and that was not idle.
	others float64
}

// readSideBySide has all readers put the questions of each kind in turn. With a rate
// they do so together so many times a second, and an answer takes as long as it comes
// after its question was due; with 0 each asks again as soon as it has its answer.
func readSideBySide(ctx context.Context, server *daemon, kinds [][]question, rate int) (all readings, err error) {
	ctx, cancel := context.WithTimeout(ctx, readFor+time.Minute)
	defer cancel()
	before := takenBy(server)
	seen := make([]readings, readers)
	failures := make([]error, readers)
	var wait sync.WaitGroup
	begun := time.Now()
	for i := range readers {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", server.address)
		if err != nil {
			return all, err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		r := reader{conn, bufio.NewReaderSize(conn, 64<<10)}
		s := &seen[i]
		*s = newReadings(len(kinds), 2000)
		wait.Go(func() {
			for n := i; failures[i] == nil; n += readers {
				due := time.Now()
				if rate > 0 {
					due = begun.Add(time.Duration(n) * time.Second / time.Duration(rate))
					time.Sleep(time.Until(due))
				}
				if due.Sub(begun) > readFor {
					return
				}
				k := n % len(kinds)
				size, err := r.ask(kinds[k][n/len(kinds)%len(kinds[k])])
				s.took[k], s.sizes[k] = append(s.took[k], time.Since(due).Seconds()), append(s.sizes[k], float64(size))
				failures[i] = err
			}
		})
	}
	wait.Wait()
	others := before.others(takenBy(server))
	all = newReadings(len(kinds), 0)
	all.others = others
	for _, s := range seen {
		for k := range kinds {
			all.took[k], all.sizes[k] = append(all.took[k], s.took[k]...), append(all.sizes[k], s.sizes[k]...)
		}
	}
	return all, errors.Join(failures...)
}

// newReadings returns readings with room for so many of each kind.
func newReadings(kinds, room int) readings {
	r := readings{took: make([][]float64, kinds), sizes: make([][]float64, kinds)}
	for k := range kinds {
		r.took[k], r.sizes[k] = make([]float64, 0, room), make([]float64, 0, room)
	}
	return r
}

// taken is time of all cores together.
type taken struct{ all, idle, ours time.Duration }

// others is the share of the cores since then that neither the server nor the readers
// had, and that was not idle. The system counts in ticks, so it can't be quite right.
func (t taken) others(now taken) float64 {
	return max(0, 1-(now.idle-t.idle+now.ours-t.ours).Seconds()/(now.all-t.all).Seconds())
}

// takenBy tells how much time of the cores a server and the readers have had.
func takenBy(server *daemon) (t taken) {
	data, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(data), "\n")
	for i, f := range strings.Fields(line)[1:] { // user, nice, system, idle, iowait, irq, softirq, steal, and parts of user
		n, _ := strconv.Atoi(f)
		spent := time.Duration(n) * 10 * time.Millisecond
		if i < 8 {
			t.all += spent
		}
		if i == 3 || i == 4 {
			t.idle += spent
		}
	}
	t.ours = cpuTime(server.cmd.Process.Pid) + cpuTime(os.Getpid())
	return t
}
