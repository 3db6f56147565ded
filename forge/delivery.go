package forge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"time"
)

// MaxDelivery is the size that the body of a delivery may have, in bytes. It is
// GitHub's own bound; the others send less.
const MaxDelivery = 25 << 20

// signedFor is how old a delivery may be that says when it was signed.
const signedFor = 5 * time.Minute

// mostSecrets bounds what one request can have computed.
const mostSecrets = 4

// ErrUnsigned is the error of a delivery without the signature that its kind
// of forge sends.
var ErrUnsigned = errors.New("it is not signed; give the webhook the secret of the configuration's forge.webhookSecretFile")

// ErrForged is the error of a delivery with a wrong signature.
var ErrForged = errors.New("its signature is wrong: it was made with another secret, or the body was changed on its way")

// Delivery is a request of a webhook that is coming in. Its body is to be
// written to it as it arrives: nothing of it is kept.
type Delivery struct {
	proofs []proof
	proven bool // by what came before the body
}

// proof is a signature of the body, and what computes the one that it has to be.
type proof struct {
	mac  hash.Hash
	want []byte
}

// Secrets reads the secrets of a file: one a line, for while one takes the
// place of another both count.
func Secrets(file string) ([]string, error) {
	var all []string
	for line := range strings.Lines(file) {
		if s := strings.TrimRight(line, "\r\n"); strings.TrimSpace(s) != "" {
			all = append(all, s)
		}
	}
	switch {
	case len(all) == 0:
		return nil, errors.New("it holds no secret; make one with: openssl rand -hex 32")
	case len(all) > mostSecrets:
		return nil, fmt.Errorf("it holds %d secrets; %d can be in use at the same time", len(all), mostSecrets)
	}
	return all, nil
}

// Receive begins to take in a delivery that has to be signed with one of the
// secrets; header returns the first value of a header of the request. An error
// means that there is no need to read the body.
func (k Kind) Receive(secrets []string, header func(name string) string, now time.Time) (*Delivery, error) {
	switch k {
	case GitHub, Gitea, Forgejo:
		return hubSigned(secrets, header("X-Hub-Signature-256"))
	case Bitbucket:
		return hubSigned(secrets, header("X-Hub-Signature"))
	case GitLab:
		return gitlabSigned(secrets, header, now)
	}
	return nil, k.Check()
}

// hubSigned takes a signature as WebSub has it: the algorithm and the HMAC of
// the body, in hexadecimal digits.
func hubSigned(secrets []string, signature string) (*Delivery, error) {
	if signature == "" {
		return nil, ErrUnsigned
	}
	digits, ok := strings.CutPrefix(signature, "sha256=")
	want, err := hex.DecodeString(digits)
	if !ok || err != nil || len(want) != sha256.Size {
		return nil, ErrForged
	}
	d := &Delivery{}
	for _, s := range secrets {
		d.proofs = append(d.proofs, proof{hmac.New(sha256.New, []byte(s)), want})
	}
	return d, nil
}

// gitlabSigned takes a signing token's signature, as Standard Webhooks has it,
// or a secret token, which GitLab sends as it is.
func gitlabSigned(secrets []string, header func(string) string, now time.Time) (*Delivery, error) {
	token, signatures := header("X-Gitlab-Token"), header("Webhook-Signature")
	if token == "" && signatures == "" {
		return nil, ErrUnsigned
	}
	d := &Delivery{}
	var old error
	for _, s := range secrets {
		key, signs := strings.CutPrefix(s, "whsec_")
		if !signs {
			// Hashed first, so that not even its length can be told by the time it takes.
			have, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s))
			d.proven = hmac.Equal(have[:], want[:]) || d.proven
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(key)
		if err != nil {
			return nil, errors.New("the signing token of the configuration is not base64 behind whsec_; copy it anew")
		}
		id, stamp := header("Webhook-Id"), header("Webhook-Timestamp")
		seconds, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			continue
		}
		if age := now.Sub(time.Unix(seconds, 0)); age > signedFor || age < -signedFor {
			old = fmt.Errorf("it says that it was signed at %s, and it is %s: it is too old, or a clock is wrong",
				time.Unix(seconds, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
			continue
		}
		for i, one := range strings.Fields(signatures) {
			want, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, "v1,"))
			if !strings.HasPrefix(one, "v1,") || err != nil || i >= mostSecrets {
				continue
			}
			mac := hmac.New(sha256.New, raw)
			fmt.Fprintf(mac, "%s.%s.", id, stamp)
			d.proofs = append(d.proofs, proof{mac, want})
		}
	}
	if !d.proven && len(d.proofs) == 0 {
		if old != nil {
			return nil, old
		}
		return nil, ErrForged
	}
	return d, nil
}

// Write takes in some more of the body. It can't fail.
func (d *Delivery) Write(body []byte) (int, error) {
	for _, p := range d.proofs {
		p.mac.Write(body)
	}
	return len(body), nil
}

// Genuine tells whether the whole delivery was sent by who has a secret.
func (d *Delivery) Genuine() error {
	ok := d.proven
	for _, p := range d.proofs { // all of them, so that the time tells nothing
		ok = hmac.Equal(p.mac.Sum(nil), p.want) || ok
	}
	if !ok {
		return ErrForged
	}
	return nil
}
