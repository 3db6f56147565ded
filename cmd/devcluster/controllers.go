package main

import (
	"context"

	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controlleroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

// newControllerManager returns the function that runs kube-controller-manager.
// It makes more clients while it runs, so no other part may name the process
// after it.
func newControllerManager(ctx context.Context, d dataDir, p *pki, kubeconfig string) (func(context.Context) error, error) {
	nameProcess("kube-controller-manager")
	opts, err := controlleroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	known, disabled, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	sets := opts.Flags(known, disabled, aliases)
	if err := parseFlags(sets,
		"--kubeconfig="+kubeconfig,
		"--leader-elect=false",
		"--secure-port=0",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+p.serviceAccountKeyFile,
		"--root-ca-file="+p.caFile,
		"--cluster-signing-cert-file="+p.caFile,
		"--cluster-signing-key-file="+p.caKeyFile,
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		// It creates this folder, by default below /usr.
		"--flex-volume-plugin-dir="+d.file("flexvolume"),
		// A process that was suspended for a while has not lost its nodes.
		"--node-monitor-grace-period=2h",
	); err != nil {
		return nil, err
	}
	opts.ParsedFlags = &sets
	config, err := opts.Config(ctx, known, disabled, aliases)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return app.Run(ctx, config.Complete()) }, nil
}
