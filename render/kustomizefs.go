package render

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// kustomizeFS shows the tree to Kustomize as a file system whose root is the
// tree's, and which can't be written to.
type kustomizeFS struct{ rec *Recorder }

var _ filesys.FileSystem = (*kustomizeFS)(nil)

// name turns a path of Kustomize's into one of the tree.
func name(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

func (f *kustomizeFS) Create(p string) (filesys.File, error)    { return nil, readOnly(p) }
func (f *kustomizeFS) Mkdir(p string) error                     { return readOnly(p) }
func (f *kustomizeFS) MkdirAll(p string) error                  { return readOnly(p) }
func (f *kustomizeFS) RemoveAll(p string) error                 { return readOnly(p) }
func (f *kustomizeFS) WriteFile(p string, data []byte) error    { return readOnly(p) }
func (f *kustomizeFS) Glob(pattern string) ([]string, error)    { return nil, readOnly(pattern) }
func (f *kustomizeFS) Walk(p string, w filepath.WalkFunc) error { return readOnly(p) }

func readOnly(p string) error {
	return &fs.PathError{Op: "kustomize", Path: name(p), Err: fs.ErrPermission}
}

func (f *kustomizeFS) Open(p string) (filesys.File, error) {
	data, err := f.rec.ReadFile(name(p))
	if err != nil {
		return nil, err
	}
	return memoryFile(name(p), data), nil
}

func (f *kustomizeFS) ReadFile(p string) ([]byte, error) {
	data, err := f.rec.ReadFile(name(p))
	return append([]byte(nil), data...), err
}

func (f *kustomizeFS) IsDir(p string) bool {
	info, err := f.rec.Stat(name(p))
	return err == nil && info.IsDir()
}

func (f *kustomizeFS) Exists(p string) bool {
	_, err := f.rec.Stat(name(p))
	return err == nil
}

func (f *kustomizeFS) ReadDir(p string) ([]string, error) {
	entries, err := f.rec.ReadDir(name(p))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (f *kustomizeFS) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	n := name(p)
	info, err := f.rec.Stat(n)
	if err != nil {
		return "", "", fmt.Errorf("%s: there is no such file or folder", n)
	}
	abs := path.Clean("/" + n)
	if info.IsDir() {
		return filesys.ConfirmedDir(abs), "", nil
	}
	return filesys.ConfirmedDir(path.Dir(abs)), path.Base(abs), nil
}
