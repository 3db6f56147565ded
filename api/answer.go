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

// joined is an answer that is put together of parts that are JSON already: one thing,
// or a page as package history has it.
type joined struct {
	parts     [][]byte
	page      bool
	next      string
	truncated bool
}

// encode writes an answer as JSON into a buffer.
func encode(into *bytes.Buffer, x any) error {
	into.Reset()
	if j, ok := x.(joined); ok {
		return j.encode(into)
	}
	return json.NewEncoder(into).Encode(x)
}

func (j joined) encode(into *bytes.Buffer) error {
	if j.page {
		into.WriteString(`{"items":[`)
	}
	for i, part := range j.parts {
		if i > 0 {
			into.WriteByte(',')
		}
		into.Write(part)
	}
	if j.page {
		into.WriteByte(']')
		if j.next != "" {
			next, err := json.Marshal(j.next)
			if err != nil {
				return err
			}
			into.WriteString(`,"next":`)
			into.Write(next)
		}
		if j.truncated {
			into.WriteString(`,"truncated":true`)
		}
		into.WriteByte('}')
	}
	into.WriteByte('\n')
	return nil
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
	if e.tag == "" {
		h.Set("Cache-Control", "no-store")
	} else {
		h.Set("Cache-Control", "private, no-cache")
		h.Set("ETag", e.tag)
		for t := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
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

// kept is what is kept because it may be asked for again, within bounds.
type kept[K comparable] struct {
	// young are those that were asked for last, and old those before: so what is
	// asked for again and again stays, and what was asked for once does not.
	young, old map[K]held
	size       int // of young, in bytes
}

type held struct {
	encoded
	size int
}

// mostKept bounds the bytes of the younger ones, and of the older ones.
const mostKept = 8 << 20

func (k *kept[K]) find(key K) (encoded, bool) {
	h, ok := k.young[key]
	if !ok {
		if h, ok = k.old[key]; ok {
			k.put(key, h)
		}
	}
	return h.encoded, ok
}

func (k *kept[K]) put(key K, h held) {
	if h.size > mostKept/8 {
		return
	}
	if k.size+h.size > mostKept {
		k.young, k.old, k.size = nil, k.young, 0
	}
	if k.young == nil {
		k.young = map[K]held{}
	}
	if _, had := k.young[key]; !had {
		k.young[key] = h
		k.size += h.size
	}
}

// answers keeps the answers that follow from where the branches are and from
// what was asked, and from nothing else: neither from who asks, which is judged
// each time before, nor from the time. When a branch moves, it forgets them all.
type answers struct {
	mu       sync.Mutex // guards what follows
	branches map[string]string
	kept     kept[string]
}

// find returns the answer to a question, if it is kept.
func (a *answers) find(branches map[string]string, question string) (encoded, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !maps.Equal(a.branches, branches) {
		a.branches, a.kept = branches, kept[string]{}
		return encoded{}, false
	}
	return a.kept.find(question)
}

// keep keeps an answer that was found while the branches were there.
func (a *answers) keep(branches map[string]string, question string, e encoded) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if maps.Equal(a.branches, branches) {
		a.kept.put(question, held{e, len(question) + len(e.data)})
	}
}

// texts keeps what values that never change are as JSON, by their addresses.
type texts[K comparable] struct {
	mu   sync.Mutex // guards kept
	kept kept[K]
}

// beside is about how much memory a text takes besides its bytes.
const beside = 128

// text returns a value as JSON.
func (t *texts[K]) text(value K) ([]byte, error) {
	t.mu.Lock()
	e, ok := t.kept.find(value)
	t.mu.Unlock()
	if ok {
		return e.data, nil
	}
	data, err := json.Marshal(value)
	if err == nil {
		t.mu.Lock()
		t.kept.put(value, held{encoded{data: data}, len(data) + beside})
		t.mu.Unlock()
	}
	return data, err
}
