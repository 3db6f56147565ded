package ledger

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
)

func TestRecordFile(t *testing.T) {
	r := after(t, Record{},
		pinned("a", "1.4.1", by(alice), reason("web was pinned")),
		entry(EventStarted, "a", manifests("sha256:1111")), entry(EventCompleted, "a"), entry(EventVerified, "a"),
		pinned("1", "1.4.2", minutes(5)),
		entry(EventStarted, "1", minutes(6)), entry(EventCompleted, "1", minutes(7)),
		entry(EventCheck, "1", minutes(8), checked("e2e", Failure), func(e *Entry) {
			e.Checks[0].Output = "one\n\n  two: # 2"
			e.Checks[0].Description = "2: of 3"
			e.Checks[0].URL = "https://ci.example/5#x"
		}),
		entry(EventFailed, "1", minutes(9), reason("e2e failed:\n- it is so")),
		entry(EventOffered, "", candidate, of("1.5", "c"), minutes(10), func(e *Entry) { e.From = []string{"dev@" + commit("d")} }),
		entry(EventApproved, "", candidate, of("1.5", "c"), minutes(11), approved("yes", ""), func(e *Entry) { e.Approval.Groups = []string{"sre", "on"} }),
	)
	got := r.Encode()
	const file = "testdata/deployment.yaml"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
	simple, err := decodeSimple(string(got))
	if diff := cmp.Diff(r, simple); err != nil || diff != "" {
		t.Error("the simple reader:", err, diff)
	}
	other, err := decodeAny(got)
	if diff := cmp.Diff(r, other); err != nil || diff != "" {
		t.Error("the other reader:", err, diff)
	}
	// Somebody has edited it.
	edited := "# Why not.\n" + strings.ReplaceAll(string(got), "kind: Deployment", `kind: "Deployment"`)
	if r2, err := DecodeRecord("x", []byte(edited)); err != nil || !reflect.DeepEqual(r, r2) {
		t.Error(err, cmp.Diff(r, r2))
	}
}

