package main

import (
	"context"

	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// newScheduler returns the function that runs kube-scheduler. All its clients
// are made here.
func newScheduler(ctx context.Context, kubeconfig string) (func() error, error) {
	nameProcess("kube-scheduler")
	opts := scheduleroptions.NewOptions()
	if err := parseFlags(*opts.Flags,
		"--kubeconfig="+kubeconfig,
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	); err != nil {
		return nil, err
	}
	config, scheduler, err := app.Setup(ctx, opts)
	if err != nil {
		return nil, err
	}
	// Run says "finished without leader elect" even if it was told to stop.
	return func() error { return app.Run(ctx, config, scheduler) }, nil
}
