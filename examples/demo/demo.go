package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"k8s.io/client-go/kubernetes"
)

// demo is what the steps share.
type demo struct {
	options
	out     io.Writer
	bold    bool   // headings and commands can be
	dir     string // of all that is thrown away
	started time.Time
	own     bool // the cluster was there before
	step    int
	shown   bool // the step has shown a command

	remote, clone string
	signed        bool // the daemon signs its commits
	people        people
	cast          cast
	kube          *kubernetes.Clientset
	created       []string // namespaces that were not there before

	cluster, daemon *process
	heard           int    // lines of the daemon that were shown or left out
	server          string // the daemon's address
}

// bold tells whether letters can be bold.
func bold(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
}

// strong writes a line that stands out.
func (d *demo) strong(line string) {
	if d.bold {
		line = "\x1b[1m" + line + "\x1b[0m"
	}
	fmt.Fprintln(d.out, line)
}

// say begins a step.
func (d *demo) say(format string, args ...any) {
	d.step++
	d.shown = false
	fmt.Fprintln(d.out)
	d.strong(fmt.Sprintf("%d. %s", d.step, fmt.Sprintf(format, args...)))
}

// tell says what there is to know, or what was seen.
func (d *demo) tell(format string, args ...any) {
	d.indent("   ", fmt.Sprintf(format, args...))
}

// look says what to look at in what was just shown.
func (d *demo) look(format string, args ...any) {
	d.indent("   ▸ ", fmt.Sprintf(format, args...))
}

// indent writes text, with its first line behind something.
func (d *demo) indent(first, text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintln(d.out, strings.TrimRight(first+line, " "))
		first = strings.Repeat(" ", utf8.RuneCountInString(first))
	}
}

// watch shows what the daemon says until it has said all of the words, each in
// a line. A deployment that fails is an error, unless it is waited for.
func (d *demo) watch(ctx context.Context, words ...string) error {
	return d.listen(ctx, true, words)
}

// listen is watch, and shows nothing if show is not set.
func (d *demo) listen(ctx context.Context, show bool, words []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.patience, fmt.Errorf("not within %s", d.patience))
	defer cancel()
	missing := slices.Clone(words)
	for len(missing) > 0 {
		line, err := d.daemon.next(ctx, d.heard)
		if err != nil {
			return fmt.Errorf("wait until the daemon says %q: %w\nits last words:\n%s", missing[0], err, d.daemon.tail())
		}
		d.heard++
		if show {
			fmt.Fprintf(d.out, "   pinion │ %s\n", line)
		}
		before := len(missing)
		missing = slices.DeleteFunc(missing, func(w string) bool { return strings.Contains(line, w) })
		if strings.Contains(line, " failed(") && len(missing) == before {
			return fmt.Errorf("a deployment has failed that should not: %s", line)
		}
	}
	return nil
}

// stop ends what was started, and removes what was made.
func (d *demo) stop() error {
	var errs []error
	if d.daemon != nil {
		errs = append(errs, d.daemon.stop())
	}
	if d.own && d.kube != nil {
		errs = append(errs, d.cleanCluster())
	}
	if d.cluster != nil {
		errs = append(errs, d.cluster.stop())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}
