package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/render"
)

func newRenderCommand(g *globals) *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "render ENV [SERVICE]",
		Short: "Print what would be applied",
		Long: `Print the objects that would be applied to an environment, as YAML documents
(-o yaml), as a JSON list (-o json), or as one file for each object below a
folder (-o dir=PATH).

Without --rev the files are read as they lie in the working tree, and the
annotation pinion.dev/commit says "uncommitted".

The values of Secrets, and what was decrypted for other objects, are shown as
"***"; --show-secrets prints them.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return g.render(cmd.Context(), args, show) },
	}
	cmd.Flags().BoolVar(&show, "show-secrets", false, "print the values of Secrets")
	return cmd
}

// uncommitted stands for the commit of objects that are rendered from a
// working tree.
const uncommitted = "uncommitted"

func (g *globals) render(ctx context.Context, args []string, show bool) error {
	dir, toDir := strings.CutPrefix(g.output, "dir=")
	if toDir && dir == "" {
		return errors.New("-o dir=: there is no folder; write dir=PATH")
	}
	if !toDir {
		if _, err := g.format("yaml", "json", "dir=PATH"); err != nil {
			return err
		}
	}
	all, err := g.rendered(ctx, args)
	if err != nil {
		return err
	}
	var errs []error
	list := []json.RawMessage{}
	for _, r := range all {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Key, r.err))
			continue
		}
		for _, o := range r.Target.Result.All() {
			data := o.Masked(r.commit)
			if show {
				data = o.Stamp(r.commit)
			}
			switch {
			case toDir:
				err = writeObject(dir, r.Key, o.Ref, data)
			case g.output == "json":
				list = append(list, data)
			default:
				err = g.writeYAML(data)
			}
			if err != nil {
				return err
			}
		}
	}
	if g.output == "json" {
		if err := g.writeJSON(list); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// stamped is a rendering with the commit that it comes from.
type stamped struct {
	reconcile.Rendered
	commit string
	err    error
}

// rendered renders what the arguments name, and finds each one's commit.
func (g *globals) rendered(ctx context.Context, args []string) ([]stamped, error) {
	r, err := g.begin(ctx, workingTree)
	if err != nil {
		return nil, err
	}
	defer r.close()
	selection, err := r.selection(args)
	if err != nil {
		return nil, err
	}
	all, err := r.render(ctx, r.repository, selection)
	if err != nil {
		return nil, err
	}
	var out []stamped
	for _, one := range all {
		s := stamped{Rendered: one, commit: uncommitted, err: one.Err}
		if s.err == nil && r.commit.Snapshot != nil {
			s.commit, s.err = reconcile.Origin(ctx, r.commits, one.Target)
		}
		out = append(out, s)
	}
	return out, nil
}

func (g *globals) writeYAML(data []byte) error {
	text, err := yaml.JSONToYAML(data)
	if err != nil {
		return err
	}
	_, err = g.out.Write(append([]byte("---\n"), text...))
	return err
}

// writeObject writes one object to a file of its own.
func writeObject(dir string, k reconcile.Key, ref render.Ref, data []byte) error {
	text, err := yaml.JSONToYAML(data)
	if err != nil {
		return err
	}
	parts := []string{strings.ToLower(ref.Kind)}
	if ref.Group != "" {
		parts[0] += "." + ref.Group
	}
	if ref.Namespace == "" {
		parts = append(parts, "cluster")
	}
	parts = append(parts, strings.NewReplacer("/", "_", ":", "_").Replace(ref.Name))
	path := filepath.Join(dir, string(k.Environment), string(k.Service), strings.Join(parts, "_")+".yaml")
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if ref.Kind == "Secret" && ref.Group == "" {
		mode = 0o600
	}
	return os.WriteFile(path, text, mode)
}
