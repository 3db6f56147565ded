package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Secret is a key under which what is sent is signed.
type Secret []byte

const secretPrefix = "whsec_"

// ParseSecrets reads secrets, one a line, as Standard Webhooks writes them:
// whsec_ and 24 to 64 bytes in base64. While one is replaced by another, there
// are two, and each signs. The errors do not show them.
func ParseSecrets(text string) ([]Secret, error) {
	var all []Secret
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		const want = "write whsec_ and 24 to 64 random bytes in base64, as of: echo whsec_$(openssl rand -base64 32)"
		rest, ok := strings.CutPrefix(line, secretPrefix)
		if !ok {
			return nil, fmt.Errorf("line %d does not begin with %s; %s", n, secretPrefix, want)
		}
		key, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return nil, fmt.Errorf("line %d is not base64 behind %s; %s", n, secretPrefix, want)
		}
		if len(key) < 24 || len(key) > 64 {
			return nil, fmt.Errorf("line %d has %d bytes; %s", n, len(key), want)
		}
		all = append(all, key)
	}
	if len(all) == 0 {
		return nil, errors.New("it has no secret; make one with: echo whsec_$(openssl rand -base64 32)")
	}
	return all, nil
}

// Sign returns the headers of Standard Webhooks 1.0.0 (standardwebhooks.com):
// the id, the time of this try, and one signature for each secret, so that
// neither can be made up, nor an old message be sent again as a new one.
func Sign(secrets []Secret, id string, now time.Time, body []byte) map[string]string {
	at := strconv.FormatInt(now.Unix(), 10)
	h := map[string]string{"Webhook-Id": id, "Webhook-Timestamp": at}
	var signatures []string
	for _, s := range secrets {
		m := hmac.New(sha256.New, s)
		fmt.Fprintf(m, "%s.%s.", id, at)
		m.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)))
	}
	if len(signatures) > 0 {
		h["Webhook-Signature"] = strings.Join(signatures, " ")
	}
	return h
}
