package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// What the receivers are told of, besides the promotions.
const (
	toldSecond = 100 // reports
	toldFor    = 10 * time.Second
)

// receivers measures what it costs that those who are told the news are down: in
// turn, runs without any, with one that takes what comes, with one that refuses
// the connection, and with one that accepts it and never answers.
func (b *bench) receivers(ctx context.Context) error {
	taking, err := listen(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err != nil {
		return err
	}
	defer taking.Close()
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts, so the system does, and that is all
	if err != nil {
		return err
	}
	defer hanging.Close()
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	refusing.Close()
	kinds := []struct{ name, address string }{{"nobody", ""}, {"one that takes it", taking.Addr().String()},
		{"one that refuses", refusing.Addr().String()}, {"one that hangs", hanging.Addr().String()}}
	promotions, reports, cpus := make([][]float64, len(kinds)), make([][]float64, len(kinds)), make([][]float64, len(kinds))
	tails := make([][]string, len(kinds)) // by round
	for round := range b.rounds {
		for turn := range kinds {
			i := (turn + round) % len(kinds) // so that each kind comes first, and last
			k, n := kinds[i], round*len(kinds)+turn
			promoted, reported, cpu, err := b.telling(ctx, n, k.address)
			if err != nil {
				return fmt.Errorf("told %s: %w", k.name, err)
			}
			tails[i] = append(tails[i], seconds(share(reported, 0.99)))
			promotions[i], reports[i], cpus[i] = append(promotions[i], promoted...), append(reports[i], reported...), append(cpus[i], cpu)
		}
	}
	for i, k := range kinds {
		fmt.Printf("the news are told %s: promotion %s (ratio %.2f); report median %s, p99 %s (%.2f, %.2f; by rounds %s); CPU time of the daemon %s (%.2f); %d rounds\n", k.name,
			seconds(median(promotions[i])), median(promotions[i])/median(promotions[0]),
			seconds(median(reports[i])), seconds(share(reports[i], 0.99)), median(reports[i])/median(reports[0]), share(reports[i], 0.99)/share(reports[0], 0.99), strings.Join(tails[i], ", "),
			seconds(median(cpus[i])), median(cpus[i])/median(cpus[0]), b.rounds)
	}
	return nil
}

func listen(h http.Handler) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		go http.Serve(l, h)
	}
	return l, err
}

// telling promotes one version after the other, and then sends reports, all of
// which a receiver at an address is told; "": there is none.
func (b *bench) telling(ctx context.Context, n int, address string) (promotions, reports []float64, cpu float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	p, err := b.makePromoted(ctx, fmt.Sprintf("told-%d", n), 1, "e2e", "apiVersion: pinion.dev/v1\nkind: Policy\nreport: {by: [ci]}\n")
	if err != nil {
		return nil, nil, 0, err
	}
	c, err := b.startControlPlane(ctx, fmt.Sprintf("told-cluster-%d", n))
	if err != nil {
		return nil, nil, 0, err
	}
	defer c.stop()
	var sinks strings.Builder
	if address != "" {
		fmt.Fprintf(&sinks, "sinks:\n  receiver: {url: \"http://%s/\"}\n", address)
	}
	d, err := b.apiDaemon(300+n, p.remote, c.kubeconfig, sinks.String())
	if err != nil {
		return nil, nil, 0, err
	}
	defer d.stop()
	if promotions, err = b.promoteEach(ctx, p, d); err != nil {
		return nil, nil, 0, err
	}
	reports, _, failed := reportSteadily(ctx, d, p, load{name: "a", version: fmt.Sprintf("1.0.%d", b.bumps), whole: toldFor, second: toldSecond})
	if failed > 0 {
		return nil, nil, 0, fmt.Errorf("%d reports were not acknowledged", failed)
	}
	spent, _, err := d.process()
	return promotions, reports, spent.Seconds(), err
}
