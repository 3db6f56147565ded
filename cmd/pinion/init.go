package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed scaffold
var scaffold embed.FS

func newInitCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "init [DIR]",
		Short: "Scaffold a deployment repository that lints clean",
		Long: `Write a small deployment repository to DIR (default: --repo, or the current
folder): two environments, one service, a pipeline, and the JSON Schemas that
the first line of each file names for editors.

Nothing is overwritten: if one of the files is there already, none is written.
A README.md that is there is left as it is. The files are listed on standard
output.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := g.noFormat(); err != nil {
				return err
			}
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			} else if g.repo != "" {
				dir = g.repo
			}
			return g.initialize(dir)
		},
	}
}

func (g *globals) initialize(dir string) error {
	if isURL(dir) {
		return fmt.Errorf("init: %s is not a folder; clone the repository, and name the clone", dir)
	}
	if looksLikeRepository(dir) {
		return fmt.Errorf("init: %s has environments/ or services/ already; choose another folder", dir)
	}
	files, err := scaffoldFiles()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	written, err := writeFiles(dir, files, "README.md")
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	for _, f := range written {
		fmt.Fprintln(g.out, filepath.Join(dir, filepath.FromSlash(f)))
	}
	if !slices.Contains(written, "README.md") {
		fmt.Fprintln(g.err, "README.md was there and is left as it is")
	}
	fmt.Fprintf(g.err, "\nNext:\n")
	if filepath.Clean(dir) != "." {
		fmt.Fprintf(g.err, "  cd %s\n", dir)
	}
	if !exists(filepath.Join(dir, ".git")) {
		fmt.Fprintln(g.err, "  git init --initial-branch=main")
	}
	fmt.Fprintln(g.err, "  pinion lint\n  pinion render dev hello")
	return nil
}

// scaffoldFiles returns the files of a new repository, by their paths.
func scaffoldFiles() (map[string][]byte, error) {
	files, err := schemaFiles(".pinion/schema")
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(scaffold, "scaffold", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := scaffold.ReadFile(name)
		files[strings.TrimPrefix(name, "scaffold/")] = data
		return err
	})
	return files, err
}

// writeFiles writes files below a folder, and returns the paths of those that
// it wrote. If one is there already, none is written; if it is one of those to
// spare, it is left out.
func writeFiles(dir string, files map[string][]byte, spare ...string) ([]string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var names, taken []string
	for name := range files {
		_, err := root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			names = append(names, name)
		case err != nil:
			return nil, err
		case !slices.Contains(spare, name):
			taken = append(taken, name)
		}
	}
	slices.Sort(names)
	slices.Sort(taken)
	if len(taken) > 0 {
		return nil, fmt.Errorf("%s is there already; nothing was written; choose another folder, or move it away", filepath.Join(dir, filepath.FromSlash(taken[0])))
	}
	for i, name := range names {
		if err := writeNew(root, name, files[name]); err != nil {
			return nil, fmt.Errorf("%w; %d of %d files were written", err, i, len(names))
		}
	}
	return names, nil
}

// writeNew writes a file that must not be there.
func writeNew(root *os.Root, name string, data []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
