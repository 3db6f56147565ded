package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/sops"
)

// Sops is the sops program, for files that no age key of ours opens. A worker
// has no network, so the program runs beside it, and its output goes straight
// to the worker that asked.
type Sops struct {
	Binary string
	// Environment is all that is in the program's environment: NAME=value, or
	// NAME for the value that this process has.
	Environment []string
	Timeout     time.Duration // of one file; 20 seconds if it is 0
	// Allow is which vaults may be asked that a file names; the zero value: none.
	// Who may merge a file must not have the daemon's token sent anywhere.
	Allow outbound.Allow
}

// Exit statuses of sops.
const (
	sopsMACMismatch = 51
	sopsMACNotFound = 52
	sopsNoDataKey   = 128 // nothing has been decrypted, so nothing of it can be in a message
)

// decrypt returns the plaintext of a file. An error that is no *render.Error
// may pass by itself: the service that has the key may be out of reach.
func (s *Sops) decrypt(ctx context.Context, name string, data []byte) ([]byte, error) {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addresses, err := s.vet(limited, name, data)
	if err != nil {
		return nil, err
	}
	kind := sops.Type(name, data)
	cmd := exec.CommandContext(limited, s.Binary, "--decrypt", "--input-type", kind, "--output-type", kind, "/dev/stdin")
	cmd.Env = withVaults(environment(s.Environment), addresses)
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(data)
	out, complaint := capped{most: render.MaxFile}, capped{most: 4 << 10}
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if err == nil && !out.over {
		return out.text, nil
	}
	clear(out.text)
	program := filepath.Base(s.Binary)
	exit, _ := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		return nil, fmt.Errorf("%s did not decrypt it within %s; look whether what holds its keys can be reached", program, timeout)
	case out.over:
		return nil, &render.Error{File: name, Message: fmt.Sprintf("is larger than %s when it is decrypted", size(render.MaxFile)), Hint: "split it"}
	case exit != nil && (exit.ExitCode() == sopsMACMismatch || exit.ExitCode() == sopsMACNotFound):
		return nil, &render.Error{File: name, Message: "the file was changed since it was encrypted: its mac is another one", Hint: "edit the file with sops, or take it back from git's history"}
	case exit == nil:
		return nil, fmt.Errorf("start %s: %w; look at secrets.sops.binary in the configuration", program, err)
	}
	if exit.ExitCode() != sopsNoDataKey {
		return nil, fmt.Errorf("%s can't decrypt it (%w); run it by hand to see why", program, exit)
	}
	why := strings.Join(strings.Fields(string(complaint.text)), " ")
	return nil, fmt.Errorf("%s has no key for it: %s", program, strings.ToValidUTF8(why[:min(len(why), 500)], ""))
}

// vet returns the addresses that a file names, if all of them may be asked.
func (s *Sops) vet(ctx context.Context, name string, data []byte) ([]sops.Address, error) {
	addresses, err := sops.Reach(name, data)
	if e, ok := errors.AsType[*sops.Error](err); ok {
		return nil, &render.Error{File: name, Line: e.Line, Column: e.Column, Message: e.Message, Hint: e.Hint}
	}
	for _, a := range addresses {
		err := outbound.Vet(ctx, s.Allow, nil, a.URL)
		e := &render.Error{File: name, Line: a.Line, Column: a.Column, Message: fmt.Sprintf("its %s is %s: %v", a.Field, a.URL, err)}
		if forbidden, ok := errors.AsType[*outbound.ForbiddenError](err); ok {
			e.Message = fmt.Sprintf("its %s is %s, and the daemon's operator does not list %s", a.Field, a.URL, forbidden.Host)
			e.Hint = fmt.Sprintf("add it to the daemon's configuration, outbound: {allow: [%q]}", forbidden.Host)
			return nil, e
		}
		if outbound.Forbidden(err) != nil {
			return nil, e
		}
		if err != nil {
			return nil, err
		}
	}
	return addresses, nil
}

// vaultsName is where sops, of late, looks for which vaults it may ask.
const vaultsName = "SOPS_HC_VAULT_ALLOWLIST"

// withVaults has the program itself ask no other vaults than those of a file
// that were vetted, unless the operator says which.
func withVaults(env []string, addresses []sops.Address) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, vaultsName+"=") }) {
		return env
	}
	list := []string{}
	for _, a := range addresses {
		list = append(list, a.URL.String())
	}
	if len(list) == 0 {
		list = []string{"none"}
	}
	return append(env, vaultsName+"="+strings.Join(list, ","))
}

// environment fills in the values of the names that have none.
func environment(entries []string) []string {
	env := []string{} // nil would be all of ours
	for _, e := range entries {
		if !strings.Contains(e, "=") {
			value, ok := os.LookupEnv(e)
			if !ok {
				continue
			}
			e += "=" + value
		}
		env = append(env, e)
	}
	return env
}

// capped keeps the first bytes of what is written to it.
type capped struct {
	text []byte
	most int
	over bool
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.most-len(c.text))
	c.text = append(c.text, p[:n]...)
	c.over = c.over || n < len(p)
	return len(p), nil
}
