package render

import (
	"bytes"
	"io/fs"
	"path"
	"time"
)

// fileInMemory is an opened file whose content is there already. It serves
// both io/fs and kustomize, whose files can be written to, but these can't.
type fileInMemory struct {
	*bytes.Reader
	info fileInfo
}

func memoryFile(name string, data []byte) *fileInMemory {
	return &fileInMemory{Reader: bytes.NewReader(data), info: fileInfo{name: path.Base(name), size: int64(len(data)), mode: 0o444}}
}

func (f *fileInMemory) Stat() (fs.FileInfo, error)  { return f.info, nil }
func (f *fileInMemory) Close() error                { return nil }
func (f *fileInMemory) Write(p []byte) (int, error) { return 0, fs.ErrPermission }

type fileInfo struct {
	name string
	size int64
	mode fs.FileMode
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() fs.FileMode  { return i.mode }
func (i fileInfo) ModTime() time.Time { return time.Time{} }
func (i fileInfo) IsDir() bool        { return i.mode.IsDir() }
func (i fileInfo) Sys() any           { return nil }
