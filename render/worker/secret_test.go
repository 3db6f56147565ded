package worker_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/sops"
	"github.com/pinion-cd/pinion/render/worker"
)

func golden(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "sops", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func sealedRequest() render.Request {
	req := request()
	req.Plaintext = false
	return req
}

const password = `correct horse: battery \"staple\" ☃`

// The keys reach a worker, and its result says what is secret.
func TestAWorkerDecrypts(t *testing.T) {
	keys, err := sops.ParseKeys("key.txt", []byte(golden(t, "key.txt")))
	if err != nil {
		t.Fatal(err)
	}
	p := worker.New(worker.Options{Size: 1, Keys: keys})
	defer p.Close()
	tree := files(map[string]string{"services/web/s.yaml": golden(t, "secret.yaml")})
	want, err := (&render.Renderer{Keys: keys}).Build(t.Context(), tree, sealedRequest())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := p.Render(t.Context(), tree, sealedRequest())
		if err != nil {
			t.Fatal(err)
		}
		if !r.Sealed || r.Digest != want.Digest || !strings.Contains(string(r.Objects[0].JSON), password) {
			t.Errorf("sealed %v, digest %s, %s", r.Sealed, r.Digest, r.Objects[0].JSON)
		}
	}
	tree = files(map[string]string{
		"services/web/db.json":      golden(t, "values.json"),
		"services/web/main.jsonnet": "local db = import 'db.json'; {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 'c'}, data: {a: db.password}}",
	})
	r, err := p.Render(t.Context(), tree, sealedRequest())
	if err != nil || len(r.Objects[0].Hidden) != 1 {
		t.Errorf("what is hidden got lost: %v %v", r, err)
	}
	bare := worker.New(worker.Options{Size: 1})
	defer bare.Close()
	var e *render.Error
	if _, err = bare.Render(t.Context(), tree, sealedRequest()); !errors.As(err, &e) || !e.Locked {
		t.Errorf("without keys: %v", err)
	}
}

// program is a script that stands in for sops: real ones need a key service
// for anything that age does not open.
func program(t *testing.T, script string) *worker.Sops {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sops")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return &worker.Sops{Binary: path, Timeout: time.Minute}
}

func TestTheSopsProgramDecryptsTheRest(t *testing.T) {
	t.Setenv("PINION_TEST_PASSED", "on")
	t.Setenv("PINION_TEST_KEPT", "back")
	plain, err := filepath.Abs("../sops/testdata/plain/secret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tree := files(map[string]string{"services/web/s.yaml": golden(t, "secret.yaml")})
	checked := `test "$*" = '--decrypt --input-type yaml --output-type yaml /dev/stdin' || { echo "called with $*" >&2; exit 1; }
test "$PINION_TEST_PASSED$PINION_TEST_KEPT$MORE" = onyes || { echo 'another environment' >&2; exit 1; }
grep -q 'ENC.AES256' || { echo 'another input' >&2; exit 1; }
`
	for name, c := range map[string]struct {
		script, want string
		mendable     bool
	}{
		"decrypts":        {checked + "cat " + plain, "", false},
		"says why not":    {"echo 'Failed to get the data key: 403 denied' >&2; exit 128", "403 denied", false},
		"says too much":   {"echo 'parsing hunter2' >&2; exit 1", "run it by hand", false},
		"finds tampering": {"exit 51", "the file was changed", true},
		"never ends":      {"exec sleep 60", "within 1s", false},
		"writes rubbish":  {"echo other: file", "another form", true},
		"is too much":     {"head -c 11000000 /dev/zero", "larger than 10 MiB", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := program(t, c.script)
			s.Environment = []string{"PINION_TEST_PASSED", "MORE=yes", "PATH"}
			if name == "never ends" {
				s.Timeout = time.Second
			}
			p := worker.New(worker.Options{Size: 1, Sops: s, Timeout: time.Minute})
			defer p.Close()
			r, err := p.Render(t.Context(), tree, sealedRequest())
			if c.want == "" {
				if err != nil || !r.Sealed || !strings.Contains(string(r.Objects[0].JSON), password) {
					t.Errorf("%v %v", r, err)
				}
				return
			}
			_, mendable := errors.AsType[*render.Error](err)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "services/web/s.yaml") || mendable != c.mendable || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("it says %v (mendable %v)", err, mendable)
			}
		})
	}
}

