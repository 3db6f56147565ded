package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// The authority and the key that signs service accounts' tokens are kept, so
// that what they signed outlives a restart; all else is issued at each start.
const certLifetime = 10 * 365 * 24 * time.Hour

// A pki holds the files and keys by which the parts know each other.
type pki struct {
	caFile, caKeyFile         string
	serverFile, serverKeyFile string
	serviceAccountKeyFile     string

	kubeletFile, kubeletKeyFile             string // the kubelet serves with these
	kubeletClientFile, kubeletClientKeyFile string // and the API server comes with these

	ca    *x509.Certificate
	caKey crypto.Signer
	caPEM []byte
}

// kubeletClient is who the API server is to the kubelet.
const kubeletClient = "kube-apiserver-kubelet-client"

// An identity is a certificate: of a server, or of a client, and then the name
// is the user, the groups its groups.
type identity struct {
	certPEM, keyPEM []byte
}

func (id identity) write(certFile, keyFile string) error {
	return errors.Join(writeFile(certFile, id.certPEM), writeFile(keyFile, id.keyPEM))
}

func openPKI(d dataDir) (*pki, error) {
	p := &pki{
		caFile:                d.file("pki", "ca.crt"),
		caKeyFile:             d.file("pki", "ca.key"),
		serverFile:            d.file("pki", "server.crt"),
		serverKeyFile:         d.file("pki", "server.key"),
		serviceAccountKeyFile: d.file("pki", "service-account.key"),
		kubeletFile:           d.file("pki", "kubelet.crt"),
		kubeletKeyFile:        d.file("pki", "kubelet.key"),
		kubeletClientFile:     d.file("pki", "kubelet-client.crt"),
		kubeletClientKeyFile:  d.file("pki", "kubelet-client.key"),
	}
	if err := p.openAuthority(); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if _, _, err := loadOrCreateKey(p.serviceAccountKeyFile); err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	server, err := p.server("kube-apiserver", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
	if err != nil {
		return nil, err
	}
	kubelet, err := p.server("kubelet")
	if err != nil {
		return nil, err
	}
	toKubelet, err := p.client(kubeletClient)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		server.write(p.serverFile, p.serverKeyFile),
		kubelet.write(p.kubeletFile, p.kubeletKeyFile),
		toKubelet.write(p.kubeletClientFile, p.kubeletClientKeyFile),
	); err != nil {
		return nil, fmt.Errorf("keep the certificates: %w", err)
	}
	return p, nil
}

func (p *pki) openAuthority() error {
	key, created, err := loadOrCreateKey(p.caKeyFile)
	if err != nil {
		return err
	}
	p.caKey = key
	if created {
		template := &x509.Certificate{
			Subject:               pkix.Name{CommonName: "devcluster"},
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
			IsCA:                  true,
			BasicConstraintsValid: true,
		}
		certPEM, err := sign(template, template, key.Public(), key)
		if err != nil {
			return err
		}
		if err := writeFile(p.caFile, certPEM); err != nil {
			return err
		}
	}
	if p.caPEM, err = os.ReadFile(p.caFile); err != nil {
		return err
	}
	block, _ := pem.Decode(p.caPEM)
	if block == nil {
		return fmt.Errorf("%s holds no PEM block: remove the data folder and start afresh", p.caFile)
	}
	p.ca, err = x509.ParseCertificate(block.Bytes)
	return err
}

// server issues a serving certificate for loopback.
func (p *pki) server(name string, dnsNames ...string) (identity, error) {
	id, err := p.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:    dnsNames,
	})
	if err != nil {
		return id, fmt.Errorf("serving certificate for %s: %w", name, err)
	}
	return id, nil
}

// client issues a client certificate for a user.
func (p *pki) client(user string, groups ...string) (identity, error) {
	id, err := p.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return id, fmt.Errorf("client certificate for %s: %w", user, err)
	}
	return id, nil
}

func (p *pki) issue(template *x509.Certificate) (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	certPEM, err := sign(template, p.ca, key.Public(), p.caKey)
	if err != nil {
		return identity{}, err
	}
	keyPEM, err := encodeKey(key)
	return identity{certPEM: certPEM, keyPEM: keyPEM}, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(certLifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func loadOrCreateKey(path string) (key crypto.Signer, created bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, false, err
		}
		data, err := encodeKey(key)
		if err != nil {
			return nil, false, err
		}
		return key, true, writeFile(path, data)
	}
	if err != nil {
		return nil, false, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, false, fmt.Errorf("%s holds no PEM block: remove the data folder and start afresh", path)
	}
	key, err = x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, err)
	}
	return key, false, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
