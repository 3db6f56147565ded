package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
)

func newArtifactListCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "list [ARTIFACT|REPOSITORY]",
		Short: "List the versions of artifacts that are known",
		Long: `List the versions of artifacts that are known, those that came to be known last
first: what somebody has published, or a look at a registry has found. It reads the
branch pinion/artifacts of the clone, so ` + "`git fetch`" + ` comes first.`,
		Example: `  pinion artifact list web`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.listArtifacts(cmd.Context(), args)
		},
	}
}

// listed is a version as it is written.
type listed struct {
	artifact.Record
	// Artifacts are the names under which its repository is pinned.
	Artifacts []desired.ArtifactName `json:"artifacts,omitempty"`
}

func (g *globals) listArtifacts(ctx context.Context, args []string) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	l, err := g.openLedgers(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	repo, err := l.Repository(ctx)
	if err != nil {
		return err
	}
	shelf, err := l.Shelf(ctx)
	if err != nil {
		return err
	}
	names := map[string][]desired.ArtifactName{} // by repository
	for _, d := range repo.Deployments() {
		for _, p := range d.Pins {
			repository := artifact.Normal(p.Image.Repository)
			if all := names[repository]; !slices.Contains(all, p.Artifact) {
				names[repository] = append(all, p.Artifact)
			}
		}
	}
	all := []listed{}
	for _, repository := range shelf.Repositories() {
		of := names[repository]
		slices.Sort(of)
		if len(args) > 0 && repository != artifact.Normal(args[0]) && !slices.Contains(of, desired.ArtifactName(args[0])) {
			continue
		}
		for _, r := range shelf.Versions(repository) {
			all = append(all, listed{r, of})
		}
	}
	if len(args) > 0 && len(all) == 0 {
		known := shelf.Repositories()
		for _, r := range known {
			for _, a := range names[r] {
				known = append(known, string(a))
			}
		}
		return history.Unknown("artifact", args[0], known, "known are")
	}
	slices.SortStableFunc(all, func(a, b listed) int { return b.Found.Compare(a.Found) })
	switch format {
	case "json":
		return g.writeJSON(all)
	case "yaml":
		return g.writeValue(all)
	}
	if len(all) == 0 {
		fmt.Fprintln(g.err, "no version is known; see track: of a pipeline's stages, and pinion artifact publish")
		return nil
	}
	rows := [][]cell{plain("REPOSITORY", "VERSION", "KNOWN SINCE", "FROM", "BUILT FROM", "TESTS", "QUALITY", "SIGNED", "NOTE")}
	for _, x := range all {
		rows = append(rows, plain(x.Repository, x.Version, g.moment(l.Now, x.Found), x.from(), x.built(), string(x.Told().Tests), string(x.Told().Quality), x.signed(), x.note()))
	}
	return (&table{w: g.out}).write(filled(rows)...)
}

func (x listed) from() string {
	switch {
	case x.By == "":
		return string(x.Origin)
	case !x.Seen.IsZero():
		return x.By + ", " + string(artifact.FromRegistry)
	}
	return x.By
}

func (x listed) built() string {
	told := x.Told()
	text := told.Commit[:min(len(told.Commit), 12)]
	switch {
	case told.Branch == "":
	case text == "":
		text = told.Branch
	default:
		text += " of " + told.Branch
	}
	return text
}

func (x listed) signed() string {
	if len(x.Signed) == 0 {
		return ""
	}
	return "yes"
}

func (x listed) note() string {
	if len(x.Moved) == 0 {
		return ""
	}
	return "its tag was moved, which is refused"
}
