package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
)

// kinds are those that have a schema, in the order in which they are listed.
var kinds = []desired.Kind{desired.KindEnvironment, desired.KindService, desired.KindPipeline, desired.KindPolicy, desired.KindHold}

func newSchemaCommand(g *globals) *cobra.Command {
	var names []string
	for _, k := range kinds {
		names = append(names, schemaName(k))
	}
	var dir string
	cmd := &cobra.Command{
		Use:   "schema KIND",
		Short: "Print the JSON Schema of a kind of file, for editors",
		Long: `Print the JSON Schema (draft-07) of a kind of file: ` + strings.Join(names, ", ") + `.

Editors that know the YAML language server check a file against the schema
that its first line names:
  # yaml-language-server: $schema=../.pinion/schema/environment.json

With --dir, the schemas of all kinds are written to a folder, over what is
there of these names.`,
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: names,
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := g.format("json"); err != nil {
				return err
			}
			switch {
			case dir != "" && len(args) == 0:
				return g.writeSchemas(dir)
			case dir == "" && len(args) == 1:
				return g.printSchema(args[0])
			}
			return errors.New("schema: name a kind (" + strings.Join(names, ", ") + "), or give --dir for all of them")
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "write the schemas of all kinds to this folder")
	return cmd
}

func (g *globals) printSchema(name string) error {
	for _, k := range kinds {
		if !strings.EqualFold(name, string(k)) {
			continue
		}
		data, err := desired.Schema(k)
		if err != nil {
			return err
		}
		_, err = g.out.Write(data)
		return err
	}
	var names []string
	for _, k := range kinds {
		names = append(names, schemaName(k))
	}
	return fmt.Errorf("schema: there is no kind %q; the kinds are %s", name, strings.Join(names, ", "))
}

func (g *globals) writeSchemas(dir string) error {
	files, err := schemaFiles("")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	for _, k := range kinds {
		name := schemaName(k) + ".json"
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o666); err != nil {
			return fmt.Errorf("schema: %w", err)
		}
		fmt.Fprintln(g.out, filepath.Join(dir, name))
	}
	return nil
}

// schemaFiles returns the schemas of all kinds, by their paths below a folder.
func schemaFiles(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, k := range kinds {
		data, err := desired.Schema(k)
		if err != nil {
			return nil, err
		}
		files[path.Join(dir, schemaName(k)+".json")] = data
	}
	return files, nil
}

func schemaName(k desired.Kind) string { return strings.ToLower(string(k)) }
