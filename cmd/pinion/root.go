package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/klog/v2"
)

// globals are the flags of every command, and where it reads and writes.
type globals struct {
	repo, rev, output, config, kubeconfig, context string
	ageKeyFiles                                    []string

	in       io.Reader
	out, err io.Writer
	now      time.Time // when the command began
}

func newRootCommand(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "pinion",
		Short: "From a commit to a running rollout",
		Long: `Pinion reconciles Kubernetes with a deployment repository: environment files
pin artifact versions, services are rendered with Jsonnet, Kustomize or from
plain YAML, applied with server-side apply, and watched until rolled out.

Exit codes: 0 ok; 1 differences, or not (yet) so; 2 error; 3 refused;
4 not authorised; 124 timed out.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,

		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				hint := "`pinion help` lists the commands"
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					hint = fmt.Sprintf("did you mean %q? %s", near[0], hint)
				}
				return fmt.Errorf("unknown command %q; %s", args[0], hint)
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
		PersistentPreRun: func(*cobra.Command, []string) {
			// The Kubernetes client writes what it finds noteworthy to standard
			// error; what matters of it comes back as an error.
			klog.SetSlogLogger(slog.New(slog.DiscardHandler))
		},
	}
	root.SetIn(g.in)
	root.SetOut(g.out)
	root.SetErr(g.err)
	f := root.PersistentFlags()
	f.StringVar(&g.repo, "repo", "", "deployment repository: a folder or a URL (default: the clone that one stands in)")
	f.StringVar(&g.rev, "rev", "", "commit, branch or tag to read (default: see each command)")
	f.StringVarP(&g.output, "output", "o", "", "output format; which ones there are depends on the command")
	f.StringVar(&g.config, "config", "", "configuration file (kind: Config)")
	f.StringVar(&g.kubeconfig, "kubeconfig", "", "kubeconfig file (default: as kubectl finds it)")
	f.StringVar(&g.context, "context", "", "context of the kubeconfig")
	root.AddCommand(
		newInitCommand(g),
		g.rendering(newLintCommand(g)),
		g.rendering(newRenderCommand(g)),
		g.rendering(newDiffCommand(g)),
		g.rendering(newApplyCommand(g)),
		newRunCommand(g),
		g.rendering(newStatusCommand(g)),
		newLogCommand(g),
		newWhereCommand(g),
		newWhyCommand(g),
		newPinCommand(g),
		newPromoteCommand(g),
		newRollbackCommand(g),
		newHoldCommand(g),
		newReleaseCommand(g),
		newReportCommand(g),
		newApproveCommand(g),
		newReconcileCommand(g),
		newArtifactCommand(g),
		newAuditCommand(g),
		newDoctorCommand(g),
		newNotifyCommand(g),
		newSchemaCommand(g),
		newVersionCommand(g),
	)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; `%s --help` lists the flags", err, cmd.CommandPath())
	})
	for _, cmd := range root.Commands() {
		explainArguments(cmd)
		for _, below := range cmd.Commands() {
			explainArguments(below)
		}
	}
	return root
}

// explainArguments has a command say which arguments it takes when it gets
// others.
func explainArguments(cmd *cobra.Command) {
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check == nil || check(cmd, args) == nil {
			return nil
		}
		takes := strings.TrimSpace(strings.TrimPrefix(cmd.Use, cmd.Name()))
		if takes == "" {
			takes = "no arguments"
		}
		got := "none"
		if len(args) > 0 {
			got = fmt.Sprintf("%q", args)
		}
		return fmt.Errorf("%s takes %s, and got %s; see `%s --help`", cmd.Name(), takes, got, cmd.CommandPath())
	}
}

// format checks the value of -o against what a command can write; the first
// one is the default.
func (g *globals) format(known ...string) (string, error) {
	if g.output == "" {
		return known[0], nil
	}
	if slices.Contains(known, g.output) {
		return g.output, nil
	}
	return "", fmt.Errorf("-o %s: this command writes %s", g.output, strings.Join(known, ", "))
}

// noFormat refuses -o for a command that has nothing to format.
func (g *globals) noFormat() error {
	if g.output != "" {
		return fmt.Errorf("-o %s: this command has no output formats; leave -o out", g.output)
	}
	return nil
}

// terminal tells whether w is a terminal on which lines may be redrawn.
func terminal(w io.Writer) (width int, ok bool) {
	f, isFile := w.(interface{ Fd() uintptr })
	if !isFile || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		return 80, true
	}
	return width, true
}
