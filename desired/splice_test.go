package desired_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
)

const (
	head   = "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: shop\n"
	commit = "4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c"
	other  = "0000000000000000000000000000000000000001" // a number, if it is not quoted
)

func TestSetPin(t *testing.T) {
	digest := "ghcr.io/acme/web:1.4.3@sha256:" + strings.Repeat("3", 64)
	for _, c := range []struct{ name, before, reference, want string }{
		{"plain", "pins:\n  web:\n    image: web:1.4.2 # ours\n  api:\n    image: api:1\n", "web:1.4.3", "pins:\n  web:\n    image: web:1.4.3 # ours\n  api:\n    image: api:1\n"},
		{"same", "pins:\n  web:\n    image: web:1\n", "web:1", "pins:\n  web:\n    image: web:1\n"},
		{"digest", "pins:\n  web:\n    image:   web:1.4.2\n", digest, "pins:\n  web:\n    image:   " + digest + "\n"},
		{"single quotes", "pins:\n  web:\n    image: 'web:1'   # x\n", "web:2", "pins:\n  web:\n    image: 'web:2'   # x\n"},
		{"double quotes", "pins:\n  web: {image: \"web:1\"}\n", "web:2", "pins:\n  web: {image: \"web:2\"}\n"},
		{"escaped", "pins:\n  web:\n    image: \"\\x77eb:1\"\n", "web:2", "pins:\n  web:\n    image: \"web:2\"\n"},
		{"a number", "pins:\n  web:\n    image: 1.4\n", "web:1.4", "pins:\n  web:\n    image: web:1.4\n"},
		{"flow", "pins: {api: {image: api:1}, web: {image: web:1}}\n", "web:2", "pins: {api: {image: api:1}, web: {image: web:2}}\n"},
		{"crlf", "pins:\r\n  web:\r\n    image: web:1\r\n  # end\r\n", "web:22", "pins:\r\n  web:\r\n    image: web:22\r\n  # end\r\n"},
		{"no end of line", "pins:\n  web:\n    image: web:1", "web:2", "pins:\n  web:\n    image: web:2"},
		{"wide characters before", "parameters: {ž: \"日本\"}\npins: {web: {note: ž日, image: web:1}}\n", "web:2", "parameters: {ž: \"日本\"}\npins: {web: {note: ž日, image: web:2}}\n"},
		{"separators of YAML 1.1", "parameters: {a: \"x\u2028y\", b: \"\u0085\"}\npins:\n  web:\n    image: web:1\n", "web:2", "parameters: {a: \"x\u2028y\", b: \"\u0085\"}\npins:\n  web:\n    image: web:2\n"},
		{"other faults stay", "nonsense: true\npins:\n  web:\n    image: web:1\n    tag: 3\n", "web:2", "nonsense: true\npins:\n  web:\n    image: web:2\n    tag: 3\n"},
		{"what looks like it", "# pins: web: image: web:1\npins:\n  web:\n    image: web:1 # web:1\n", "web:2", "# pins: web: image: web:1\npins:\n  web:\n    image: web:2 # web:1\n"},
	} {
		for _, mark := range []string{"", "\ufeff"} {
			t.Run(c.name, func(t *testing.T) {
				got, err := desired.SetPin("environments/dev.yaml", []byte(mark+head+c.before), "web", c.reference)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(mark+head+c.want, string(got)); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		}
	}
}

func TestSetPinRefuses(t *testing.T) {
	for _, c := range []struct{ name, before, reference, want string }{
		{"literal", "pins:\n  web:\n    image: |-\n      web:1\n", "web:2", "environments/dev.yaml:6:12: this goes over several lines, and can't be edited in place; write it in one line, plain or in quotes"},
		{"folded over lines", "pins:\n  web:\n    image: \"web:\\\n      1\"\n", "web:2", "environments/dev.yaml:6:12: this goes over several lines, and can't be edited in place; write it in one line, plain or in quotes"},
		{"a list", "pins:\n  web:\n    image: [web:1]\n", "web:2", "environments/dev.yaml:6:12: this is a list, and can't be edited in place; write it in one line, plain or in quotes"},
		{"alias", "pins:\n  web: &a\n    image: web:1\n  api: *a\n", "web:2", "environments/dev.yaml:5:8: an anchor (&a) is not accepted; remove it: aliases are not accepted either"},
		{"twice", "pins:\n  web:\n    image: web:1\n  web:\n    image: web:1\n", "web:2", `environments/dev.yaml:7:3: the key "web" is there twice; remove it here or in line 5`},
		{"text", "pins: web\n", "web:2", "environments/dev.yaml:4:7: this is text, not a mapping"},
		{"syntax", "pins: {\n", "web:2", "environments/dev.yaml:5:1: not valid YAML: did not find expected node content; check the indentation of this line and of the one before, and that brackets and quotes are closed"},
		{"no version", "pins:\n  web:\n    image: web:1\n", "web", `pin web in environments/dev.yaml: "web" has neither a tag nor a digest; pin an exact version: web:VERSION`},
		{"injection", "pins:\n  web:\n    image: web:1\n", "web:2\n  api: x", `pin web in environments/dev.yaml: "web:2\n  api: x": the repository "web:2\n  api" is not valid; a repository is lower-case letters, digits, and . _ - /`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := desired.SetPin("environments/dev.yaml", []byte(head+c.before), "web", c.reference)
			if err == nil || err.Error() != c.want || got != nil {
				t.Errorf("got %q and the error\n%v\nwant the error\n%s", got, err, c.want)
			}
		})
	}
	for _, before := range []string{"", "pins:\n", "pins:\n  api:\n    image: api:1\n", "pins:\n  web:\n", "pins:\n  web:\n    image:\n"} {
		if _, err := desired.SetPin("environments/dev.yaml", []byte(head+before), "web", "web:2"); !errors.Is(err, desired.ErrNotPinned) {
			t.Errorf("%q: got the error %v", before, err)
		}
	}
}

func TestSetManifests(t *testing.T) {
	for _, c := range []struct{ name, before, commit, want string }{
		{"replace", "manifests:\n  web: " + commit + " # was\n", commit[1:] + "0", "manifests:\n  web: " + commit[1:] + "0 # was\n"},
		{"replace with what looks like a number", "manifests:\n  web: " + commit + "\n", other, "manifests:\n  web: \"" + other + "\"\n"},
		{"replace in quotes", "manifests:\n  web: '" + commit + "'\n", other, "manifests:\n  web: '" + other + "'\n"},
		{"replace in braces", "manifests: {web: " + commit + "}\n", commit[1:] + "0", "manifests: {web: " + commit[1:] + "0}\n"},
		{"last", "manifests:\n  # of the API\n  api: " + commit + " # a\n# end\n", commit, "manifests:\n  # of the API\n  api: " + commit + " # a\n  web: " + commit + "\n# end\n"},
		{"first", "manifests:\n  # of z\n  z: " + commit + "\n", commit, "manifests:\n  web: " + commit + "\n  # of z\n  z: " + commit + "\n"},
		{"between", "manifests:\n    a: " + commit + "\n    # of z\n    z: " + commit + "\npins:\n", commit, "manifests:\n    a: " + commit + "\n    web: " + commit + "\n    # of z\n    z: " + commit + "\npins:\n"},
		{"no entries yet", "pins:\n    a:\n        image: a:1\nmanifests: # none\nparameters: {}\n", commit, "pins:\n    a:\n        image: a:1\nmanifests: # none\n    web: " + commit + "\nparameters: {}\n"},
		{"no entries yet at the end", "manifests:", commit, "manifests:\n  web: " + commit + "\n"},
		{"absent", "pins: {}\n# end\n", commit, "pins: {}\n# end\nmanifests:\n  web: " + commit + "\n"},
		{"absent, no end of line", "cluster: x", other, "cluster: x\nmanifests:\n  web: \"" + other + "\"\n"},
		{"no end of line", "manifests:\n  a: " + commit, commit, "manifests:\n  a: " + commit + "\n  web: " + commit + "\n"},
	} {
		for _, eol := range []string{"\n", "\r\n"} {
			t.Run(c.name, func(t *testing.T) {
				before, want := strings.ReplaceAll(head+c.before, "\n", eol), strings.ReplaceAll(head+c.want, "\n", eol)
				got, err := desired.SetManifests("environments/dev.yaml", []byte(before), "web", c.commit)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, string(got)); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		}
	}
	for _, c := range []struct{ name, before, want string }{
		{"braces", "manifests: {}\n", "environments/dev.yaml:4:12: manifests is written between braces, and a line can't be added to it; write it in lines, without { and }"},
		{"null", "manifests: null\n", "environments/dev.yaml:4:12: manifests is empty, not a mapping; remove what follows manifests:"},
		{"end of document", "...\n", "environments/dev.yaml:1:1: to add manifests: at the end of the file would change more than this; add it by hand once"},
		{"open block", "parameters:\n  a: |+\n    x", "environments/dev.yaml:1:1: to add manifests: at the end of the file would change more than this; add it by hand once"},
		{"several lines", "manifests:\n  a: \"4f\\\n    1c\"\n", "environments/dev.yaml:5:6: this goes over several lines, and can't be edited in place; write it in one line, plain or in quotes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := desired.SetManifests("environments/dev.yaml", []byte(head+c.before), "web", commit)
			if err == nil || err.Error() != c.want {
				t.Errorf("got %q and the error\n%v\nwant the error\n%s", got, err, c.want)
			}
		})
	}
	if _, err := desired.SetManifests("environments/dev.yaml", []byte(head), "web", "4f1c2aa"); err == nil {
		t.Error("an abbreviated commit was taken")
	}
}
