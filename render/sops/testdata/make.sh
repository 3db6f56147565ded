#!/bin/sh
# Encrypts what is in plain/ with a real sops (3.13) for the key in key.txt, a
# file for each way of saying what is encrypted. Run it by hand, with the
# program as $SOPS; it is no part of any build.
set -eu
cd "$(dirname "$0")"
sops=${SOPS:-sops}
key=$(sed -n 's/^# public key: //p' key.txt)
other=$(sed -n 's/^# public key: //p' other.txt)
enc() { out=$1; in=$2; shift 2; "$sops" --config /dev/null encrypt --age "$key" "$@" "plain/$in" >"$out"; }
enc secret.yaml secret.yaml --encrypted-regex '^(data|stringData)$'
enc secret_whole.yaml secret.yaml
enc values.yaml values.yaml
rule() {
	rules=$(mktemp)
	printf 'creation_rules: [{age: %s, %s}]\n' "$key" "$2" >"$rules"
	"$sops" --config "$rules" encrypt plain/rules.yaml >"$1"
	rm "$rules"
}
rule rules_mac_only.yaml 'mac_only_encrypted: true, encrypted_regex: "^hidden|shut$"'
rule rules_encrypted_comment_regex.yaml 'encrypted_comment_regex: "pinion: keep"'
rule rules_unencrypted_comment_regex.yaml 'unencrypted_comment_regex: "pinion: keep"'
enc rules_unencrypted_suffix.yaml rules.yaml --unencrypted-suffix _plain
enc rules_encrypted_suffix.yaml rules.yaml --encrypted-suffix _enc
enc rules_unencrypted_regex.yaml rules.yaml --unencrypted-regex 'plain$|^list$'
enc values.json values.json
enc values.env values.env
enc blob.conf blob.conf
"$sops" --config /dev/null encrypt --age "$other,$key" plain/values.json >two.json
"$sops" --config /dev/null encrypt --age "$other" plain/values.json >other.json
