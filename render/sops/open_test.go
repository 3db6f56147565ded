package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func keys(t testing.TB, names ...string) *Keys {
	t.Helper()
	var all []*Keys
	for _, name := range names {
		k, err := ParseKeys(name, read(t, name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	return Join(all...)
}

// golden are the files that a real sops has made of those in testdata/plain.
var golden = map[string]string{
	"secret.yaml":                          "secret.yaml",
	"secret_whole.yaml":                    "secret.yaml",
	"values.yaml":                          "values.yaml",
	"rules_mac_only.yaml":                  "rules.yaml",
	"rules_unencrypted_suffix.yaml":        "rules.yaml",
	"rules_encrypted_suffix.yaml":          "rules.yaml",
	"rules_unencrypted_regex.yaml":         "rules.yaml",
	"rules_encrypted_comment_regex.yaml":   "rules.yaml",
	"rules_unencrypted_comment_regex.yaml": "rules.yaml",
	"values.json":                          "values.json",
	"two.json":                             "values.json",
	"values.env":                           "values.env",
	"blob.conf":                            "blob.conf",
}

func TestWhatSopsEncryptsIsRead(t *testing.T) {
	for name, plain := range golden {
		t.Run(name, func(t *testing.T) {
			data := read(t, name)
			if !Encrypted(name, data) {
				t.Fatal("is not taken for encrypted")
			}
			f, err := Open(name, data, keys(t, "key.txt"))
			if err != nil {
				t.Fatal(err)
			}
			want, got := contents(t, plain, read(t, plain2(plain))), contents(t, plain, f.Plain)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("is read as\n%#v\nnot\n%#v", got, want)
			}
			if bytes.Contains(f.Plain, []byte(prefix+"data")) && !bytes.Contains(f.Plain, []byte("#"+prefix)) {
				t.Errorf("something is still encrypted:\n%s", f.Plain)
			}
			if filepath.Ext(name) != ".conf" && filepath.Ext(name) != ".env" && bytes.Count(f.Plain, []byte("\n")) != bytes.Count(data, []byte("\n")) {
				t.Errorf("has %d lines, the encrypted file %d", bytes.Count(f.Plain, []byte("\n")), bytes.Count(data, []byte("\n")))
			}
			if len(f.DataKey) != 32 || len(f.Values) == 0 {
				t.Errorf("has %d values and a key of %d bytes", len(f.Values), len(f.DataKey))
			}
		})
	}
}

func plain2(name string) string { return filepath.Join("plain", name) }

// contents decodes a file, so that two ways of writing it are equal.
func contents(t *testing.T, name string, data []byte) any {
	t.Helper()
	switch filepath.Ext(name) {
	case ".yaml":
		var docs []any
		d := yaml.NewDecoder(bytes.NewReader(data))
		for {
			var v any
			if err := d.Decode(&v); err != nil {
				if err.Error() != "EOF" {
					t.Fatalf("%v in\n%s", err, data)
				}
				return docs
			}
			docs = append(docs, v)
		}
	case ".json":
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		return v
	case ".env":
		lines := []string{}
		for line := range strings.Lines(string(data)) {
			if !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		return lines
	default:
		return string(data)
	}
}

func TestValuesAreThoseThatWereEncrypted(t *testing.T) {
	for name, want := range map[string][]string{
		"secret.yaml":         {"Y2FuYXJ5", "correct horse: battery \"staple\" ☃", "url: postgres://app:hunter2@db/app\ntries: 3\n"},
		"secret_whole.yaml":   {"Y2FuYXJ5", "correct horse: battery \"staple\" ☃", "url: postgres://app:hunter2@db/app\ntries: 3\n"},
		"rules_mac_only.yaml": {"secret one", "secret two"},
		"values.env":          {"app", "one\ntwo", `one\ntwo`, "p=ss \"word\" # not a comment"},
		"values.json":         {"0.25", "5432", "9007199254740993", "1", "True", "a", "app", "c", "d", "päss \"word\" 🐎"},
	} {
		f, err := Open(name, read(t, name), keys(t, "key.txt"))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, v := range f.Values {
			got[v] = true
		}
		for _, v := range want {
			if !got[v] {
				t.Errorf("%s: %q is not among the values %q", name, v, f.Values)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: the values are %q, not %q", name, f.Values, want)
		}
	}
}

func TestTheDataKeyStaysWhenTheRecipientsChange(t *testing.T) {
	one, err := Open("two.json", read(t, "two.json"), keys(t, "key.txt"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := Open("two.json", read(t, "two.json"), keys(t, "other.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.DataKey, two.DataKey) {
		t.Error("two keys open two data keys")
	}
}

func TestAKeyThatDoesNotOpenIsToldWithTheRecipients(t *testing.T) {
	for _, k := range []*Keys{nil, {}, keys(t, "key.txt")} {
		_, err := Open("other.json", read(t, "other.json"), k)
		var e *Error
		if !errors.As(err, &e) || !e.Locked || e.Program {
			t.Fatalf("with %s: %v", k, err)
		}
		recipient := strings.TrimPrefix(strings.Split(string(read(t, "other.txt")), "\n")[1], "# public key: ")
		for _, want := range []string{recipient, "--age-key-file", "ageKeyFiles"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("with %s: %q does not say %s", k, err, want)
			}
		}
		if e.Line == 0 {
			t.Errorf("it has no line: %v", err)
		}
	}
}

// Each damage is an error with a line, and without anything of the plaintext.
func TestDamageIsAnError(t *testing.T) {
	secret := string(read(t, "secret.yaml"))
	first := func(s, begin, end string) string {
		i := strings.Index(s, begin)
		return s[i : i+strings.Index(s[i:], end)]
	}
	password, token := first(secret, "ENC[", "\n"), first(secret[strings.Index(secret, "token: "):], "ENC[", "\n")
	mac := first(secret[strings.Index(secret, " mac: "):], "ENC[", "\n")
	replace := func(old, with string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				panic("there is no " + old)
			}
			return strings.Replace(s, old, with, 1)
		}
	}
	for name, c := range map[string]struct {
		damage func(string) string
		line   int
		want   string
	}{
		"a flipped bit":         {replace("data:"+password[20:22], "data:"+flip(password[20:22])), 10, "changed, or moved"},
		"two values exchanged":  {func(s string) string { return strings.NewReplacer(password, token, token, password).Replace(s) }, 10, "changed, or moved"},
		"a value in the clear":  {replace(password, "in-the-clear"), 10, "is not encrypted"},
		"a number":              {replace(password, "5"), 10, "is not encrypted"},
		"a type exchanged":      {replace(password, strings.Replace(password, "type:str", "type:int", 1)), 10, "has a type"},
		"a type made up":        {replace(password, strings.Replace(password, "type:str", "type:blob", 1)), 10, "has a type"},
		"a tag left out":        {replace(password, strings.Replace(password, ",tag:", ",t:", 1)), 10, "is not written as sops"},
		"a value removed":       {replace("    token: "+token+"\n", ""), 0, "its mac is another one"},
		"a plain value changed": {replace("name: db", "name: other"), 0, "its mac is another one"},
		"a value added":         {replace("type: Opaque", "type: Opaque\nimmutable: true"), 0, "its mac is another one"},
		"a mac of another file": {replace(mac, first(string(read(t, "values.yaml"))[strings.Index(string(read(t, "values.yaml")), " mac: "):], "ENC[", "\n")), 0, "the mac can't be decrypted"},
		"a mac in the clear":    {replace(mac, "ABCDEF"), 0, "the mac is not encrypted"},
		"no mac":                {replace("    mac: "+mac+"\n", ""), 0, "the metadata is not whole"},
		"another time":          {replace("lastmodified: \"2", "lastmodified: \"3"), 0, "the mac can't be decrypted"},
		"no time":               {replace("lastmodified: \"2", "lastmodified: \"x"), 0, "lastmodified is no time"},
		"version 4":             {replace("version: 3.", "version: 4."), 0, "sops version 4."},
		"a rule not known":      {replace("    encrypted_regex:", "    shape_regex:"), 0, "a rule that is not known, shape_regex"},
		"a rule changed":        {replace("^(data|stringData)$", "^(data|stringDatum)$"), 0, "its mac is another one"},
		"a broken rule":         {replace("^(data|stringData)$", "^(data"), 0, "no regular expression"},
		"a key exchanged":       {replace("-----BEGIN AGE ENCRYPTED FILE-----\n", "-----BEGIN AGE ENCRYPTED FILE-----\n            YWdl\n"), 0, "is encrypted with SOPS for"},
		"a key twice":           {replace("type: Opaque", "type: Opaque\ntype: Opaque"), 9, "twice"},
		"an alias":              {replace("tier: data", "tier: &a data\n        other: *a"), 8, "anchors"},
		"broken YAML":           {replace("type: Opaque", "type: [Opaque"), 0, "is not YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open("secret.yaml", []byte(c.damage(secret)), keys(t, "key.txt"))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("the error is %v", err)
			}
			if !strings.Contains(e.Message, c.want) || c.line > 0 && (e.Line != c.line || e.Column == 0) {
				t.Errorf("the error is %v at %d:%d, not %q at %d", e, e.Line, e.Column, c.want, c.line)
			}
			for _, text := range []string{"horse", "staple", "hunter2", "postgres", "Y2FuYXJ5", "canary"} {
				if strings.Contains(err.Error(), text) {
					t.Errorf("the error has plaintext: %v", err)
				}
			}
		})
	}
}

func flip(two string) string {
	if two[0] == 'A' {
		return "B" + two[1:]
	}
	return "A" + two[1:]
}

func TestWhatIsNotEncryptedIsLeftAlone(t *testing.T) {
	for name, text := range map[string]string{
		"a.yaml":      "sops: lastmodified\n",
		"b.yaml":      "metadata:\n  sops:\n    lastmodified: x\n",
		"c.json":      `{"sops": "lastmodified"}`,
		"d.env":       "A=sops lastmodified\n",
		"e.libsonnet": "{\n sops: {lastmodified: 1}}",
		"f.txt":       "",
	} {
		if name != "a.yaml" && Encrypted(name, []byte(text)) {
			t.Errorf("%s is taken for encrypted", name)
		}
	}
	for name := range golden {
		if plain := plain2(golden[name]); Encrypted(plain, read(t, plain)) {
			t.Errorf("%s is taken for encrypted", plain)
		}
	}
}

func TestOtherBackEndsAreNamed(t *testing.T) {
	for name, c := range map[string]struct{ with, want string }{
		"kms":    {"    kms:\n        - arn: arn:aws:kms:eu:1:key/2\n          enc: x\n", "kms arn:aws:kms:eu:1:key/2"},
		"vault":  {"    hc_vault:\n        - vault_address: https://vault:8200\n          enc: x\n", "hc_vault https://vault:8200"},
		"pgp":    {"    pgp:\n        - fp: ABCDEF\n          enc: x\n", "pgp ABCDEF"},
		"groups": {"    key_groups:\n        - age: []\n        - pgp: []\n", "2 key groups"},
	} {
		data := strings.Replace(string(read(t, "secret.yaml")), "    encrypted_regex:", c.with+"    encrypted_regex:", 1)
		_, err := Open("secret.yaml", []byte(data), nil)
		var e *Error
		if !errors.As(err, &e) || !e.Program || !e.Locked || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAcceptTakesWhatTheProgramDecrypted(t *testing.T) {
	for name := range golden {
		data := read(t, name)
		want, err := Open(name, data, keys(t, "key.txt"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Accept(name, data, read(t, plain2(golden[name])))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if filepath.Ext(name) != ".env" && !reflect.DeepEqual(got.Values, want.Values) {
			t.Errorf("%s: the values are %q, not %q", name, got.Values, want.Values)
		}
	}
	if _, err := Accept("values.json", read(t, "values.json"), []byte(`{"other": 1}`)); err == nil {
		t.Error("plaintext of another file is taken")
	}
}

func TestKeysDoNotShow(t *testing.T) {
	text := string(read(t, "key.txt"))
	secret := strings.Split(text, "\n")[2]
	if !strings.HasPrefix(secret, "AGE-SECRET-KEY-1") {
		t.Fatal("the file has another form")
	}
	for _, bad := range []string{secret[:len(secret)-2], "x" + secret, "-----BEGIN AGE ENCRYPTED FILE-----", "", "AGE-PLUGIN-X-1QQQ"} {
		_, err := ParseKeys("k", []byte("# comment\n"+bad+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "k:") {
			t.Errorf("%q is taken, or has no place: %v", bad, err)
		} else if strings.Contains(err.Error(), secret[20:40]) {
			t.Errorf("the error has the key: %v", err)
		}
	}
	if k := keys(t, "key.txt"); strings.Contains(k.String()+k.GoString(), secret[20:40]) {
		t.Error("a key can be printed")
	}
}

func FuzzOpen(f *testing.F) {
	k := keys(f, "key.txt")
	for name := range golden {
		f.Add(name, read(f, name))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if !Encrypted(name, data) {
			return
		}
		if _, err := Open(name, data, k); err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
		}
	})
}
