package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// The linker sets these (see the Makefile). Without it, what Go itself knows
// of the build is told.
var (
	version string // as in v1.2.3
	commit  string // 40 digits; -dirty behind it: with changes that are not committed
)

// build is what is known of the program's own making.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified"` // built with changes that are not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit, and what it was built with",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			format, err := g.format("text", "json")
			if err != nil {
				return err
			}
			info, _ := debug.ReadBuildInfo()
			b := buildOf(info)
			if format == "json" {
				return g.writeJSON(b)
			}
			fmt.Fprintln(g.out, b)
			return nil
		},
	}
}

// buildOf puts together what the linker was told and what Go has recorded.
func buildOf(info *debug.BuildInfo) build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	b.Commit, b.Modified = strings.CutSuffix(commit, "-dirty")
	if info != nil {
		if b.Version == "" && info.Main.Version != "(devel)" {
			b.Version = info.Main.Version // go install …@v1.2.3
		}
		for _, s := range info.Settings {
			switch {
			case commit != "":
			case s.Key == "vcs.revision":
				b.Commit = s.Value
			case s.Key == "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	return b
}

func (b build) String() string {
	s := "pinion " + b.Version
	if b.Commit != "" {
		s += fmt.Sprintf(", commit %.12s", b.Commit)
	}
	if b.Modified {
		s += " with changes"
	}
	return s + ", " + b.Go + " " + b.Platform
}
