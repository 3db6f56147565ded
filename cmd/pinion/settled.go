package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
)

// settledFile keeps up to which commit of main all that daemons have written there
// is on the ledgers, so that the next start reads main's history no further back. It
// can be thrown away: without it, and with one of another repository, which may lack
// these ledgers, a start reads more.
type settledFile struct {
	path       string
	repository string // its URL, without a password
	log        *slog.Logger
}

func (f settledFile) read() string {
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		f.log.Warn("what is known of the history before can't be read; the start reads more", "error", err)
		return ""
	}
	commit, repository, _ := strings.Cut(strings.TrimSuffix(string(data), "\n"), " ")
	if repository != f.repository {
		return ""
	}
	return commit
}

func (f settledFile) remove() {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("what is known of the history before can't be removed", "error", err)
	}
}

// write replaces the file, so that there is the old or the new one.
func (f settledFile) write(commit string) {
	next := f.path + ".new" // one process at a time has the folder
	err := os.WriteFile(next, []byte(commit+" "+f.repository+"\n"), 0o600)
	if err == nil {
		err = os.Rename(next, f.path)
	}
	if err != nil {
		f.log.Warn("the next start will read more of the history", "error", err)
	}
}
