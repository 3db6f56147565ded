package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/api"
)

// writeCertificate writes a certificate that signs itself, and its key.
func writeCertificate(t *testing.T, c tlsConfig, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, x, x, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{c.CertFile: {Type: "CERTIFICATE", Bytes: der}, c.KeyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := tlsConfig{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	if _, err := c.open(slog.New(slog.DiscardHandler)); err == nil {
		t.Error("it answers without a certificate")
	}
	writeCertificate(t, c, "one.example")
	secure, err := c.open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answers, err := api.New(api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- newServer(newMetrics(), answers, nil, nil).serve(ctx, l, secure.server()) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	name := func() string {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	until := func(want string) {
		t.Helper()
		end := time.Now().Add(patience)
		for tick := time.NewTicker(50 * time.Millisecond); name() != want; <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("it answers as %s, not as %s", name(), want)
			}
		}
	}
	until("one.example")
	peer := &http.Client{Transport: &http.Transport{TLSClientConfig: secure.peer()}}
	resp, err := peer.Get("https://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	other := tlsConfig{filepath.Join(dir, "other.crt"), filepath.Join(dir, "other.key")}
	writeCertificate(t, other, "two.example")
	stranger, err := other.open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: stranger.peer()}}).Get("https://" + l.Addr().String() + "/healthz"); err == nil {
		t.Error("a replica with another certificate is trusted")
	}
	// The key of one and the certificate of another: what was there stays.
	if err := os.Rename(other.CertFile, c.CertFile); err != nil {
		t.Fatal(err)
	}
	secure.mu.Lock()
	secure.looked = time.Time{}
	secure.mu.Unlock()
	until("one.example")
	if err := os.Rename(other.KeyFile, c.KeyFile); err != nil {
		t.Fatal(err)
	}
	until("two.example")
}
