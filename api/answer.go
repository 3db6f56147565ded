package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// encoded is an answer as it is sent.
type encoded struct {
	data []byte
	tag  string // its ETag
}

// encode writes an answer as JSON into a buffer.
func encode(into *bytes.Buffer, x any) error {
	into.Reset()
	return json.NewEncoder(into).Encode(x)
}

// tagOf is the ETag of an answer.
func tagOf(data []byte) string {
	sum := sha256.Sum256(data)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// write sends an answer, unless the caller has it already. One without a tag is
// not to be kept by anybody.
func (e encoded) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if e.tag != "" {
		h.Set("Cache-Control", "private, no-cache")
		h.Set("ETag", e.tag)
		for _, t := range strings.Split(r.Header.Get("If-None-Match"), ",") {
			if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t == e.tag || t == "*" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(e.data)))
	w.Write(e.data)
}

// buffers are for answers that nobody keeps.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// largestBuffer is the size of a buffer above which it is not used again.
const largestBuffer = 1 << 20

// answers keeps the answers that follow from where the branches are and from
// what was asked, and from nothing else: neither from who asks, which is judged
// each time before, nor from the time. When a branch moves, it forgets them all.
type answers struct {
	mu       sync.Mutex // guards what follows
	branches map[string]string
	// young are those that were asked for last, and old those before: so what is
	// asked for again and again stays, and what was asked for once does not.
	young, old map[string]encoded
	size       int // of young, in bytes
}

// mostKept bounds the bytes of the younger answers, and of the older ones.
const mostKept = 8 << 20

// find returns the answer to a question, if it is kept.
func (a *answers) find(branches map[string]string, question string) (encoded, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !maps.Equal(a.branches, branches) {
		a.branches, a.young, a.old, a.size = branches, nil, nil, 0
		return encoded{}, false
	}
	e, ok := a.young[question]
	if !ok {
		if e, ok = a.old[question]; ok {
			a.put(question, e)
		}
	}
	return e, ok
}

// keep keeps an answer that was found while the branches were there.
func (a *answers) keep(branches map[string]string, question string, e encoded) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if maps.Equal(a.branches, branches) {
		a.put(question, e)
	}
}

// put keeps an answer; mu is held.
func (a *answers) put(question string, e encoded) {
	size := len(question) + len(e.data)
	if size > mostKept/8 {
		return
	}
	if a.size+size > mostKept {
		a.young, a.old, a.size = nil, a.young, 0
	}
	if a.young == nil {
		a.young = map[string]encoded{}
	}
	if _, had := a.young[question]; !had {
		a.young[question] = e
		a.size += size
	}
}
