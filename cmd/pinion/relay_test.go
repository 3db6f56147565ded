package main

import (
	"maps"
	"net/http"
	"slices"
	"testing"
)

// What each forge signs with goes on with the delivery, and cookies and the like do
// not.
func TestSignatureGoesOn(t *testing.T) {
	h := http.Header{}
	signed := []string{"Authorization", "Content-Type", "User-Agent", "Webhook-Id", "Webhook-Signature", "Webhook-Timestamp", "X-Gitea-Signature", "X-Gitlab-Token", "X-Hub-Signature-256"}
	for _, name := range append([]string{"Connection", "Content-Length", "Cookie", "Host", "Transfer-Encoding"}, signed...) {
		h.Set(name, "1")
	}
	if got := slices.Sorted(maps.Keys(signedBy(h))); !slices.Equal(got, signed) {
		t.Errorf("what goes on is %v", got)
	}
}
