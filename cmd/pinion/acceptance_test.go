package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
)

// TestAcceptance asks a daemon over HTTP what a user of a deployment database
// would, in the order of testdata/acceptance.txtar: its files are the repository,
// and its comment is the requests, one a line:
//
//	WHO METHOD PATH [BODY] -> STATUS [EXPECTATION ...]
//
// WHO is a principal, or - for nobody. PATH is below /api/v1/. An expectation is
// PATH=VALUE, PATH~PART, PATH#LENGTH, !PATH (it is not there), or NAME:=PATH, which
// keeps a value for later lines as $NAME; a text with spaces stands in double
// quotes. "until " before a line has it asked again until it is so. A line
// "told ENVIRONMENT EVENT PART" waits for news, "push FILE OLD NEW" is a person's
// commit, and "#" begins a heading. All answers are held to the daemon's document.
func TestAcceptance(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/acceptance.txtar")
	if err != nil {
		t.Fatal(err)
	}
	archive := txtar.Parse(data)
	requests := string(archive.Comment)
	archive.Comment = nil
	w := newWorld(t, string(txtar.Format(archive)))
	news := newBoard(t)
	d := w.daemon(t.TempDir(), "--config", configured(t, "sinks: {board: {url: "+news.URL+"}}\napi: {limits: {requestsPerSecond: 10000}}"))
	a := acceptance{daemon: d, contract: d.contract(""), names: map[string]string{}}
	for n, line := range strings.Split(requests, "\n") {
		line = strings.TrimSpace(os.Expand(line, func(name string) string { return a.names[name] }))
		words := quoted(line)
		var wrong string
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case words[0] == "push" && len(words) == 4:
			d.git("pull", "-q", "--rebase", "origin", "main")
			d.replace(words[1], words[2], words[3])
		case words[0] == "told" && len(words) == 4:
			d.until(line, func(context.Context) string {
				all := news.summaries(desired.EnvironmentName(words[1]), desired.News(words[2]))
				if slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, words[3]) }) {
					return ""
				}
				return fmt.Sprint("told are ", all)
			})
		case strings.HasPrefix(line, "until "):
			d.until(line, func(context.Context) string { return a.ask(strings.TrimPrefix(line, "until ")) })
		default:
			wrong = a.ask(line)
		}
		if wrong != "" {
			t.Errorf("testdata/acceptance.txtar:%d: %s\n\t%s", n+1, line, wrong)
		}
	}
	d.stop()
	w.git("pull", "-q", "--rebase", "origin", "main")
	w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	if out, errs, code := w.pinion("audit"); code != 0 {
		t.Errorf("audit: exit code %d\n%s%s", code, out, errs)
	}
	for _, op := range []string{"report", "approve", "pin", "rollBack", "hold", "release"} {
		if a.contract.Answered(op, http.StatusOK) == 0 {
			t.Errorf("no answer of %s was held to the document", op)
		}
	}
}

// acceptance is a daemon, what it promises of its answers, and what was kept of
// them.
type acceptance struct {
	*daemon
	contract *devtest.Contract
	names    map[string]string
}

// quoted takes a line apart at its spaces, but those between double quotes.
func quoted(line string) []string {
	within := false
	words := strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			within = !within
		}
		return r == ' ' && !within
	})
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, `"`, "")
	}
	return words
}

// ask sends the request of a line, and says what is wrong with the answer; "":
// nothing is.
func (a *acceptance) ask(line string) string {
	a.Helper()
	asked, wanted, ok := strings.Cut(line, " -> ")
	parts := strings.SplitN(asked, " ", 4)
	if !ok || len(parts) < 3 {
		a.Fatalf("no request: %s", line)
	}
	var body io.Reader
	if len(parts) == 4 {
		body = bytes.NewBufferString(parts[3])
	}
	req, err := http.NewRequestWithContext(a.Context(), parts[1], "http://"+a.address+"/api/v1/"+parts[2], body)
	a.must(err)
	if parts[0] != "-" {
		req.Header.Set("Authorization", "Bearer "+parts[0]+"-token")
	}
	resp, err := http.DefaultClient.Do(req)
	a.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	a.must(err)
	a.contract.Hold(resp, text)
	var answer any
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Sprintf("%d %s: %v", resp.StatusCode, text, err)
	}
	words := quoted(wanted)
	if strconv.Itoa(resp.StatusCode) != words[0] {
		return fmt.Sprintf("%d %s", resp.StatusCode, text)
	}
	for _, want := range words[1:] {
		if !a.meets(answer, want) {
			return fmt.Sprintf("not %s: %d %s", want, resp.StatusCode, text)
		}
	}
	return ""
}

// meets tells whether an answer is as expected.
func (a *acceptance) meets(answer any, want string) bool {
	i := strings.IndexAny(want, "=~#:")
	if path, absent := strings.CutPrefix(want, "!"); absent {
		_, there := at(answer, path)
		return !there
	}
	if i < 0 {
		a.Fatalf("no expectation: %s", want)
	}
	if name, path, keeps := strings.Cut(want, ":="); keeps && i == len(name) {
		v, there := at(answer, path)
		a.names[name] = fmt.Sprint(v)
		return there
	}
	v, there := at(answer, want[:i])
	switch list, _ := v.([]any); want[i] {
	case '=':
		return there && fmt.Sprint(v) == want[i+1:]
	case '~':
		return there && strings.Contains(fmt.Sprint(v), want[i+1:])
	default:
		return strconv.Itoa(len(list)) == want[i+1:]
	}
}

// at finds what stands at a path of names and numbers.
func at(v any, path string) (any, bool) {
	for step := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[step]; !ok {
				return nil, false
			}
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil || n >= len(x) {
				return nil, false
			}
			v = x[n]
		default:
			return nil, false
		}
	}
	return v, true
}
