package render_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/sops"
)

// encrypted is a file that a real sops has made.
func encrypted(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("sops", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func ageKeys(t testing.TB, name string) *sops.Keys {
	t.Helper()
	k, err := sops.ParseKeys(name, []byte(encrypted(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func build(t testing.TB, tree map[string]string, change ...func(*render.Renderer, *render.Request)) (*render.Result, error) {
	t.Helper()
	r, req := render.Renderer{Keys: ageKeys(t, "key.txt")}, request()
	req.Plaintext = false
	for _, f := range change {
		f(&r, &req)
	}
	return r.Build(t.Context(), files(tree), req)
}

func noKeys(r *render.Renderer, _ *render.Request)           { r.Keys = nil }
func plaintextAllowed(_ *render.Renderer, q *render.Request) { q.Plaintext = true }

// password is in values.json, as "password".
const password = `päss "word" 🐎`

func data(t *testing.T, r *render.Result, name string) map[string]string {
	t.Helper()
	for _, o := range r.Objects {
		if o.Ref.Kind != "Secret" || o.Ref.Name != name {
			continue
		}
		var s struct{ Data, StringData map[string]string }
		if err := json.Unmarshal(o.JSON, &s); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for k, v := range s.Data {
			raw, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				t.Fatal(err)
			}
			out[k] = string(raw)
		}
		for k, v := range s.StringData {
			out[k] = v
		}
		return out
	}
	t.Fatalf("there is no Secret %s", name)
	return nil
}

const jsonnetSecret = `
local db = import 'db.json';
{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'db' }, stringData: {
  password: db.password,
  url: 'postgres://' + db.password + '@db',
  conf: importstr 'blob.conf.txt',
  port: std.toString(db.port),
} }`

func TestEncryptedFilesAreReadByEachRenderer(t *testing.T) {
	blob := string([]rune(encrypted(t, "plain/blob.conf")))
	for name, c := range map[string]struct {
		tree map[string]string
		want map[string]string
	}{
		"plain": {map[string]string{"services/web/s.yaml": encrypted(t, "secret.yaml")},
			map[string]string{"password": `correct horse: battery "staple" ☃`, "config.yaml": "url: postgres://app:hunter2@db/app\ntries: 3\n", "token": "canary"}},
		"plain, all of it": {map[string]string{"services/web/s.yaml": encrypted(t, "secret_whole.yaml")},
			map[string]string{"password": `correct horse: battery "staple" ☃`, "config.yaml": "url: postgres://app:hunter2@db/app\ntries: 3\n", "token": "canary"}},
		"kustomize": {map[string]string{
			"services/web/kustomization.yaml": "resources: [s.yaml]\nsecretGenerator:\n- name: gen\n  envs: [v.env]\n  files: [blob.conf, v.json]\ngeneratorOptions: {disableNameSuffixHash: true}\n",
			"services/web/s.yaml":             encrypted(t, "secret.yaml"),
			"services/web/v.env":              encrypted(t, "values.env"),
			"services/web/v.json":             encrypted(t, "values.json"),
			"services/web/blob.conf":          encrypted(t, "blob.conf"),
		}, map[string]string{"password": `correct horse: battery "staple" ☃`, "config.yaml": "url: postgres://app:hunter2@db/app\ntries: 3\n", "token": "canary"}},
		"jsonnet": {map[string]string{
			"services/web/main.jsonnet":  jsonnetSecret,
			"services/web/db.json":       encrypted(t, "values.json"),
			"services/web/blob.conf.txt": encrypted(t, "blob.conf"),
		}, map[string]string{"password": password, "url": "postgres://" + password + "@db", "conf": blob, "port": "5432"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := build(t, c.tree)
			if err != nil {
				t.Fatal(err)
			}
			got := data(t, r, "db")
			for k, v := range c.want {
				if got[k] != v {
					t.Errorf("%s is %q, not %q", k, got[k], v)
				}
			}
			if !r.Sealed || !strings.HasPrefix(r.Objects[0].Digest, "hmac-sha256:") || len(r.Warnings) > 1 {
				t.Errorf("sealed %v, digest %s, warnings %q", r.Sealed, r.Objects[0].Digest, r.Warnings)
			}
			if name == "kustomize" {
				gen := data(t, r, "gen")
				if gen["PASSWORD"] != `p=ss "word" # not a comment` || gen["USER"] != "app" || gen["blob.conf"] != encrypted(t, "plain/blob.conf") || !strings.Contains(gen["v.json"], "🐎") {
					t.Errorf("the generator made %q", gen)
				}
			}
			for _, read := range r.Reads {
				if strings.HasSuffix(read.Path, "s.yaml") {
					if id, err := files(c.tree).ID(read.Path); err != nil || id != read.ID {
						t.Errorf("%s is recorded as %s, not as the encrypted file %s", read.Path, read.ID, id)
					}
				}
			}
			cache := render.NewCache(1 << 20)
			if err := cache.Put(request(), r); err != nil {
				t.Fatal(err)
			}
			if kept, _ := cache.Get(request(), files(c.tree)); kept != nil {
				t.Error("the cache keeps it")
			}
		})
	}
}

func TestPlaintextIsRefusedUnlessAllowed(t *testing.T) {
	object := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
	for name, tree := range map[string]map[string]string{
		"data":       {"services/web/s.yaml": object + "data: {a: YWJj}\n"},
		"stringData": {"services/web/s.yaml": object + "stringData: {a: abc}\n"},
		"kustomize":  {"services/web/kustomization.yaml": "secretGenerator: [{name: s, literals: [a=abc]}]\n"},
		"jsonnet":    {"services/web/main.jsonnet": "{apiVersion: 'v1', kind: 'Secret', metadata: {name: 's'}, stringData: {a: 'abc'}}"},
		"beside an encrypted one": {"services/web/main.jsonnet": strings.Replace(jsonnetSecret, "port:", "extra: 'abc', port:", 1),
			"services/web/db.json": encrypted(t, "values.json"), "services/web/blob.conf.txt": encrypted(t, "blob.conf")},
	} {
		_, err := build(t, tree)
		var e *render.Error
		if !errors.As(err, &e) || !strings.Contains(e.Message, " is in the clear") || !strings.Contains(e.Hint, "secrets: {plaintext: allow}") || strings.Contains(err.Error(), "abc") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := build(t, tree, plaintextAllowed); err != nil {
			t.Errorf("%s, allowed: %v", name, err)
		}
	}
	for name, tree := range map[string]map[string]string{
		"nothing in it": {"services/web/s.yaml": object},
		"empty":         {"services/web/s.yaml": object + "data: {a: \"\", b: null}\n"},
		"no Secret":     {"services/web/s.yaml": "apiVersion: example.com/v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: b}\n"},
	} {
		if _, err := build(t, tree); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := build(t, map[string]string{"services/web/s.yaml": object + "stringData: {a: \"ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]\"}\n"}, plaintextAllowed)
	if err == nil || !strings.Contains(err.Error(), "no SOPS metadata") {
		t.Errorf("a value without metadata: %v", err)
	}
}

func TestAFileThatNoKeyOpensIsLocked(t *testing.T) {
	for name, tree := range map[string]map[string]string{
		"plain":     {"services/web/s.yaml": encrypted(t, "secret.yaml")},
		"jsonnet":   {"services/web/main.jsonnet": "import 's.yaml'", "services/web/s.yaml": encrypted(t, "secret.yaml")},
		"kustomize": {"services/web/kustomization.yaml": "resources: [s.yaml]", "services/web/s.yaml": encrypted(t, "secret.yaml")},
	} {
		_, err := build(t, tree, noKeys)
		var e *render.Error
		if !errors.As(err, &e) || !e.Locked || e.File != "services/web/s.yaml" || !strings.Contains(e.Message, "age1fa0pc7") || !strings.Contains(e.Hint, "--age-key-file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An error or a warning never holds what was decrypted, whatever a renderer or
// an author makes of it.
func TestErrorsAndWarningsHoldNothingDecrypted(t *testing.T) {
	base := map[string]string{"services/web/db.json": encrypted(t, "values.json")}
	for name, text := range map[string]string{
		"error":       "local db = import 'db.json'; error 'no: ' + db.password",
		"assert":      "local db = import 'db.json'; assert false : db.password; {}",
		"base64":      "local db = import 'db.json'; error std.base64('x' + db.password + 'y')",
		"a document":  "error importstr 'db.json'",
		"JSON":        "local db = import 'db.json'; error std.manifestJsonEx(db, ' ')",
		"a field":     "local db = import 'db.json'; {}[db.password]",
		"an object":   "local db = import 'db.json'; {apiVersion: 'v1', kind: 'Secret', metadata: {name: 's'}, stringData: {a: std.parseInt(db.password)}}",
		"a kind":      "local db = import 'db.json'; {apiVersion: 'a/b/' + db.password, kind: 'X', metadata: {name: 's'}}",
		"a namespace": "local db = import 'db.json'; {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 's', namespace: db.password}}",
		"a label":     "local db = import 'db.json'; {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 's', annotations: {'pinion.dev/hook': db.password}}}",
		"parsed":      "local db = import 'db.json'; std.native('parseYaml')('a: [' + db.password)",
		"JSON parsed": "local db = import 'db.json'; std.parseJson(db.password)",
		"a trace":     "local db = import 'db.json'; std.trace('have ' + db.password, {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 's'}})",
		"a warning":   "local db = import 'db.json'; {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 's', labels: {'pinion.dev/service': db.password}}}",
	} {
		t.Run(name, func(t *testing.T) {
			tree := map[string]string{"services/web/main.jsonnet": text}
			for k, v := range base {
				tree[k] = v
			}
			r, err := build(t, tree)
			said := ""
			if err != nil {
				said = err.Error()
			} else {
				said = strings.Join(r.Warnings, "\n")
				if !strings.Contains(said, render.Masked) {
					t.Errorf("nothing is masked in %q", said)
				}
			}
			for _, form := range []string{"päss", "word", "🐎", hex.EncodeToString([]byte("word")), base64.StdEncoding.EncodeToString([]byte(`p` + password[1:]))[4:12], `p\u00e4ss`} {
				if strings.Contains(strings.ReplaceAll(said, "password", ""), form) {
					t.Errorf("%q is in %q", form, said)
				}
			}
		})
	}
}

func TestADecryptedValueOutsideOfASecretIsHidden(t *testing.T) {
	r, err := build(t, map[string]string{
		"services/web/db.json":      encrypted(t, "values.json"),
		"services/web/main.jsonnet": "local db = import 'db.json'; {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 'c'}, data: {'a/b~': 'pw=' + db.password, other: 'x', user: db.user}}",
	})
	if err != nil {
		t.Fatal(err)
	}
	o := r.Objects[0]
	if !slices.Equal(o.Hidden, []string{"/data/a~1b~0"}) || !strings.HasPrefix(o.Digest, "hmac-") {
		t.Errorf("hidden %q, digest %s", o.Hidden, o.Digest)
	}
	if text := string(o.Masked("abc")); strings.Contains(text, "word") || !strings.Contains(text, `"a/b~":"***"`) || !strings.Contains(text, `"other":"x"`) {
		t.Errorf("masked: %s", text)
	}
	if got := r.Mask().Hide(`it says pw=` + password + ` there`); got != "it says *** there" {
		t.Errorf("the mask leaves %q", got)
	}
}

// The digest of a Secret is the same for everybody who can decrypt it, another
// one for another value, and for nobody else to try out.
func TestTheDigestOfASecretIsKeyed(t *testing.T) {
	main := "local db = import 'db.json'; {apiVersion: 'v1', kind: 'Secret', metadata: {name: 's'}, stringData: {a: std.toString(db.%s)}}"
	digest := func(file, field string, change ...func(*render.Renderer, *render.Request)) string {
		t.Helper()
		r, err := build(t, map[string]string{"services/web/db.json": encrypted(t, file), "services/web/main.jsonnet": strings.Replace(main, "%s", field, 1)}, change...)
		if err != nil {
			t.Fatal(err)
		}
		return r.Objects[0].Digest
	}
	one := digest("two.json", "port")
	if two := digest("two.json", "port", func(r *render.Renderer, _ *render.Request) { r.Keys = ageKeys(t, "other.txt") }); two != one {
		t.Errorf("another key, another digest: %s, %s", one, two)
	}
	if digest("two.json", "user") == one {
		t.Error("another value has the same digest")
	}
	if digest("values.json", "port") == one {
		t.Error("the same value under another data key has the same digest")
	}
	program := func(r *render.Renderer, _ *render.Request) {
		r.Keys = nil
		r.Program = func(name string) ([]byte, error) {
			if name != "services/web/db.json" {
				t.Errorf("asked for %s", name)
			}
			return []byte(encrypted(t, "plain/values.json")), nil
		}
	}
	blind := digest("two.json", "port", program)
	if blind == digest("two.json", "user", program) {
		t.Error("without a data key, another main.jsonnet has the same digest")
	}
	changed := func(r *render.Renderer, q *render.Request) {
		program(r, q)
		r.Program = func(string) ([]byte, error) {
			return []byte(strings.Replace(encrypted(t, "plain/values.json"), "5432", "5433", 1)), nil
		}
	}
	if digest("two.json", "port", changed) != blind {
		t.Error("without a data key, the digest depends on the value")
	}
}

func TestMaskKnowsTheForms(t *testing.T) {
	secret := "s3cr3t \"x\"\nsecond line"
	m := render.NewMask([]string{secret, "ab", "true", "1", ""})
	for in, want := range map[string]string{
		"it is " + secret + ".":                             "it is ***.",
		`it is s3cr3t \"x\"\nsecond line.`:                  "it is ***.",
		"only second line":                                  "only ***",
		"abc ab-c 1 12 true":                                "abc ***-c 1 12 true",
		hex.EncodeToString([]byte(secret)):                  "***",
		"plain text":                                        "plain text",
		strings.ToUpper(hex.EncodeToString([]byte(secret))): "***",
		"it was s3cr3t \"x… and what follows":               "it was ***… and what follows",
		"cannot unmarshal `second l...` into int":           "cannot unmarshal `***...` into int",
		"…nd line; s3…":                                     "…***; s3…",
		"sec... and so on":                                  "sec... and so on",
	} {
		if got := m.Hide(in); got != want {
			t.Errorf("%q is shown as %q, not %q", in, got, want)
		}
	}
	for before := range 4 {
		for after := range 4 {
			code := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("-", before) + secret + strings.Repeat("+", after)))
			if got := m.Hide(code); !strings.Contains(got, "***") || len(got) > 3+8+8 {
				t.Errorf("of %s is left %s", code, got)
			}
		}
	}
	var none *render.Mask
	if none.Hide(secret) != secret {
		t.Error("no mask changes a text")
	}
}
