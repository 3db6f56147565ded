package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestListen(t *testing.T) {
	t.Parallel()
	d := dataDir{path: t.TempDir()}
	first := mustListen(t, d, 0)
	port := first.Addr().(*net.TCPAddr).Port
	if !first.Addr().(*net.TCPAddr).IP.IsLoopback() {
		t.Errorf("it listens on %v, which is not loopback", first.Addr())
	}

	if l, err := d.listen(port); err == nil {
		l.Close()
		t.Errorf("port %d was taken, and yet it was given", port)
	}
	first.Close()
	again := mustListen(t, d, 0)
	if got := again.Addr().(*net.TCPAddr).Port; got != port {
		t.Errorf("port is %d, want the last one, %d", got, port)
	}

	other := mustListen(t, d, 0) // the last one is taken now
	other.Close()
	if got, want := mustListen(t, d, 0).Addr().String(), other.Addr().String(); got != want {
		t.Errorf("address is %s, want the last one, %s", got, want)
	}
}

func mustListen(t *testing.T, d dataDir, port int) net.Listener {
	t.Helper()
	l, err := d.listen(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b")
	for _, content := range []string{"one", "two"} {
		if err := writeFile(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("content is %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want the file alone", entries, err)
	}
	if err := writeFile(filepath.Join(path, "c"), nil); err == nil {
		t.Error("a file below a file was written")
	}
}
