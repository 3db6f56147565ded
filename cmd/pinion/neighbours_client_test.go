package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// pace is how often a client of TestNeighboursChaos does something.
const pace = 250 * time.Millisecond

// request is a write that was asked for. Its mark stands in the commit's message.
type request struct {
	what   string
	sure   bool   // it was acknowledged
	commit string // as it was said, if it was
	branch string
}

// mark makes a mark for a write.
func (x *neighbours) mark(what string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.marks++
	m := fmt.Sprintf("chaos-%d-", x.marks)
	x.asked[m] = request{what: what}
	return m
}

func (x *neighbours) acknowledge(mark, branch, commit string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked[mark] = request{x.asked[mark].what, true, commit, branch}
}

// acknowledged counts what was acknowledged.
func (x *neighbours) acknowledged() map[string]int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := map[string]int{}
	for _, a := range x.asked {
		if a.sure {
			n[a.what]++
		}
	}
	return n
}

// insist sends a request until it is answered: by success, or by a refusal that
// would be the same another time.
func (x *neighbours) insist(ctx context.Context, who, method, path string, body any) (status int, answer map[string]any) {
	data, err := json.Marshal(body)
	x.must(err)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if status, answer = x.try(ctx, who, method, path, data); status != 0 && status < 500 && status != http.StatusTooManyRequests {
			return status, answer
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return 0, nil
}

// try sends a request once; status 0: there was no answer.
func (x *neighbours) try(ctx context.Context, who, method, path string, body []byte) (status int, answer map[string]any) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+x.address.Load().(string)+"/api/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil
	}
	r.Header.Set("Authorization", "Bearer "+who+"-token")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || json.Unmarshal(data, &answer) != nil {
		return 0, nil
	}
	return resp.StatusCode, answer
}

// paced calls f again and again.
func paced(ctx context.Context, f func(n int)) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f(n)
		}
	}
}

