// Package signature verifies that somebody who has a key has signed an image, in
// the forms of cosign (https://github.com/sigstore/cosign, its specifications
// SIGNATURE_SPEC and BUNDLE_SPEC).
//
// What is signed is a digest: a [Key] of the deployment repository has to have
// signed a payload that names the very digest that is asked for. A simple signing
// payload is one form, with its signature beside it; the other one is a bundle
// with an envelope (DSSE, https://github.com/secure-systems-lab/dsse), whose
// statement (in-toto) has to say that it is a signature, for the same key may
// sign that an image has failed a scan. Who signed is told by the key alone: no
// certificate, transparency log or time is looked at, and none is needed.
//
// Keys are of P-256 with ECDSA, of Ed25519, or of RSA with 2048 bits or more, as
// cosign makes and takes them. Nothing of a payload is believed before its
// signature is verified.
//
// It is pure, and the cryptography is the standard library's; whoever reads
// registries hands over what it found, of a size that it bounds.
package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Where signatures are found. A tag is made of a digest with [Tag]; a bundle is
// the only layer of what refers to the image with [BundleType].
const (
	Annotation = "dev.cosignproject.cosign/signature" // of a layer: the signature, in base64
	// PayloadType is of a layer that holds what was signed, and OldType of what
	// refers to the image and has such layers.
	PayloadType = "application/vnd.dev.cosign.simplesigning.v1+json"
	OldType     = "application/vnd.dev.cosign.artifact.sig.v1+json"
	// BundleType begins what a bundle's type is, which has a version behind it.
	BundleType = "application/vnd.dev.sigstore.bundle"
)

// MaxSize bounds a payload or a bundle that is worth to be read.
const MaxSize = 1 << 20

// Tag is the tag under which the signatures of a digest are.
func Tag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

// Key is somebody's public key.
type Key struct {
	// Fingerprint is the SHA-256 of the key as its DER has it, in hexadecimal
	// digits.
	Fingerprint string
	public      crypto.PublicKey
}

// ParseKey reads a public key from the text of a file in PEM, as `cosign
// generate-key-pair` and `openssl pkey -pubout` write it. There is nothing else
// in the file.
func ParseKey(text []byte) (Key, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return Key{}, errors.New("it is no public key in PEM: it has no -----BEGIN PUBLIC KEY-----")
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return Key{}, errors.New("it is a private key, which is none any more once others can read it: make another pair, and put the public key here")
	case block.Type != "PUBLIC KEY":
		return Key{}, fmt.Errorf("it is a %.40q, not a PUBLIC KEY", block.Type)
	case len(bytes.TrimSpace(rest)) > 0 || len(block.Headers) > 0 || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN ")):
		return Key{}, errors.New("something else than one key is in the file")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, errors.New("it is no public key that can be read")
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return Key{}, fmt.Errorf("its curve is %s, and P-256 is taken", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 8192 {
			return Key{}, fmt.Errorf("it has %d bits, and RSA keys of 2048 to 8192 are taken", n)
		}
	default:
		return Key{}, errors.New("it is of a kind that is not taken: make one of ECDSA with P-256, of Ed25519, or of RSA")
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, errors.New("it is no public key that can be read")
	}
	sum := sha256.Sum256(der)
	return Key{hex.EncodeToString(sum[:]), public}, nil
}

// signed tells whether the key has made the signature of a message.
func (k Key) signed(message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch p := k.public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(p, sum[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(p, message, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}

// by returns the fingerprints of the keys that have made one of the signatures.
func by(keys []Key, message []byte, signatures ...[]byte) []string {
	var all []string
	for _, k := range keys {
		if slices.ContainsFunc(signatures, func(s []byte) bool { return k.signed(message, s) }) {
			all = append(all, k.Fingerprint)
		}
	}
	return all
}

// ErrUnknownKey says that none of the keys has made the signature.
var ErrUnknownKey = errors.New("none of the keys has signed it")

// Payload returns which of the keys have signed a simple signing payload, at
// least one; the signature is in base64, and the payload must be about the
// digest.
func Payload(payload []byte, signature, digest string, keys []Key) ([]string, error) {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return nil, errors.New("the signature is not base64")
	}
	signers := by(keys, payload, raw)
	if len(signers) == 0 {
		return nil, ErrUnknownKey
	}
	var p struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, errors.New("what is signed is no simple signing payload")
	}
	if p.Critical.Type != "cosign container image signature" {
		return nil, fmt.Errorf("what is signed is a %.60q, no signature of an image", p.Critical.Type)
	}
	if p.Critical.Image.Digest != digest {
		return nil, fmt.Errorf("it signs %.80q, not %s", p.Critical.Image.Digest, digest)
	}
	return signers, nil
}

// Bundle returns which of the keys have signed what is in a bundle, at least
// one; it must be a signature of the digest.
func Bundle(bundle []byte, digest string, keys []Key) ([]string, error) {
	var b struct {
		MediaType string `json:"mediaType"`
		Envelope  *struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Signature []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	switch err := json.Unmarshal(bundle, &b); {
	case err != nil:
		return nil, errors.New("it is no bundle")
	case !strings.HasPrefix(b.MediaType, BundleType):
		return nil, fmt.Errorf("it is a %.60q, no bundle", b.MediaType)
	case b.Envelope == nil || len(b.Envelope.Signatures) != 1:
		return nil, errors.New("the bundle has no envelope with one signature")
	case b.Envelope.PayloadType != "application/vnd.in-toto+json":
		return nil, fmt.Errorf("the bundle is about a %.60q", b.Envelope.PayloadType)
	}
	e := b.Envelope
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(e.PayloadType), e.PayloadType, len(e.Payload))
	signers := by(keys, append(message, e.Payload...), e.Signatures[0].Signature)
	if len(signers) == 0 {
		return nil, ErrUnknownKey
	}
	var s struct {
		Type          string `json:"_type"`
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	switch err := json.Unmarshal(e.Payload, &s); {
	case err != nil:
		return nil, errors.New("what is signed is no statement")
	case s.Type != "https://in-toto.io/Statement/v1" && s.Type != "https://in-toto.io/Statement/v0.1":
		return nil, fmt.Errorf("what is signed is a %.60q, no statement", s.Type)
	case s.PredicateType != "https://sigstore.dev/cosign/sign/v1":
		return nil, fmt.Errorf("what is signed is a %.80q, no signature of an image", s.PredicateType)
	}
	algorithm, sum, _ := strings.Cut(digest, ":")
	for _, x := range s.Subject {
		if sum != "" && x.Digest[algorithm] == sum {
			return signers, nil
		}
	}
	return nil, fmt.Errorf("it signs something else than %s", digest)
}
