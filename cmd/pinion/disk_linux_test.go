package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// smallDisk returns a folder on a disk of its own, of one MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m")
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("mount a small disk: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill leaves no room in a folder until the function that it returns is called.
func fill(t *testing.T, dir string) (room func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() { os.Remove(path) }
}

func TestDaemonOutlastsAFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api", "web"))
	first := w.git("rev-parse", "HEAD")
	disk := smallDisk(t)

	room := fill(t, disk)
	d := w.daemon(disk)
	d.line(0, "can't be mirrored", "no space left", "make room")
	room()
	d.line(0, "[2/2 done]")
	before, mark := w.identities(), d.mark()

	room = fill(t, disk)
	second := w.bump("web", "1.0.0", "1.1.0")
	d.line(mark, "can't be fetched", "no space left", "make room")
	w.caresFor("api")
	room()
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.1.0", second}})
	w.same(before)
	d.never(0, "] deleted ")
}