// items are those of a list, and a text of one.
func items(answer map[string]any) []map[string]any {
	var all []map[string]any
	list, _ := answer["items"].([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		all = append(all, m)
	}
	return all
}

func word(m map[string]any, key string) string { s, _ := m[key].(string); return s }

// reports is CI, which tests what has come to staging. A few versions fail.
func (x *neighbours) reports(ctx context.Context) {
	told := map[string]bool{}
	paced(ctx, func(int) {
		_, list := x.insist(ctx, "ci", "GET", "deployments?environment=staging&state=completed", nil)
		for _, d := range items(list) {
			id := word(d, "id")
			if told[id] {
				continue
			}
			mark, status := x.mark("report"), "success"
			if len(told)%8 == 7 && !strings.Contains(fmt.Sprint(d["version"]), last) {
				status = "failure"
			}
			code, answer := x.insist(ctx, "ci", "POST", "reports", map[string]any{"environment": "staging", "service": d["service"],
				"policy": "e2e", "status": status, "version": id, "url": "https://ci.example/" + mark})
			if told[id] = code != 0; code == http.StatusOK {
				x.acknowledge(mark, word(answer, "branch"), word(answer, "recorded"))
			}
		}
	})
}

// approves is somebody who lets versions into production.
func (x *neighbours) approves(ctx context.Context) {
	done := map[string]bool{}
	paced(ctx, func(int) {
		for _, svc := range []string{"api", "tool", "web"} {
			_, flows := x.insist(ctx, "dana", "GET", "flows?limit=5&service="+svc, nil)
			for _, flow := range items(flows) {
				version := word(flow, "version")
				for _, stage := range items(map[string]any{"items": flow["stages"]}) {
					if word(stage, "environment") != "production" || word(stage, "progress") != "waits" || done[svc+version] {
						continue
					}
					mark := x.mark("approval")
					code, answer := x.insist(ctx, "dana", "POST", "approvals", map[string]any{"environment": "production", "service": svc, "version": version, "comment": mark})
					if code == http.StatusOK {
						done[svc+version] = true
						x.acknowledge(mark, word(answer, "branch"), word(answer, "recorded"))
					}
				}
			}
		}
	})
}

// pins is somebody who brings versions of tool to dev, and takes some back.
func (x *neighbours) pins(ctx context.Context) {
	ended := false
	paced(ctx, func(n int) {
		pin := func(version string) bool {
			mark := x.mark("pin")
			code, answer := x.insist(ctx, "kim", "POST", "pins", map[string]any{"environment": "dev", "artifact": "tool", "version": version, "reason": mark})
			if code == http.StatusOK {
				x.acknowledge(mark, "main", word(answer, "commit"))
			} else if code != 0 {
				x.Errorf("pin %s: %d %v", version, code, answer)
			}
			return code == http.StatusOK
		}
		switch {
		case x.final.Load():
			ended = ended || pin(last)
		case n%4 != 0:
		case !pin(fmt.Sprintf("1.%d.0", n+1)) || n%12 != 0:
		default:
			mark := x.mark("rollback")
			if code, answer := x.insist(ctx, "kim", "POST", "rollbacks", map[string]any{"environment": "dev", "service": "tool", "reason": mark}); code == http.StatusOK && answer["commit"] != nil {
				x.acknowledge(mark, "main", word(answer, "commit"))
			}
		}
	})
}

// holds is somebody who freezes production for a moment.
func (x *neighbours) holds(ctx context.Context) {
	held := ""
	paced(ctx, func(n int) {
		switch {
		case held != "":
			mark := x.mark("release")
			code, answer := x.insist(ctx, "kim", "POST", "holds/"+held+"/release", map[string]any{"reason": mark})
			if code == http.StatusOK {
				x.acknowledge(mark, "main", word(answer, "commit"))
			}
			if code == http.StatusOK || code == http.StatusNotFound { // it was released by a request that had no answer
				held = ""
			}
		case n%6 == 5 && !x.final.Load():
			mark := x.mark("hold")
			held = "freeze-" + strings.Trim(mark, "chaos-")
			code, answer := x.insist(ctx, "kim", "POST", "holds", map[string]any{"name": held, "environments": []string{"production"}, "services": []string{[]string{"api", "tool", "web"}[n%3]}, "reason": mark})
			if code == http.StatusOK {
				x.acknowledge(mark, "main", word(answer, "commit"))
			}
		}
	})
}

// publishes is CI, which publishes versions of api, some twice and some with
// another digest.
func (x *neighbours) publishes(ctx context.Context) {
	ended := false
	paced(ctx, func(n int) {
		publish := func(version string, digest int) bool {
			mark := x.mark("artifact")
			code, answer := x.insist(ctx, "ci", "POST", "artifacts", map[string]any{"image": fmt.Sprintf("registry.example/api:%s@sha256:%064x", version, digest), "build": "https://ci.example/" + mark})
			if code == http.StatusOK {
				x.acknowledge(mark, word(answer, "branch"), word(answer, "recorded"))
			}
			return code == http.StatusOK
		}
		switch {
		case x.final.Load():
			ended = ended || publish(last, 9)
		case n%5 == 0:
			publish(fmt.Sprintf("1.%d.0", n+1), n+1)
		case n%20 == 6:
			publish(fmt.Sprintf("1.%d.0", n), n+1000) // refused: it is bound already
		}
	})
}

// reader follows the events.
type reader struct {
	began chan struct{}

	mu   sync.Mutex // guards what follows
	last string
	all  []said
	lost bool
}

type said struct{ Entry, Environment string }

// follows follows the events over all that becomes of the daemon.
func (x *neighbours) follows(ctx context.Context) {
	begun := sync.OnceFunc(func() { close(x.reader.began) })
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		x.reader.once(ctx, "http://"+x.address.Load().(string), begun)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// once follows until the stream ends.
func (f *reader) once(ctx context.Context, at string, begun func()) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/api/v1/events", nil)
	if err != nil {
		return
	}
	r.Header.Set("Authorization", "Bearer mallory-token")
	f.mu.Lock()
	if f.last != "" {
		r.Header.Set("Last-Event-ID", f.last)
	}
	f.mu.Unlock()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	var id, event, data string
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data = value
		case "":
			if event == "" {
				continue
			}
			f.take(event, id, data)
			begun()
			event = ""
		}
	}
}

// take notes an event that has come whole.
func (f *reader) take(event, id, data string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = id
	if event == "begin" {
		f.lost = f.lost || strings.Contains(data, `"lost":true`)
		return
	}
	var h said
	json.Unmarshal([]byte(data), &h)
	f.all = append(f.all, h)
}

func (f *reader) heard() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}

// of returns the entries of an environment, in the order in which they came.
func (f *reader) of(env string) (all []string, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.all {
		if h.Environment == env {
			all = append(all, h.Entry)
		}
	}
	return all, f.lost
}
