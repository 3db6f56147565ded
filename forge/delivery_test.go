package forge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func hub(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// standard signs as Standard Webhooks asks.
func standard(key []byte, id string, at time.Time, body string) http.Header {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "." + body))
	h := http.Header{}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", stamp)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return h
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func receive(k Kind, secrets []string, h http.Header, body string) error {
	d, err := k.Receive(secrets, h.Get, now)
	if err != nil {
		return err
	}
	for body != "" { // as it may arrive
		n := min(3, len(body))
		d.Write([]byte(body[:n]))
		body = body[n:]
	}
	return d.Genuine()
}

func TestDeliveries(t *testing.T) {
	// The example of GitHub's documentation.
	const (
		secret  = "It's a Secret to Everybody"
		body    = "Hello, World!"
		example = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
	)
	if got := hub(secret, body); got != example {
		t.Fatalf("the test signs %s, not %s", got, example)
	}
	key := []byte("0123456789abcdef0123456789abcdef")
	token := "whsec_" + base64.StdEncoding.EncodeToString(key)
	rolled := standard(key, "1", now, body)
	rolled.Set("webhook-signature", "v1a,xyz v1,AAAA "+rolled.Get("webhook-signature"))
	tests := []struct {
		name    string
		kind    Kind
		secrets []string
		header  http.Header
		body    string
		want    string // of the error; empty: genuine
	}{
		{"github", GitHub, []string{secret}, headers("X-Hub-Signature-256", example), body, ""},
		{"gitea", Gitea, []string{secret}, headers("X-Hub-Signature-256", example), body, ""},
		{"forgejo", Forgejo, []string{secret}, headers("X-Hub-Signature-256", example), body, ""},
		{"bitbucket", Bitbucket, []string{secret}, headers("X-Hub-Signature", example), body, ""},
		{"one of two secrets", GitHub, []string{"new", secret}, headers("X-Hub-Signature-256", example), body, ""},
		{"another secret", GitHub, []string{"new"}, headers("X-Hub-Signature-256", example), body, "signature is wrong"},
		{"another body", GitHub, []string{secret}, headers("X-Hub-Signature-256", example), body + " ", "signature is wrong"},
		{"an empty body", GitHub, []string{secret}, headers("X-Hub-Signature-256", example), "", "signature is wrong"},
		{"no signature", GitHub, []string{secret}, headers(), body, "not signed"},
		{"sha1 alone", GitHub, []string{secret}, headers("X-Hub-Signature", "sha1=33f9d709782f62b8b4a0178586c65ab098a39fe2"), body, "not signed"},
		{"sha1 in the place of sha256", Bitbucket, []string{secret}, headers("X-Hub-Signature", "sha1=33f9d709782f62b8b4a0178586c65ab098a39fe2"), body, "signature is wrong"},
		{"half a signature", GitHub, []string{secret}, headers("X-Hub-Signature-256", example[:40]), body, "signature is wrong"},
		{"no digits", GitHub, []string{secret}, headers("X-Hub-Signature-256", "sha256=Hello"), body, "signature is wrong"},
		{"gitlab's token", GitLab, []string{secret}, headers("X-Gitlab-Token", secret), body, ""},
		{"a wrong token", GitLab, []string{secret}, headers("X-Gitlab-Token", secret+"x"), body, "signature is wrong"},
		{"no token", GitLab, []string{secret}, headers(), body, "not signed"},
		{"github's signature for gitlab", GitLab, []string{secret}, headers("X-Hub-Signature-256", example), body, "not signed"},
		{"gitlab's signature", GitLab, []string{token}, standard(key, "1", now, body), body, ""},
		{"one of several signatures", GitLab, []string{token}, rolled, body, ""},
		{"the signing token in the clear", GitLab, []string{token}, headers("X-Gitlab-Token", token), body, "signature is wrong"},
		{"another body, signed", GitLab, []string{token}, standard(key, "1", now, body), "x", "signature is wrong"},
		{"an old one", GitLab, []string{token}, standard(key, "1", now.Add(-6*time.Minute), body), body, "too old"},
		{"one of the future", GitLab, []string{token}, standard(key, "1", now.Add(6*time.Minute), body), body, "too old"},
		{"a secret that is none", GitLab, []string{"whsec_%"}, standard(key, "1", now, body), body, "not base64"},
		{"no kind", "sourcehut", []string{secret}, headers(), body, "no kind of forge"},
		{"no secrets", GitHub, nil, headers("X-Hub-Signature-256", example), body, "signature is wrong"},
		{"no secrets for gitlab", GitLab, nil, headers("X-Gitlab-Token", ""), body, "not signed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := receive(tt.kind, tt.secrets, tt.header, tt.body)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// A signature of one delivery proves nothing of another one.
func FuzzDelivery(f *testing.F) {
	f.Add("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", "", "", "", "body")
	f.Add("", "token", "v1,AAAA", "1764331200", "body")
	f.Fuzz(func(t *testing.T, signature, token, standard, stamp, body string) {
		h := headers("X-Hub-Signature-256", signature, "X-Hub-Signature", signature, "X-Gitlab-Token", token,
			"Webhook-Signature", standard, "Webhook-Timestamp", stamp)
		secret := "a secret that the fuzzer does not know: 6f1c"
		for _, k := range Kinds {
			if err := receive(k, []string{secret, "whsec_" + base64.StdEncoding.EncodeToString([]byte(secret))}, h, body); err == nil {
				t.Errorf("%s takes it", k)
			}
		}
	})
}

func TestSecrets(t *testing.T) {
	got, err := Secrets("one\r\ntwo two\n\n")
	if err != nil || len(got) != 2 || got[0] != "one" || got[1] != "two two" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, file := range []string{"", "\n \n", "1\n2\n3\n4\n5\n"} {
		if got, err := Secrets(file); err == nil {
			t.Errorf("%q gives %q", file, got)
		}
	}
	if err := receive(GitHub, []string{"x"}, headers(), ""); !errors.Is(err, ErrUnsigned) {
		t.Errorf("got %v, want ErrUnsigned", err)
	}
}
