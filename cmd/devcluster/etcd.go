package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Sockets in the working directory, which is the data folder. etcd takes the
// host of the address for the name.
const (
	etcdClientURL = "unix://etcd.sock"
	etcdPeerURL   = "unix://etcd-peer.sock"
)

// startEtcd returns when etcd serves.
func startEtcd(d dataDir, log io.Writer) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Name = "devcluster"
	config.Dir = d.file("etcd")
	config.ListenClientUrls = []url.URL{mustURL(etcdClientURL)}
	config.ListenPeerUrls = []url.URL{mustURL(etcdPeerURL)}
	// Nobody dials these, but etcd insists on a host and a port.
	config.AdvertiseClientUrls = []url.URL{mustURL("http://127.0.0.1:2379")}
	config.AdvertisePeerUrls = []url.URL{mustURL("http://127.0.0.1:2380")}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	config.EnableGRPCGateway = false
	// Unset, it is zero, and every request is logged as slow.
	config.WarningUnaryRequestDuration = 5 * time.Second
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(zapcore.NewCore(
		zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(log), zap.ErrorLevel)))

	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", config.Dir, err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err := <-etcd.Err():
		return nil, fmt.Errorf("start etcd in %s: %w", config.Dir, err)
	}
}

func runEtcd(ctx context.Context, etcd *embed.Etcd) error {
	defer etcd.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-etcd.Err():
		return err
	case <-etcd.Server.StopNotify():
		return errors.New("it stopped by itself")
	}
}

func mustURL(text string) url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return *u
}
