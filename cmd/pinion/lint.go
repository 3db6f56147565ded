package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // what is a time zone is no matter of the machine

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
)

func newLintCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "lint",
		Short: "Check everything offline: schema, references, expressions, and that every environment renders",
		Long: `Check everything offline: each file against its schema, the references between
files, the expressions of policies, and that every service renders in every
environment. Manifests that need an encrypted file are checked with the key that
opens it; without one, a warning says that they were not.

Without --rev the files are read as they lie in the working tree, committed or
not. Exit code 1 if there is an error; warnings alone are 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.lint(cmd.Context()) },
	}
}

func (g *globals) lint(ctx context.Context) error {
	format, err := g.format("text", "json")
	if err != nil {
		return err
	}
	r, err := g.begin(ctx, workingTree)
	if err != nil {
		return err
	}
	defer r.close()
	repo := r.commit.Repository
	if len(repo.Environments)+len(repo.Services)+len(repo.Problems) == 0 {
		return fmt.Errorf("lint: %s has no environments/ and no services/, so it is no deployment repository; name another with --repo, or start with `pinion init`", r.name)
	}
	all, err := r.render(ctx, r.repository, reconcile.Selection{})
	if err != nil {
		return err
	}
	problems, err := r.config.problems(repo, all, g.config != "")
	if err != nil {
		return err
	}
	errs := 0
	for _, p := range problems {
		if p.Severity == desired.SeverityError {
			errs++
		}
	}
	if format == "json" {
		if problems == nil {
			problems = []desired.Problem{}
		}
		if err := g.writeJSON(problems); err != nil {
			return err
		}
	} else {
		for _, p := range problems {
			fmt.Fprintln(g.out, problemLine(p))
		}
	}
	fmt.Fprintf(g.err, "%s, %s, %s: %s, %s\n", count(len(repo.Environments), "environment"), count(len(repo.Services), "service"),
		count(len(all), "rendering"), count(errs, "error"), count(len(problems)-errs, "warning"))
	if errs > 0 {
		return &exitError{code: exitDifferent}
	}
	return nil
}

// problemLine is a problem for people to read.
func problemLine(p desired.Problem) string {
	at := p.Position.String()
	p.Position = desired.Position{}
	return fmt.Sprintf("%s: %s: %s", printable(at), p.Severity, printable(p.Error()))
}

// problems is all that is wrong with the files of a commit and with what they
// render. Sure says that the configuration is the daemon's.
func (c *config) problems(repo *desired.Repository, all []reconcile.Rendered, sure bool) ([]desired.Problem, error) {
	problems := slices.Clone(repo.Problems)
	problems = append(problems, repo.CheckHolds(time.Now())...)
	problems = append(problems, repo.CheckTimezones(func(name string) bool {
		_, err := time.LoadLocation(name)
		return err == nil
	})...)
	problems = append(problems, policy.CheckExpressions(repo)...)
	problems = append(problems, health.Check(repo)...)
	if len(c.Clusters) > 0 {
		problems = append(problems, repo.CheckClusters(slices.Sorted(maps.Keys(c.Clusters)))...)
	}
	problems = append(problems, renderProblems(problems, all)...)
	problems = append(problems, clashes(all)...)
	problems = append(problems, outOfBounds(c.fences(), all, sure)...)
	if sure {
		allow, err := c.Outbound.allow()
		if err != nil {
			return nil, err
		}
		problems = append(problems, unlisted(repo, allow)...)
		problems = append(problems, unlistedRegistries(repo, allow)...)
		problems = append(problems, repo.CheckSinks(c.requestable())...)
	}
	return problems, nil
}

// renderProblems makes problems of renderings that failed, and of warnings;
// what is among the known problems already is not said twice.
func renderProblems(known []desired.Problem, all []reconcile.Rendered) []desired.Problem {
	said := map[string]bool{}
	for _, p := range known {
		said[p.Error()] = true
	}
	var problems []desired.Problem
	for _, r := range all {
		base := desired.Problem{
			Severity: desired.SeverityError,
			Position: desired.Position{File: "services/" + string(r.Service)},
			Kind:     desired.KindService,
			Name:     string(r.Service),
		}
		var re *render.Error
		switch {
		case errors.As(r.Err, &re):
			p := base
			p.Position = desired.Position{File: re.File, Line: re.Line, Column: re.Column}
			p.Message, p.Hint = fmt.Sprintf("in environment %s: %s", r.Environment, re.Message), re.Hint
			if re.Locked { // who may not read it may still check the rest
				p.Severity = desired.SeverityWarning
				p.Message = fmt.Sprintf("in environment %s: encrypted, not checked: %s", r.Environment, re.Message)
			}
			problems = append(problems, p)
		case r.Err != nil:
			for line := range strings.SplitSeq(r.Err.Error(), "\n") {
				if !said[line] {
					p := base
					p.Message = fmt.Sprintf("in environment %s: %s", r.Environment, line)
					problems = append(problems, p)
				}
			}
		default:
			for _, w := range r.Target.Result.Warnings {
				p := base
				p.Severity = desired.SeverityWarning
				p.Message = fmt.Sprintf("in environment %s: %s", r.Environment, w)
				problems = append(problems, p)
			}
		}
	}
	return problems
}

// outOfBounds finds objects that an environment may not have. Only the daemon's
// configuration is sure of that.
func outOfBounds(fences reconcile.Fences, all []reconcile.Rendered, sure bool) []desired.Problem {
	var problems []desired.Problem
	for _, r := range all {
		if r.Err != nil {
			continue
		}
		b := fences.Of(r.Target.Cluster, r.Environment, r.Target.Account)
		for _, o := range r.Target.Result.All() {
			why := b.Refusal(r.Environment, r.Target.Namespace, o.Ref)
			if why == "" {
				continue
			}
			p := desired.Problem{
				Severity: desired.SeverityWarning,
				Position: cmp.Or(o.At, desired.Position{File: "services/" + string(r.Service)}),
				Kind:     desired.KindService,
				Name:     string(r.Service),
			}
			if sure {
				p.Severity = desired.SeverityError
			}
			message, hint, _ := strings.Cut(why, "; ")
			p.Message, p.Hint = fmt.Sprintf("in environment %s: %s %s", r.Environment, o.Ref, message), hint
			problems = append(problems, p)
		}
	}
	return problems
}

// clashes finds objects that two services of one cluster render.
func clashes(all []reconcile.Rendered) []desired.Problem {
	type object struct {
		cluster desired.ClusterName
		ref     render.Ref
	}
	owner := map[object]reconcile.Key{}
	var problems []desired.Problem
	for _, r := range all {
		if r.Err != nil {
			continue
		}
		for _, o := range r.Target.Result.Objects {
			id := object{r.Target.Cluster, o.Ref}
			first, taken := owner[id]
			if !taken {
				owner[id] = r.Key
				continue
			}
			problems = append(problems, desired.Problem{
				Severity: desired.SeverityError,
				Position: desired.Position{File: "services/" + string(r.Service)},
				Message:  fmt.Sprintf("%s is rendered by two services, %s and %s", o.Ref, first, r.Key),
				Hint:     "rename it in one of them",
				Kind:     desired.KindService,
				Name:     string(r.Service),
			})
		}
	}
	return problems
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// writeJSON writes a value to standard output, indented.
func (g *globals) writeJSON(v any) error {
	enc := json.NewEncoder(g.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// unknown is the error about a name that the repository does not have.
func unknown[N ~string, V any](kind string, name N, have map[N]V) error {
	names := make([]string, 0, len(have))
	for _, n := range slices.Sorted(maps.Keys(have)) {
		names = append(names, string(n))
	}
	if len(names) == 0 {
		return fmt.Errorf("%s %s: %w; the repository has none", kind, name, history.ErrNotFound)
	}
	return fmt.Errorf("%s %s: %w; the repository has %s", kind, name, history.ErrNotFound, strings.Join(names, ", "))
}
