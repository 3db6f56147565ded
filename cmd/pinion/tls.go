package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// tlsConfig has the daemon answer over TLS.
type tlsConfig struct {
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
}

func (c *tlsConfig) check() error {
	if c != nil && (c.CertFile == "" || c.KeyFile == "") {
		return errors.New("api.tls: certFile and keyFile belong together; give both")
	}
	return nil
}

// certificate is read from two files, and again when they have changed.
type certificate struct {
	config tlsConfig
	logger *slog.Logger

	mu     sync.Mutex // guards what follows
	pair   *tls.Certificate
	stamp  string
	looked time.Time
	failed string // the last that was reported
}

// lookAgain is for how long the files are taken to be as they were.
const lookAgain = time.Second

// open reads the certificate; nil: there is none.
func (c *tlsConfig) open(logger *slog.Logger) (*certificate, error) {
	if c == nil {
		return nil, nil
	}
	x := &certificate{config: *c, logger: logger}
	pair, err := x.read()
	if err != nil {
		return nil, fmt.Errorf("api.tls: %w", err)
	}
	x.pair, x.stamp, x.looked = pair, x.stamps(), time.Now()
	return x, nil
}

// server returns how to answer over TLS; nil: without.
func (x *certificate) server() *tls.Config {
	if x == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return x.get(), nil }}
}

// peer returns how to ask another replica: one that has the same certificate as
// this one, for it is asked by its address, of which no certificate tells.
func (x *certificate) peer() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		if own := x.get().Certificate[0]; len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, own) {
			return errors.New("the replica has another certificate than this one; give all the same, in api.tls")
		}
		return nil
	}}
}

func (x *certificate) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(x.config.CertFile, x.config.KeyFile)
	return &pair, err
}

// stamps tells the files as they are now from those of before.
func (x *certificate) stamps() string {
	text := ""
	for _, name := range []string{x.config.CertFile, x.config.KeyFile} {
		if info, err := os.Stat(name); err == nil {
			text += fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size(), "\n")
		}
	}
	return text
}

// get returns the certificate; a new one that can't be used is reported, and the
// one of before stays.
func (x *certificate) get() *tls.Certificate {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	if now.Sub(x.looked) < lookAgain {
		return x.pair
	}
	x.looked = now
	stamp := x.stamps()
	if stamp == x.stamp {
		return x.pair
	}
	pair, err := x.read()
	if err != nil { // it may be half written: the next one looks again
		if x.failed != err.Error() {
			x.failed = err.Error()
			x.logger.Error("the certificate has changed and can't be used; the one of before stays", "error", err)
		}
		return x.pair
	}
	x.pair, x.stamp, x.failed = pair, stamp, ""
	x.logger.Info("the certificate was read again")
	return x.pair
}
