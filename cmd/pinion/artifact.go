package main

import "github.com/spf13/cobra"

func newArtifactCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "artifact",
		Short: "Publish a new version of an artifact, or list those that are known",
		Long: `Publish a new version of an artifact, or list those that are known. Which versions
enter an environment by themselves is said by track: of a pipeline's stage.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newArtifactPublishCommand(g), newArtifactListCommand(g))
	return cmd
}
