package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// What was kept is read again, and nothing else is: no other repository's, and
// nothing that was cut off.
func TestSettledFile(t *testing.T) {
	const commit = "0123456789012345678901234567890123456789"
	dir := t.TempDir()
	f := settledFile{filepath.Join(dir, "settled"), "https://git.example/shop/deploy a", slog.New(slog.DiscardHandler)}
	if got := f.read(); got != "" {
		t.Errorf("before all it is %q", got)
	}
	f.write("first")
	f.write(commit)
	if got := f.read(); got != commit {
		t.Errorf("it is %q", got)
	}
	other := f
	other.repository = "https://git.example/shop/deploy"
	if got := other.read(); got != "" {
		t.Errorf("another repository's is %q", got)
	}
	for _, text := range []string{"", "\n", commit, commit[:20] + "\n"} {
		if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := f.read(); got != "" {
			t.Errorf("%q is read as %q", text, got)
		}
	}
	f.write(commit)
	f.remove()
	f.remove()
	if got := f.read(); got != "" {
		t.Errorf("when it was removed it is %q", got)
	}
	f.path = filepath.Join(dir, "nowhere", "settled")
	f.write(commit) // is told, and no more
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("there are %v, %v", files, err)
	}
}
