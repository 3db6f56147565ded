package worker

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// remote is the tree as a worker sees it: each question goes to the pool.
type remote struct {
	ask func(kind, string) ([]byte, error) // returns the answer
	ids map[string]string
}

var (
	_ desired.Tree = (*remote)(nil)
	_ fs.ReadDirFS = (*remote)(nil)
	_ fs.StatFS    = (*remote)(nil)
)

// question asks and keeps the id that comes with the answer.
func (t *remote) question(k kind, name string) ([]byte, error) {
	answer, err := t.ask(k, name)
	if err != nil {
		return nil, err
	}
	if len(answer) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	switch answer[0] {
	case answerOK:
		id, rest, err := cutID(answer[1:])
		if id != "" {
			t.ids[name] = id
		}
		return rest, err
	case answerAbsent:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case answerError:
		var f failure
		if err := json.Unmarshal(answer[1:], &f); err != nil {
			return nil, err
		}
		return nil, f.err()
	default:
		return nil, fmt.Errorf("the answer %d means nothing", answer[0])
	}
}

func (t *remote) ID(name string) (string, error) {
	if id, ok := t.ids[name]; ok {
		return id, nil
	}
	_, err := t.question(kindID, name)
	return t.ids[name], err
}

func (t *remote) Open(name string) (fs.File, error) {
	data, err := t.question(kindOpen, name)
	if err != nil {
		return nil, err
	}
	return &file{data: data, info: info{entry{Name: path.Base(name), Size: int64(len(data))}}}, nil
}

func (t *remote) ReadDir(name string) ([]fs.DirEntry, error) {
	data, err := t.question(kindList, name)
	if err != nil {
		return nil, err
	}
	var list []entry
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	entries := make([]fs.DirEntry, len(list))
	for i, e := range list {
		entries[i] = fs.FileInfoToDirEntry(info{e})
	}
	return entries, nil
}

func (t *remote) Stat(name string) (fs.FileInfo, error) {
	data, err := t.question(kindStat, name)
	if err != nil {
		return nil, err
	}
	var e entry
	err = json.Unmarshal(data, &e)
	return info{e}, err
}

// file is a file of which the whole content is there.
type file struct {
	data []byte
	info info
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }
func (f *file) Read(p []byte) (int, error) {
	if len(f.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.data)
	f.data = f.data[n:]
	return n, nil
}

type info struct{ entry }

func (i info) Name() string       { return i.entry.Name }
func (i info) Size() int64        { return i.entry.Size }
func (i info) Mode() fs.FileMode  { return i.entry.Mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.entry.Mode.IsDir() }
func (i info) Sys() any           { return nil }
