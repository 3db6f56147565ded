package gitstate_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
)

// A push is done when the server says so. What its hook does behind that nobody waits
// for, and it is not cut short, whatever becomes of who pushed; but not any number of
// hooks is at work at once, and none keeps the mirror from being closed.
func TestHooksAfterAPush(t *testing.T) {
	for _, kind := range []string{"path", "http", "ssh"} {
		t.Run(kind, func(t *testing.T) {
			u := newUpstream(t, map[string]string{"a": "0"})
			t.Parallel()
			dir, err := os.MkdirTemp("", "hook-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir) // with which the last hook ends
			on, begun, ended := filepath.Join(dir, "on"), filepath.Join(dir, "begun"), filepath.Join(dir, "ended")
			hook(t, u, "post-receive", fmt.Sprintf(`cat >/dev/null; echo >> %[1]s; n=0; until [ -e %[2]s ] || [ ! -e %[1]s ] || [ $((n += 1)) = 3000 ]; do echo still at it; sleep 0.02; done; echo >> %[3]s`, begun, on, ended))
			count := func(file string) int {
				data, _ := os.ReadFile(file)
				return len(data)
			}
			until := func(file string, n int) {
				t.Helper()
				ctx, tick := soon(t), time.NewTicker(10*time.Millisecond)
				defer tick.Stop()
				for count(file) < n {
					select {
					case <-tick.C:
					case <-ctx.Done():
						t.Fatalf("%s has %d lines, not %d", file, count(file), n)
					}
				}
			}
			o := gitstate.Options{URL: u.dir}
			switch kind {
			case "http":
				o.URL = serveHTTP(t, u, false, "", "").url
			case "ssh":
				s := serveSSH(t)
				o = gitstate.Options{URL: s.url(u), Auth: gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: s.knownHosts}}
			}
			m := open(t, o)
			at, _ := m.Tip()
			push := func(n int) error {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				id, err := m.Commit(ctx, change(at, fmt.Sprint("push ", n), map[string]string{"a": fmt.Sprint(n)}))
				if err == nil {
					at = id
				}
				return err
			}
			for n := 1; n <= 4; n++ {
				if err := push(n); err != nil {
					t.Fatal(err)
				}
				until(begun, n)
			}
			if n := count(ended); n != 0 {
				t.Fatalf("%d hooks have ended before they were to", n)
			}
			fifth := make(chan error, 1)
			go func() { fifth <- push(5) }()
			until(begun, 5)
			select {
			case err := <-fifth:
				t.Errorf("another push is done (%v) while four hooks are at work", err)
				fifth <- err
			default:
			}
			if err := os.WriteFile(on, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := <-fifth; err != nil {
				t.Error(err)
			}
			until(ended, 5)
			if u.tip("main") != at {
				t.Errorf("main is at %s, not %s", u.tip("main"), at)
			}
			os.Remove(on)
			if err := push(6); err != nil {
				t.Fatal(err)
			}
			until(begun, 6)
			closed := make(chan error, 1)
			go func() { closed <- m.Close() }()
			select {
			case err := <-closed:
				if err != nil {
					t.Error(err)
				}
			case <-soon(t).Done():
				t.Error("the mirror can't be closed while a hook is at work")
			}
		})
	}
}
