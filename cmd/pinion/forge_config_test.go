package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestForgeConfiguration(t *testing.T) {
	for _, tt := range []struct{ forge, want string }{
		{"{kind: github, webhookSecretFile: s}", ""},
		{"{kind: github, repository: shop/deploy, tokenFile: t, statuses: true, statusURL: 'https://p.example/{environment}/{commit}'}", ""},
		{"{kind: gitlab, repository: shop/apps/deploy, tokenFile: t}", ""},
		{"{kind: forgejo, url: 'https://git.example', repository: shop/deploy, tokenFile: t}", ""},
		{"{kind: sourcehut, webhookSecretFile: s}", "is no kind of forge"},
		{"{webhookSecretFile: s}", "is no kind of forge"},
		{"{kind: github}", "nothing but its kind"},
		{"{kind: github, webhookSecretFile: s, statuses: true}", "only with a token"},
		{"{kind: github, webhookSecretFile: s, repository: shop/deploy}", "without forge.tokenFile"},
		{"{kind: github, repository: shop/deploy, tokenFile: t, statusURL: 'https://p.example'}", "without forge.statuses"},
		{"{kind: github, repository: shop/deploy, tokenFile: t, statuses: true, statusURL: 'ftp://p.example'}", "not an http or https URL"},
		{"{kind: gitea, repository: shop/deploy, tokenFile: t}", "give its URL"},
		{"{kind: gitea, url: git.example, repository: shop/deploy, tokenFile: t}", "is not http(s)://HOST"},
		{"{kind: gitea, url: 'https://me:word@git.example', repository: shop/deploy, tokenFile: t}", "without user info"},
		{"{kind: github, tokenFile: t}", "is not a repository"},
		{"{kind: github, repository: shop/../deploy, tokenFile: t}", "is not a repository"},
		{"{kind: bitbucket, repository: shop/deploy, tokenFile: t}", "only its webhooks are taken"},
		{"{kind: github, webhookSecret: s}", "unknown key \"webhookSecret\""},
	} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte("apiVersion: pinion.dev/v1\nkind: Config\nforge: "+tt.forge+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := (&globals{config: file}).readConfig()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.forge, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.forge, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "word@"):
			t.Errorf("%s: the error shows the password: %v", tt.forge, err)
		}
	}
}