// With a real sops, if there is one.
func TestARealSopsDecrypts(t *testing.T) {
	binary, err := exec.LookPath("sops")
	if err != nil {
		t.Skip("there is no sops on the path")
	}
	key, err := filepath.Abs("../sops/testdata/key.txt")
	if err != nil {
		t.Fatal(err)
	}
	p := worker.New(worker.Options{Size: 1, Sops: &worker.Sops{Binary: binary, Environment: []string{"SOPS_AGE_KEY_FILE=" + key}}})
	defer p.Close()
	for name, kind := range map[string]string{"secret.yaml": "s.yaml", "secret_whole.yaml": "s.yaml"} {
		r, err := p.Render(t.Context(), files(map[string]string{"services/web/" + kind: golden(t, name)}), sealedRequest())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !strings.Contains(string(r.Objects[0].JSON), password) {
			t.Errorf("%s: %s", name, r.Objects[0].JSON)
		}
	}
}

// The program has the operator's token; a file must not say who gets it.
func TestTheSopsProgramIsNotStartedForVaultsThatAreNotListed(t *testing.T) {
	plain, err := filepath.Abs("../sops/testdata/plain/secret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		list  []string
		vault string
		want  []string // of the error; none: it is decrypted
		told  string   // to the program, as those that it may ask
	}{
		"listed":      {[]string{"127.0.0.1:8200"}, "https://127.0.0.1:8200", nil, "https://127.0.0.1:8200"},
		"no vault":    {nil, "", nil, "none"},
		"not listed":  {[]string{"vault.example"}, "https://other.example:8200", []string{"services/web/s.yaml:26:26:", "https://other.example:8200", `outbound: {allow: ["other.example:8200"]}`}, ""},
		"nobody is":   {nil, "https://127.0.0.1:8200", []string{"services/web/s.yaml", `allow: ["127.0.0.1:8200"]`}, ""},
		"credentials": {[]string{"*"}, "http://169.254.169.254", []string{"services/web/s.yaml", "clouds hand out credentials"}, ""},
		"no address":  {[]string{"*"}, "unix:///run/vault", []string{"services/web/s.yaml", "is not the address of a vault"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			started := filepath.Join(t.TempDir(), "started")
			s := program(t, `printf %s "$SOPS_HC_VAULT_ALLOWLIST" >`+started+"; cat "+plain)
			s.Environment = []string{"PATH"}
			if s.Allow, err = outbound.ParseAllow(c.list); err != nil {
				t.Fatal(err)
			}
			data := golden(t, "secret.yaml")
			if c.vault != "" {
				data = strings.Replace(data, "    encrypted_regex:", "    hc_vault:\n        - vault_address: "+c.vault+"\n          enc: x\n    encrypted_regex:", 1)
			}
			p := worker.New(worker.Options{Size: 1, Sops: s, Timeout: time.Minute})
			defer p.Close()
			_, err := p.Render(t.Context(), files(map[string]string{"services/web/s.yaml": data}), sealedRequest())
			told, readErr := os.ReadFile(started)
			if len(c.want) == 0 {
				if err != nil || string(told) != c.told {
					t.Errorf("%v; the program was told %q (%v)", err, told, readErr)
				}
				return
			}
			if readErr == nil {
				t.Error("the program was started")
			}
			if _, ok := errors.AsType[*render.Error](err); !ok {
				t.Fatalf("it says %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("it says %v, without %s", err, want)
				}
			}
		})
	}
}
