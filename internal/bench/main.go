// Command bench measures the daemon on a real control plane, beside the floor
// of the same work, in one run: `make bench`. It judges nothing; the figures
// belong into docs/benchmarks.md.
//
// The estate is one environment with 1,000 services of four objects each
// (Deployment scaled to zero, Service, ServiceAccount, Ingress), rendered with
// Kustomize. The floor is a plain loop that sends the very same objects by
// server-side apply over the same number of connections, to a control plane
// of its own that is as fresh as the daemon's.
//
// `make bench-flux` measures it beside Flux, whose controllers the module in
// flux/ pins, with the work of Flux's own benchmark.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var b bench
	flag.StringVar(&b.bin, "bin", "bin", "folder of the binaries pinion and devcluster")
	flag.IntVar(&b.services, "services", 1000, "services in the environment; of the estate in all environments together (10000 if it is not given)")
	flag.IntVar(&b.environments, "environments", 20, "environments of the estate")
	flag.IntVar(&b.connections, "connections", 16, "requests in flight, of the daemon and of the floor")
	flag.IntVar(&b.rounds, "rounds", 3, "rounds of the run from nothing, each with a fresh control plane for the floor and one for the daemon")
	flag.IntVar(&b.bumps, "bumps", 21, "commits that change one pin")
	flag.IntVar(&b.artifacts, "artifacts", 20_000, "versions that are known, of the part artifacts")
	flag.DurationVar(&b.idle, "idle", 5*time.Minute, "time to look at the daemon when nothing happens")
	flag.StringVar(&b.only, "only", "", "measure only this: apply, report, promote, ledger, artifacts, library, neighbours, drift, estate, api, rate, receivers, or what is measured only if it is named: flux or flux-repository")
	constants := flag.Bool("constants", false, "answer requests with as many bytes as their path says; the program starts itself so")
	flag.Parse()
	flag.Visit(func(f *flag.Flag) { b.given = b.given || f.Name == "services" })
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := b.run
	if *constants {
		run = answerConstants
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the settings of a run, and what its parts share.
type bench struct {
	bin                                  string
	services, connections, rounds, bumps int
	environments, artifacts              int
	given                                bool // services was
	idle                                 time.Duration
	only                                 string

	dir  string
	more string // pins of the environment besides the services'
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "pinion-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	parts := []struct {
		name string
		run  func(context.Context) error
	}{{"apply", b.apply}, {"report", b.fromReport}, {"promote", b.atOnce}, {"ledger", b.ledgers}, {"artifacts", b.knownArtifacts}, {"library", b.library}, {"neighbours", b.neighbours}, {"drift", b.drift}, {"estate", b.estate}, {"api", b.apiReads}, {"rate", b.apiReports}, {"receivers", b.receivers},
		{"flux", func(ctx context.Context) error { return b.production(ctx, &fluxSide{bench: b}) }},
		{"flux-repository", func(ctx context.Context) error { return b.production(ctx, &fluxSide{bench: b, repository: true}) }}}
	found := false
	for _, p := range parts {
		if b.only != p.name && (b.only != "" || strings.HasPrefix(p.name, "flux")) {
			continue
		}
		found = true
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Println()
	}
	if !found {
		return fmt.Errorf("there is nothing called %q to measure", b.only)
	}
	return nil
}

// apply measures a run from nothing, and small changes after it.
func (b *bench) apply(ctx context.Context) error {
	remote, clone, err := b.makeRepository(ctx)
	if err != nil {
		return err
	}
	objects, err := b.rendered(ctx, clone)
	if err != nil {
		return err
	}
	fmt.Printf("%d services, %d objects, %d connections\n\n", b.services, len(objects), b.connections)
	var floors, ours, ratios []float64
	for round := range b.rounds {
		floor, err := b.floorFromNothing(ctx, round, objects)
		if err != nil {
			return err
		}
		last := round == b.rounds-1
		took, err := b.daemonFromNothing(ctx, round, remote, clone, objects, last)
		if err != nil {
			return err
		}
		floors, ours, ratios = append(floors, floor.Seconds()), append(ours, took.Seconds()), append(ratios, took.Seconds()/floor.Seconds())
		fmt.Fprintf(os.Stderr, "round %d: floor %.2fs, pinion %.2fs, ratio %.2f\n", round+1, floor.Seconds(), took.Seconds(), took.Seconds()/floor.Seconds())
	}
	fmt.Printf("from nothing to all applied: floor %s, pinion %s, ratio %.2f (medians of %d rounds; ratios %.2f)\n",
		seconds(median(floors)), seconds(median(ours)), median(ratios), b.rounds, ratios)
	return nil
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

func median(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	if len(s) == 0 {
		return 0
	}
	return s[len(s)/2]
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}