// fill sets all of a value to something odd.
func fill(rnd *rand.Rand, v reflect.Value) {
	if tm, ok := v.Addr().Interface().(*time.Time); ok {
		*tm = epoch.Add(time.Duration(rnd.IntN(1e6)) * time.Second)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(printable(pick(rnd, odd...) + pick(rnd, odd...) + pick(rnd, "", "no", "0b101", "123", "1e5", "2026-01-01", "~", "\u0007\u0085\U0001f600\U000e0001\\\"'", "a: b", "x #y", " lead", "trail ", "a\n  b\n c", "a\n\n\nb", "a\n \nb", "{}", "|-", "<<", "=", "null", "Null", "*a", "&a", "!x", "%", "@", "`", "a\tb\nc")))
	case reflect.Struct:
		for i := range v.NumField() {
			if rnd.IntN(4) > 0 {
				fill(rnd, v.Field(i))
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rnd, v.Elem())
	case reflect.Slice:
		n := rnd.IntN(4)
		if n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range n {
			fill(rnd, v.Index(i))
		}
	}
}

func TestRecordsAreReadBack(t *testing.T) {
	for seed := range uint64(400) {
		var r Record
		fill(rand.New(rand.NewPCG(seed, 9)), reflect.ValueOf(&r).Elem())
		if empty(reflect.ValueOf(&r).Elem(), recordShape()) {
			continue
		}
		data := r.Encode()
		simple, err := decodeSimple(string(data))
		if diff := cmp.Diff(r, simple); err != nil || diff != "" {
			t.Fatalf("seed %d: the simple reader: %v %s\n%s", seed, err, diff, data)
		}
		other, err := decodeAny(data)
		if diff := cmp.Diff(r, other); err != nil || diff != "" {
			t.Fatalf("seed %d: the other reader: %v %s\n%s", seed, err, diff, data)
		}
	}
}

// What looks like something else to a reader of YAML 1.1 is in quotation marks.
func TestPlain(t *testing.T) {
	for _, s := range []string{
		"", "y", "N", "Yes", "NO", "on", "OFF", "true", "False", "null", "~", "123", "1.4", "12e4", "0b101", "0x1f", "0o17", "1_000", "12:30:45", "2026-11-21", ".inf", ".nan", "-1",
		"a: b", "a:", "a #b", " a", "a ", "- a", "? a", "*a", "&a", "!a", "|", ">", "%a", "@a", "`a", "{}", "[]", "=", "<<", "'a'", `"a"`, "a\nb", "a\tb", "a\u0085b", "a\u2028b", "\ufeffa",
	} {
		if plain(s) {
			t.Errorf("%q stands there as it is", s)
		}
	}
	for _, s := range []string{"web", "a b", "4f1c2aa90b7e", "ghcr.io/acme/web:1.4.2@sha256:22", "https://ci.example/5#x", "it's [so]", "Née → x"} {
		if !plain(s) {
			t.Errorf("%q is in quotation marks", s)
		}
	}
}

func TestRefusedRecords(t *testing.T) {
	good := string(after(t, Record{}, pinned("a", "1.4.1"), entry(EventCheck, "a", checked("e2e", Success))).Encode())
	for want, data := range map[string]string{
		"x.yaml: it is not a mapping":                                   "",
		"x.yaml: not valid YAML":                                        good + "\t- x",
		"x.yaml: it does not say kind: Deployment":                      strings.Replace(good, "kind: Deployment\n", "", 1),
		`x.yaml:1:13: apiVersion is "pinion.dev/v2"`:                    strings.Replace(good, "/v1", "/v2", 1),
		`x.yaml:5:1: there is no key "weather" here`:                    strings.Replace(good, "current:", "weather: fair\ncurrent:", 1),
		`there is no key "colour" here`:                                 strings.Replace(good, "  state: pinned", "  state: pinned\n  colour: blue", 1),
		`x.yaml:5:1: the key "service" is there twice`:                  strings.Replace(good, "current:", "service: web\ncurrent:", 1),
		`"five" is not a time`:                                          strings.Replace(good, "pinned: 2026-11-21T10:00:00Z", "pinned: five", 1),
		`"true" is not a text`:                                          strings.Replace(good, "service: web", "service: true", 1),
		`the state "pind", and there is no such state`:                  strings.Replace(good, "state: pinned", "state: pind", 1),
		`the cause "whim", and there is no such cause`:                  strings.Replace(good, "cause: pin", "cause: whim", 1),
		`e2e: there is no result "maybe"`:                               strings.Replace(good, "result: success", "result: maybe", 1),
		"the current deployment has no name":                            strings.Replace(good, "  deployment: web-aaaaaaaaaaaa\n", "", 1),
		`x.yaml: it names no service and environment, but "" in "stagi`: strings.Replace(good, "service: web\n", "", 1),
		"an alias is not accepted":                                      strings.Replace(good, "service: web", "service: &a web", 1),
		"this is not a list":                                            strings.Replace(good, "  checks:\n  - policy: e2e\n", "  checks:\n    policy: e2e\n", 1),
	} {
		if data == good {
			t.Errorf("nothing is wrong: %s", want)
		}
		if r, err := DecodeRecord("x.yaml", []byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v\nwant … %s …", r, err, want)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for seed := range uint64(20) {
		var r Record
		for _, e := range story(rand.New(rand.NewPCG(seed, 10)), "web", 30) {
			if next, err := r.Apply(e); err == nil {
				r = next
			}
		}
		f.Add(r.Encode())
		var odd Record
		fill(rand.New(rand.NewPCG(seed, 11)), reflect.ValueOf(&odd).Elem())
		f.Add(odd.Encode())
	}
	// Spaces that a person may leave in a block.
	block := string(after(f, Record{}, pinned("a", "1", reason("one\n\ntwo\nthree"))).Encode())
	f.Add([]byte(strings.Replace(block, "\n\n", "\n        \n", 1)))
	f.Add([]byte(strings.Replace(block, "\n\n", "\n \n", 1)))
	f.Add([]byte(strings.Replace(block, "    two", "      \n    two", 1)))
	f.Add([]byte(strings.Replace(block, "    three", "   three", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeSimple(string(data)); err == nil {
			// What the simple reader takes, the other one takes for the same.
			other, err := decodeAny(data)
			if diff := cmp.Diff(r, other); err != nil || diff != "" {
				t.Fatalf("%v %s", err, diff)
			}
		}
		r, err := DecodeRecord("x", data)
		if err != nil {
			return
		}
		got, err := DecodeRecord("x", r.Encode())
		if diff := cmp.Diff(r, got); err != nil || diff != "" {
			t.Fatalf("%v %s\n%s", err, diff, r.Encode())
		}
	})
}

func TestRead(t *testing.T) {
	web := after(t, Record{}, pinned("a", "1"))
	file := func(r Record) *fstest.MapFile { return &fstest.MapFile{Data: r.Encode()} }
	records, err := Read(fstest.MapFS{
		"README.md":           {Data: []byte("the ledger")},
		"web/deployment.yaml": file(web), "web/manifests.yaml": {},
		"bad/deployment.yaml":   {Data: []byte("kind: Deployment")},
		"other/deployment.yaml": file(web),
		"lost/manifests.yaml":   {},
	})
	if diff := cmp.Diff(map[desired.ServiceName]Record{"web": web}, records); diff != "" {
		t.Error(diff)
	}
	want := "read the ledger: bad/deployment.yaml: it does not say apiVersion: pinion.dev/v1\n" +
		"read the ledger: open lost/deployment.yaml: file does not exist\n" +
		"read the ledger: other/deployment.yaml: it is the record of web"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if records, err := Read(broken{}); err == nil || records != nil {
		t.Errorf("one could not look, and there is %v, %v", records, err)
	}
	if records, err := Read(fstest.MapFS{}); err != nil || len(records) != 0 {
		t.Errorf("nothing is there, and there is %v, %v", records, err)
	}
	if Branch("staging") != "ledger/staging" || RecordFile("web") != "web/deployment.yaml" || ManifestsFile("web") != "web/manifests.yaml" {
		t.Error("the names are others")
	}
}

type broken struct{}

func (broken) Open(string) (fs.File, error) { return nil, fs.ErrPermission }

// full is a record with as much as there can be of most things.
func full(tb testing.TB, n int) Record {
	var r Record
	for i := range n {
		c := fmt.Sprintf("%012x", i)
		id := func(event Event) Entry {
			return Entry{Event: event, Environment: "production", Service: "web", Time: epoch.Add(time.Duration(i) * time.Minute), Deployment: DeploymentID("web", c), Commit: c, Actor: alice, Authors: []Person{alice}}
		}
		p := id(EventPinned)
		p.Cause = CausePin
		p.Release = Release{[]Pin{{"api", fmt.Sprintf("ghcr.io/acme/api:1.%d@sha256:%064d", i, i)}, {"web", fmt.Sprintf("ghcr.io/acme/web:1.%d@sha256:%064d", i, i)}}, commit("b")}
		r = after(tb, r, p, id(EventStarted), id(EventCompleted))
		for _, policy := range []desired.PolicyName{"e2e", "smoke", "soak", "errors", "latency"} {
			e := id(EventCheck)
			e.Checks = []Check{{Policy: policy, Result: Success, By: "ci", URL: "https://ci.example/5", Description: "41 of 41 passed"}}
			r = after(tb, r, e)
		}
		end := id(EventVerified)
		if i%2 > 0 {
			end = id(EventFailed)
		}
		end.Reason = "the rollout is complete, and e2e says: 41 of 41"
		r = after(tb, r, end)
	}
	return r
}

// The cost of an entry does not depend on how many came before.
func TestCostIsBounded(t *testing.T) {
	small, large := len(full(t, 200).Encode()), len(full(t, 1000).Encode())
	if large > small*11/10 {
		t.Errorf("after 200 deployments a record has %d bytes, after 1000 %d", small, large)
	}
}

func BenchmarkApplyAndEncode(b *testing.B) {
	for _, n := range []int{1, 150, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := full(b, n)
			e := Entry{Event: EventDrifted, Environment: "production", Service: "web", Time: epoch, Deployment: r.Deployment.ID, Commit: r.Deployment.Commit}
			b.ReportAllocs()
			for b.Loop() {
				next, err := r.Apply(e)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(next.Encode())))
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 5, 150} {
		data := full(b, n).Encode()
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeRecord("x", data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint(n, "/any"), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := decodeAny(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseMessage(b *testing.B) {
	m := pinned("a", "1.4.2", by(alice), reason("somebody pinned it")).Message()
	for b.Loop() {
		if _, err := ParseMessage(m, epoch); err != nil {
			b.Fatal(err)
		}
	}
}
