package worker

import (
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/render"
)

// ended says that a worker died in the middle of a rendering, or that what it
// said made no sense, so that it has to.
type ended struct {
	tooLong bool // it wrote more than it may
}

func (e *ended) Error() string { return "the render worker ended" }

// errTimeout is the cause of a context whose time for a rendering is up.
var errTimeout = errors.New("the time for the rendering is up")

// explain says in words why a worker ended, as an error of the service's
// manifests. The process must be gone.
func (e *ended) explain(p *process, o Options, file string) *render.Error {
	out := &render.Error{File: file}
	stderr := p.stderr.String()
	exit, _ := errors.AsType[*exec.ExitError](p.exit)
	switch {
	case e.tooLong:
		out.Message = fmt.Sprintf("the objects are larger than %s together", size(o.OutputLimit))
		out.Hint = "split the service"
	case exit != nil && exit.ExitCode() == exitMemory,
		strings.Contains(stderr, "out of memory"),
		strings.Contains(stderr, "cannot allocate memory"):
		out.Message, out.Hint = overMemory(o)
	case strings.Contains(stderr, "stack overflow"), strings.Contains(stderr, "stack exceeds"):
		out.Message = "rendering overflows the stack"
		out.Hint = "look for a recursion that never ends, or for very deep nesting"
	case p.peak() > o.MemoryLimit:
		// Where the kernel refuses it memory, a process can end in many ways:
		// a thread that can't be started, a fault in the middle of the runtime.
		out.Message, out.Hint = overMemory(o)
	case exit != nil && exit.ExitCode() < 0:
		out.Message = fmt.Sprintf("the render worker was ended from outside (%s)", exit)
		out.Hint = "see whether the machine ran out of memory"
	default:
		out.Message = fmt.Sprintf("the render worker broke off (%v)", p.exit)
		if line := lastWords(stderr); line != "" && (o.openers().none() || harmless(line)) {
			out.Message += ": " + line
		}
		out.Hint = "this is a fault of Pinion or of a library it uses: please report it"
	}
	return out
}

func overMemory(o Options) (message, hint string) {
	return fmt.Sprintf("rendering goes over the memory limit of %s", size(o.MemoryLimit)),
		"look for a value that grows without end"
}

// harmless says whether a line is the Go runtime's own. Where files are
// decrypted, any other one may hold what was in them.
func harmless(line string) bool {
	return strings.HasPrefix(line, "panic: runtime error: ") || strings.HasPrefix(line, "fatal error: ")
}

// lastWords is the line that says why a Go process gave up.
func lastWords(stderr string) string {
	first := ""
	for line := range strings.SplitSeq(stderr, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return line
		}
		if first == "" {
			first = line
		}
	}
	return first
}

func tooSlow(o Options, file string) *render.Error {
	return &render.Error{
		File:    file,
		Message: fmt.Sprintf("rendering took longer than %s", o.Timeout.Round(time.Millisecond)),
		Hint:    "look for a loop that never ends",
	}
}

// entrance is the file by which a service's author knows a rendering: the one
// that made the choice of the renderer, else the folder.
func entrance(rec *render.Recorder, folder string) string {
	reads, err := rec.Reads()
	if err != nil {
		return folder
	}
	for _, r := range reads {
		if r.ID == "" || path.Dir(r.Path) != path.Clean(folder) {
			continue
		}
		switch path.Base(r.Path) {
		case "main.jsonnet", "kustomization.yaml", "kustomization.yml", "Kustomization":
			return r.Path
		}
	}
	return folder
}

// size writes a number of bytes as people do.
func size[N int | int64](n N) string {
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	if n%(1<<10) == 0 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
