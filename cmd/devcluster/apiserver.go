package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// newAPIServer returns the function that runs kube-apiserver on the listener.
func newAPIServer(ctx context.Context, p *pki, listener net.Listener) (func(context.Context) error, error) {
	nameProcess("kube-apiserver")
	opts := apiserveroptions.NewServerRunOptions()
	if err := parseFlags(opts.Flags(),
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
		"--etcd-servers="+etcdClientURL,
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
		"--client-ca-file="+p.caFile,
		"--tls-cert-file="+p.serverFile,
		"--tls-private-key-file="+p.serverKeyFile,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+p.serviceAccountKeyFile,
		"--service-account-signing-key-file="+p.serviceAccountKeyFile,
		// The nodes' Hostname is the address at which logs are served (kubelet.go).
		"--kubelet-preferred-address-types=Hostname",
		"--kubelet-certificate-authority="+p.caFile,
		"--kubelet-client-certificate="+p.kubeletClientFile,
		"--kubelet-client-key="+p.kubeletClientKeyFile,
	); err != nil {
		return nil, err
	}
	opts.SecureServing.Listener = listener
	opts.SecureServing.BindPort = listener.Addr().(*net.TCPAddr).Port
	if err := opts.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	completed, err := opts.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	return func(ctx context.Context) error { return app.Run(ctx, completed) }, nil
}

// nameProcess tells client-go whose clients are made next: it takes the default
// field manager from the process's name, and managedFields shall tell the truth.
func nameProcess(component string) { os.Args[0] = component }

func parseFlags(sets cliflag.NamedFlagSets, args ...string) error {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		all.AddFlagSet(set)
	}
	if err := all.Parse(args); err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	return nil
}
