package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
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
	if err != nil {
		return ""
	}
	commit, repository, _ := strings.Cut(strings.TrimSuffix(string(data), "\n"), " ")
	if repository != f.repository {
		return ""
	}
	return commit
}

// write replaces the file, so that there is the old or the new one.
func (f settledFile) write(commit string) {
	tmp, err := os.CreateTemp(filepath.Dir(f.path), ".settled-*")
	if err == nil {
		_, err = tmp.WriteString(commit + " " + f.repository + "\n")
		if err = errors.Join(err, tmp.Close()); err == nil {
			err = os.Rename(tmp.Name(), f.path)
		}
		if err != nil {
			os.Remove(tmp.Name())
		}
	}
	if err != nil {
		f.log.Warn("the next start will read more of the history", "error", err)
	}
}
