package worker_test

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io/fs"
	"testing/fstest"

	"github.com/pinion-cd/pinion/desired"
)

// tree is files in memory with git's object ids.
type tree struct{ fstest.MapFS }

var _ desired.Tree = tree{}

func files(m map[string]string) tree {
	t := tree{fstest.MapFS{}}
	for name, text := range m {
		t.MapFS[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	return t
}

func (t tree) ID(name string) (string, error) {
	raw, err := t.id(name)
	return hex.EncodeToString(raw), err
}

func (t tree) id(name string) ([]byte, error) {
	info, err := fs.Stat(t.MapFS, name)
	if err != nil {
		return nil, err
	}
	var body []byte
	kind := "blob"
	if info.IsDir() {
		kind = "tree"
		entries, err := fs.ReadDir(t.MapFS, name)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			below := e.Name()
			if name != "." {
				below = name + "/" + below
			}
			id, err := t.id(below)
			if err != nil {
				return nil, err
			}
			mode := "100644"
			if e.IsDir() {
				mode = "40000"
			}
			body = append(body, mode+" "+e.Name()+"\x00"...)
			body = append(body, id...)
		}
	} else if body, err = fs.ReadFile(t.MapFS, name); err != nil {
		return nil, err
	}
	sum := sha1.Sum(append(fmt.Appendf(nil, "%s %d\x00", kind, len(body)), body...))
	return sum[:], nil
}
