package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// person is somebody, or something, that types commands.
type person struct {
	account string // of the daemon's configuration, and the shell's prompt
	name    string // in commits
	groups  string
	token   string
}

func (p *person) email() string { return p.account + "@shop.example" }

// people are who plays.
type people struct{ dana, rosa, omar, ci *person }

func newPeople() people {
	return people{
		dana: &person{account: "dana", name: "Dana", groups: "release-managers", token: rand.Text()},
		rosa: &person{account: "rosa", name: "Rosa", groups: "release-managers", token: rand.Text()},
		omar: &person{account: "omar", name: "Omar", token: rand.Text()},
		ci:   &person{account: "ci", name: "CI", token: rand.Text()},
	}
}

// tokens writes who may ask the daemon for something, as its configuration has
// it: the tokens themselves are not in there.
func (p people) tokens() string {
	var b strings.Builder
	b.WriteString("tokens:\n")
	for _, x := range []*person{p.ci, p.dana, p.rosa} {
		fmt.Fprintf(&b, "- {principal: %s, email: %s, groups: [%s], sha256: %x}\n", x.account, x.email(), x.groups, sha256.Sum256([]byte(x.token)))
	}
	return b.String()
}

// command is what a person types in the clone.
type command struct {
	by    *person
	line  []string
	fresh bool // git fetch comes first
	exit  int
	why   string   // what the exit code says, if it is not 0
	shows []string // what its output has to have
}

// do runs a command, and shows it and what it prints.
func (d *demo) do(ctx context.Context, c command) error {
	typed := quote(c.line)
	if c.fresh {
		typed = "git fetch --quiet && " + typed
		if _, _, err := d.exec(ctx, c.by, []string{"git", "fetch", "--quiet"}); err != nil {
			return err
		}
	}
	if d.shown {
		fmt.Fprintln(d.out)
	}
	d.shown = true
	d.strong("   " + c.by.account + "$ " + typed)
	out, exit, err := d.exec(ctx, c.by, c.line)
	if exit < 0 {
		return err
	}
	d.indent("     ", out)
	if exit != c.exit {
		return fmt.Errorf("%s ends with exit code %d, not %d", typed, exit, c.exit)
	}
	if exit != 0 {
		d.tell("  (exit code %d: %s)", exit, c.why)
	}
	for _, s := range c.shows {
		if !strings.Contains(out, s) {
			return fmt.Errorf("%s does not show %q", typed, s)
		}
	}
	return nil
}

// exec runs a program in the clone, as a person. exit is its exit code; err is
// not nil if that is not 0, and exit is below 0 if there is none.
func (d *demo) exec(ctx context.Context, by *person, line []string) (out string, exit int, err error) {
	program := line[0]
	if program == "pinion" {
		program = filepath.Join(d.bin, "pinion")
	}
	cmd := exec.CommandContext(ctx, program, line[1:]...)
	cmd.Dir = d.clone
	cmd.Env = append(plainEnvironment(),
		"GIT_AUTHOR_NAME="+by.name, "GIT_AUTHOR_EMAIL="+by.email(),
		"GIT_COMMITTER_NAME="+by.name, "GIT_COMMITTER_EMAIL="+by.email(),
		"PINION_SERVER=http://"+d.server, "PINION_TOKEN="+by.token)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", -1, ctx.Err()
	}
	if err != nil {
		exit = -1
		if ended, ok := errors.AsType[*exec.ExitError](err); ok {
			exit = ended.ExitCode()
		}
		err = fmt.Errorf("%s: %w\n%s", quote(line), err, b.Bytes())
	}
	return b.String(), exit, err
}

// plainEnvironment is this process's, without what would make git or pinion
// behave as they do for who plays the demo.
func plainEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") && !strings.HasPrefix(v, "PINION_") {
			env = append(env, v)
		}
	}
	return append(env, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull, "GIT_TERMINAL_PROMPT=0")
}

// git runs git as Dana, and shows nothing.
func (d *demo) git(ctx context.Context, args ...string) (string, error) {
	out, _, err := d.exec(ctx, d.people.dana, append([]string{"git"}, args...))
	return strings.TrimSpace(out), err
}

var plainWord = regexp.MustCompile(`^[-+A-Za-z0-9_./:=@%~]+$`)

// quote writes a command as one types it into a shell.
func quote(line []string) string {
	words := make([]string, len(line))
	for i, w := range line {
		if words[i] = w; !plainWord.MatchString(w) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
