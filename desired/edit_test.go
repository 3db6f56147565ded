package desired_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
)

func TestAddPin(t *testing.T) {
	for _, c := range []struct{ name, before, artifact, want string }{
		{"there is one", "pins:\n  web:\n    image: web:1 # x\n", "web", "pins:\n  web:\n    image: NEW # x\n"},
		{"last", "pins:\n  api:\n    image: api:1 # a\n# end\n", "web", "pins:\n  api:\n    image: api:1 # a\n  web:\n    image: NEW\n# end\n"},
		{"first", "pins:\n  # of the web\n  web:\n    image: web:1\n", "api", "pins:\n  api:\n    image: NEW\n  # of the web\n  web:\n    image: web:1\n"},
		{"between", "pins:\n  api:\n    image: api:1\n\n  # of z\n  z:\n    image: z:1\n", "web", "pins:\n  api:\n    image: api:1\n  web:\n    image: NEW\n\n  # of z\n  z:\n    image: z:1\n"},
		{"a comment of the one before", "pins:\n  api:\n    image: api:1\n    # was: api:0\n\n    # before: none\n  # of z\n  z:\n    image: z:1\n", "web", "pins:\n  api:\n    image: api:1\n    # was: api:0\n\n    # before: none\n  web:\n    image: NEW\n  # of z\n  z:\n    image: z:1\n"},
		{"indentation", "pins:\n    api:\n       image: api:1\n", "web", "pins:\n    api:\n       image: api:1\n    web:\n       image: NEW\n"},
		{"indentation of the second", "pins:\n   api: {image: api:1}\n   b:\n    image: b:1\n", "web", "pins:\n   api: {image: api:1}\n   b:\n    image: b:1\n   web:\n    image: NEW\n"},
		{"entries in braces", "pins:\n   api: {image: api:1} # x\n", "web", "pins:\n   api: {image: api:1} # x\n   web:\n      image: NEW\n"},
		{"before one in braces", "pins:\n  web: {image: web:1}\n", "api", "pins:\n  api:\n    image: NEW\n  web: {image: web:1}\n"},
		{"more than an image", "pins:\n  api:\n    image: api:1\n    note: |\n      x\n    more:\n    - a: b\n      c: 'd'\n", "web", "pins:\n  api:\n    image: api:1\n    note: |\n      x\n    more:\n    - a: b\n      c: 'd'\n  web:\n    image: NEW\n"},
		{"after one without an image", "pins:\n  api:\n", "web", "pins:\n  api:\n  web:\n    image: NEW\n"},
		{"no entries yet", "parameters:\n    a: b\npins: # none\nmanifests:\n", "web", "parameters:\n    a: b\npins: # none\n    web:\n        image: NEW\nmanifests:\n"},
		{"no entries yet at the end", "pins:", "web", "pins:\n  web:\n    image: NEW\n"},
		{"absent", "cluster: x\n# end\n", "web", "cluster: x\n# end\npins:\n  web:\n    image: NEW\n"},
		{"absent, no end of line", "manifests:\n   a: " + commit, "web", "manifests:\n   a: " + commit + "\npins:\n   web:\n      image: NEW\n"},
		{"no end of line", "pins:\n  api:\n    image: api:1", "web", "pins:\n  api:\n    image: api:1\n  web:\n    image: NEW\n"},
		{"only a name", "pins:\n  api:\n    image: api:1\n  web: # to come\n  z:\n    image: z:1\n", "web", "pins:\n  api:\n    image: api:1\n  web: # to come\n    image: NEW\n  z:\n    image: z:1\n"},
		{"not sorted", "pins:\n  z:\n    image: z:1\n  a:\n    image: a:1\n", "web", "pins:\n  web:\n    image: NEW\n  z:\n    image: z:1\n  a:\n    image: a:1\n"},
		{"a name that is a boolean", "pins:\n", "true", "pins:\n  \"true\":\n    image: NEW\n"},
		{"a name that is a number", "pins:\n  a:\n    image: a:1\n", "1e3", "pins:\n  \"1e3\":\n    image: NEW\n  a:\n    image: a:1\n"},
	} {
		for _, eol := range []string{"\n", "\r\n"} {
			for _, mark := range []string{"", "\ufeff"} {
				t.Run(c.name, func(t *testing.T) {
					const reference = "ghcr.io/acme/web:1.4.3"
					before, want := mark+strings.ReplaceAll(head+c.before, "\n", eol), mark+strings.ReplaceAll(head+strings.ReplaceAll(c.want, "NEW", reference), "\n", eol)
					got, err := desired.AddPin("environments/dev.yaml", []byte(before), desired.ArtifactName(c.artifact), reference)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(want, string(got)); diff != "" {
						t.Errorf("-want +got\n%s", diff)
					}
				})
			}
		}
	}
	for _, c := range []struct{ name, before, want string }{
		{"braces", "pins: {}\n", "environments/dev.yaml:4:7: pins is written between braces, and a pin can't be added to it; write it in lines, without { and }"},
		{"full braces", "pins: {api: {image: api:1}}\n", "environments/dev.yaml:4:7: pins is written between braces, and a pin can't be added to it; write it in lines, without { and }"},
		{"only a name, in braces", "pins: {web: }\n", "environments/dev.yaml:4:7: pins is written between braces, and a pin can't be added to it; write it in lines, without { and }"},
		{"null", "pins: null\n", "environments/dev.yaml:4:7: pins is empty, not a mapping; remove what follows pins:"},
		{"a null pin", "pins:\n  web: ~\n", "environments/dev.yaml:5:8: web is empty, not a mapping; remove what follows web:"},
		{"no image", "pins:\n  web:\n    git: x\n", "environments/dev.yaml:6:5: the pin of web has no image; add image: to it by hand once"},
		{"empty image", "pins:\n  web:\n    image:\n", "environments/dev.yaml:6:11: the image is empty; write a reference after image:"},
		{"text", "pins: x\n", "environments/dev.yaml:4:7: this is text, not a mapping"},
		{"braces of several lines", "pins:\n  api: {image: api:1\n  }\n", "environments/dev.yaml:5:3: to add a line here would change more than this; add it by hand once"},
		{"end of document", "...\n", "environments/dev.yaml:1:1: to add pins: at the end of the file would change more than this; add it by hand once"},
		{"several lines", "pins:\n  api:\n    image: \"4f\\\n    1c\"\n", "environments/dev.yaml:6:12: this goes over several lines, and can't be edited in place; write it in one line, plain or in quotes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := desired.AddPin("environments/dev.yaml", []byte(head+c.before), "web", "web:2")
			if err == nil || err.Error() != c.want || got != nil {
				t.Errorf("got %q and the error\n%v\nwant the error\n%s", got, err, c.want)
			}
		})
	}
	if _, err := desired.AddPin("environments/dev.yaml", []byte(head+"pins:\n"), "Web", "web:2"); err == nil || !strings.Contains(err.Error(), `did you mean "web"?`) {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := desired.AddPin("environments/dev.yaml", []byte(head+"pins:\n"), "web", "web"); err == nil {
		t.Error("a reference without a version was taken")
	}
}

// What is added can be read.
func TestAddedPinIsRead(t *testing.T) {
	data := []byte(environmentHead + "namespace: shop\n")
	names := []desired.ArtifactName{"web", "true", "null", "1e3", "12", "0x1f", "a-b", "on", "2026-01-01"}
	for _, name := range names {
		var err error
		if data, err = desired.AddPin("environments/x.yaml", data, name, "acme/"+string("a"+name)+":1"); err != nil {
			t.Fatal(err)
		}
		if data, err = desired.SetManifests("environments/x.yaml", data, desired.ServiceName(name), commit); err != nil {
			t.Fatal(err)
		}
	}
	r := read(t, fstest.MapFS{"environments/x.yaml": {Data: data}})
	x := r.Environments["x"]
	if x == nil {
		t.Fatalf("%v\n%s", r.Problems, data)
	}
	for _, name := range names {
		if x.Pins[name].Image.Reference != "acme/a"+string(name)+":1" || x.Manifests[desired.ServiceName(name)] != commit {
			t.Errorf("%s: %+v", name, x.Pins[name])
		}
	}
}

func TestEditor(t *testing.T) {
	const file = "environments/dev.yaml"
	data := []byte("\ufeff" + head + "pins:\r\n  api: # ours\r\n    image: 'api:1' # x\r\n")
	e, err := desired.NewEditor(file, data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] = '!' // the editor has a copy
	}
	want := "\ufeff" + head + "pins:\r\n  api: # ours\r\n    image: 'api:2' # x\r\n  web:\r\n    image: web:1\r\nmanifests:\n  api: " + commit + "\n"
	got, err := e.Apply(desired.Edit{Service: "api", Pins: []desired.PinEdit{{"api", "api:2"}, {"web", "web:1"}}, Manifests: commit, Add: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for i := range got {
		got[i] = '!' // and gives one
	}
	for name, edit := range map[string]desired.Edit{
		"not there":     {Pins: []desired.PinEdit{{"api", "api:3"}, {"z", "z:1"}}},
		"no version":    {Pins: []desired.PinEdit{{"api", "api:3"}, {"web", "web"}}},
		"bad commit":    {Service: "web", Pins: []desired.PinEdit{{"api", "api:3"}, {"b", "b:1"}}, Manifests: "4f1c", Add: true},
		"no service":    {Pins: []desired.PinEdit{{"api", "api:3"}}, Manifests: commit},
		"nothing moved": {Service: "web", Manifests: "4f1c"},
	} {
		if got, err := e.Apply(edit); err == nil || got != nil || name == "not there" != errors.Is(err, desired.ErrNotPinned) {
			t.Errorf("%s: got %q and the error %v", name, got, err)
		}
		if got, err := e.Apply(desired.Edit{}); err != nil || string(got) != want {
			t.Errorf("%s: it left %q, %v", name, got, err)
		}
	}
	want = strings.Replace(want, "manifests:\n", "manifests:\n  aa: \""+other+"\"\n", 1)
	if got, err := e.Apply(desired.Edit{Service: "aa", Manifests: other}); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	// A file that would become too large to be read is refused as well.
	for _, edit := range []desired.Edit{{Pins: []desired.PinEdit{{"web", "web:12"}}}, {Pins: []desired.PinEdit{{"z", "z:1"}}, Add: true}} {
		for _, mark := range []string{"", "\ufeff"} {
			data := mark + head + "pins:\n  web:\n    image: web:1\n"
			data += "#" + strings.Repeat("x", 1<<20-len(data)-2) + "\n"
			if _, made := editsAgree(t, []byte(data), []desired.Edit{edit}); made != 0 {
				t.Errorf("%+v made a file of more than 1 MiB", edit)
			}
			if _, made := editsAgree(t, []byte(data[:len(data)-40]+"\n"), []desired.Edit{edit}); made != 1 {
				t.Errorf("%+v refused a file of less than 1 MiB", edit)
			}
		}
	}
	if e, err := desired.NewEditor(file, []byte("pins: {\n")); e != nil || !errors.As(err, new(desired.Problem)) {
		t.Errorf("a file that does not parse: %v", err)
	}
}

// editsAgree makes the same edits with an editor and one by one, and reports
// how many the editor made without parsing the file again.
func editsAgree(t *testing.T, data []byte, edits []desired.Edit) (quick, made int) {
	t.Helper()
	const file = "environments/x.yaml"
	e, err := desired.NewEditor(file, data)
	if err != nil {
		if _, other := desired.SetPin(file, data, "web", "web:1"); other == nil || other.Error() != err.Error() {
			t.Errorf("%q: the editor says %v, SetPin says %v", data, err, other)
		}
		return 0, 0
	}
	type handed struct{ data, copy []byte }
	var all []handed
	defer func() {
		for i, h := range all {
			if !bytes.Equal(h.data, h.copy) {
				t.Errorf("what edit %d made was changed by a later one, from %q to %q", i, h.copy, h.data)
			}
		}
	}()
	for _, edit := range edits {
		tree := e.Tree()
		want, wantErr := oneByOne(file, data, edit)
		got, err := e.Apply(edit)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) || !bytes.Equal(got, want) {
			t.Fatalf("%+v made\n%q into\n%q, %v; one by one it is\n%q, %v", edit, data, got, err, want, wantErr)
		}
		if err := e.Kept(); err != nil {
			t.Fatalf("%+v made\n%q into\n%q: %v", edit, data, got, err)
		}
		if err != nil {
			continue
		}
		all = append(all, handed{got, bytes.Clone(got)})
		if made++; e.Tree() == tree {
			quick++
		}
		data = got
	}
	return quick, made
}

func oneByOne(file string, data []byte, edit desired.Edit) (_ []byte, err error) {
	set := desired.SetPin
	if edit.Add {
		set = desired.AddPin
	}
	for _, p := range edit.Pins {
		if data, err = set(file, data, p.Artifact, p.Reference); err != nil {
			return nil, err
		}
	}
	if edit.Manifests != "" {
		return desired.SetManifests(file, data, edit.Service, edit.Manifests)
	}
	return data, nil
}

var (
	someNames      = []string{"web", "api", "a", "z-1", "true", "12", "mid"}
	someReferences = []string{"web:1", "w:2", "ghcr.io/acme/web:1.4.3@sha256:" + strings.Repeat("3", 64), "localhost:5000/a_b/c:v1.2.3-rc.1", "a@sha256:" + strings.Repeat("0", 64), "web", "UP:1", "a/b/c:1_0"}
	someCommits    = []string{"", commit, other, strings.Repeat("1e", 20), commit[1:] + "0", "4f1c"}
)

func someEdit(pick func(n int) int) desired.Edit {
	edit := desired.Edit{Service: desired.ServiceName(someNames[pick(len(someNames))]), Manifests: someCommits[pick(len(someCommits))], Add: pick(2) == 1}
	for range pick(3) {
		edit.Pins = append(edit.Pins, desired.PinEdit{Artifact: desired.ArtifactName(someNames[pick(len(someNames))]), Reference: someReferences[pick(len(someReferences))]})
	}
	return edit
}

// someFile writes an environment's file in one of the many ways.
func someFile(r *rand.Rand) []byte {
	one := func(list ...string) string { return list[r.IntN(len(list))] }
	var b strings.Builder
	comment := func(indent string) {
		b.WriteString(one("", "", "", "\n", indent+"# a comment: of {some} \"kind\n", indent+"   # deeper\n", "# at the margin\n", indent+"# ž日\n\n"))
	}
	value := func(s string) string {
		return one(s, s, s, "'"+s+"'", `"`+s+`"`, s+" # "+s, s+"   ", "'"+s+"' # x", "  "+s, `"`+s[:1]+`\`+"\n      "+s[1:]+`"`, "|-\n      "+s, "1.4", "~", "")
	}
	b.WriteString(one(head, head, "---\n"+head, "%YAML 1.1\n---\n"+head, head+"parameters:\n    a: |+\n      x\n\n    ž: \"日\tx\" # y\n", head+"parameters: {a: [1, {b: c}], pins: {web: {image: web:1}}}\n", head+"parameters: {a: \"x\u2028y\"}\n"))
	sections := []func(){
		func() {
			if r.IntN(6) == 0 {
				b.WriteString(one("pins:\n", "pins: {}\n", "pins: # none\n", "pins: {web: {image: web:1}, api: {image: 'a:1', x: y}, mid: {z, image: \"m:1\"}}\n", "pins: {web: {image: web:1\n  }}\n", "? pins\n: web:\n    image: web:1\n", "\"pins\":\n  web: {image: web:1}\n", "pins: []\n", "pins : # x\n   a:\n     image: b:1\n"))
				return
			}
			b.WriteString("pins:" + one("", " ", " # of\n  # these") + "\n")
			in := one("  ", "    ", " ")
			for _, name := range []string{"a", "api", "mid", "true", "web", "z-1"} {
				if r.IntN(3) == 0 {
					continue
				}
				comment(in)
				switch r.IntN(10) {
				case 0:
					b.WriteString(in + name + ": {image: " + one("web:1", "'web:1'", `"web:1"`) + "}\n")
				case 1:
					b.WriteString(in + name + ": {x: \"ž\", image: " + one("web:1", "žž:1", "'ž'") + ", y: [z]} # x\n")
				case 2:
					b.WriteString(in + name + ":\n")
				case 3:
					b.WriteString(in + one("? "+name+"\n", "? "+name+"\n"+in+":\n", name+": {image: web:1\n"+in+" }\n", "? "+name+"\n"+in+": image: x:1\n", "'"+name+"':\n"+in+"  image: x:1\n", name+":\n"+in+"- x\n"))
				case 4:
					b.WriteString(in + name + ": # x\n" + in + "    note: y\n" + in + "    image: " + value("web:1") + "\n" + in + "    more: " + one("", "x\n"+in+"      y", "[a,\n  b]", "[a,\n"+in+"   b\n"+in+"   ]", "{a: b}") + "\n")
				default:
					b.WriteString(in + name + ":\n")
					comment(in + "  ")
					b.WriteString(in + "  image: " + value("ghcr.io/acme/"+name+":1.2.3") + "\n")
				}
			}
		},
		func() {
			switch r.IntN(5) {
			case 0:
			case 1:
				b.WriteString(one("manifests:\n", "manifests: {}\n", "manifests: {web: "+commit+"}\n", "manifests: # x\n", "manifests: ~\n", "? manifests\n: web: "+commit+"\n", "? manifests\n:\n  z: "+commit+"\n"))
			default:
				b.WriteString("manifests:\n")
				for _, name := range []string{"a", "api", "web", "z-1"} {
					if r.IntN(2) == 0 {
						comment("  ")
						b.WriteString("  " + name + ": " + value(one(commit, other)) + "\n")
					}
				}
			}
		},
	}
	r.Shuffle(len(sections), func(i, j int) { sections[i], sections[j] = sections[j], sections[i] })
	for _, section := range sections {
		section()
		comment("")
	}
	text := b.String() + one("", "", "", "cluster: x\n", "parameters2: |+\n  x\n", "...\n", "# end", "x: |\n  y\n\n")
	text = one(text, text, strings.TrimRight(text, "\n"))
	text = one(text, text, strings.ReplaceAll(text, "\n", "\r\n"))
	if r.IntN(20) == 0 {
		text = strings.Replace(text, "\n", "\r", 1+r.IntN(3))
	}
	return []byte(one("", "", "", "\ufeff") + text)
}

// An editor gives byte for byte, and refuses word for word, what the functions
// in a row do.
func TestEditorIsTheFunctionsInARow(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 200
	}
	quick, made, parsed := 0, 0, 0
	for seed := range uint64(n) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := someFile(r)
		var edits []desired.Edit
		for range 12 {
			edits = append(edits, someEdit(r.IntN))
		}
		q, m := editsAgree(t, data, edits)
		quick, made = quick+q, made+m
		if m > 0 {
			parsed++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d of %d files were edited, %d edits made, %d of them without parsing again", parsed, n, made, quick)
	if parsed < n/2 || quick < made/2 {
		t.Errorf("of %d files %d were edited, and of %d edits %d made without parsing again: too few to mean much", n, parsed, made, quick)
	}
}

func FuzzEditor(f *testing.F) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		data := someFile(r)
		var picks []byte
		for range 30 {
			picks = append(picks, byte(r.IntN(256)))
		}
		f.Add(data, picks)
	}
	f.Add([]byte("pins:\n  ? a\n  web:\n    image: web:1\n"), []byte{0, 0, 1, 1, 0, 0})
	f.Add([]byte("{pins: {web: {image: web:1}, ? a, b}}"), []byte{0, 0, 1, 1, 0, 1})
	f.Fuzz(func(t *testing.T, data, picks []byte) {
		var edits []desired.Edit
		for len(picks) > 0 && len(edits) < 12 {
			edits = append(edits, someEdit(func(n int) int {
				if len(picks) == 0 {
					return 0
				}
				p := int(picks[0]) % n
				picks = picks[1:]
				return p
			}))
		}
		editsAgree(t, data, edits)
	})
}

// A pin is added, and nothing else changes.
func FuzzAddPin(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(someFile(rand.New(rand.NewPCG(seed, 3))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := desired.AddPin("environments/x.yaml", data, "web", "web:2")
		if err != nil {
			if got != nil {
				t.Error("an error, and a file")
			}
			return
		}
		again, err := desired.SetPin("environments/x.yaml", got, "web", "web:2")
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%q became %q; set again: %q, %v", data, got, again, err)
		}
		// What was there is there still, in its order.
		rest := string(got)
		isBreak := func(r rune) bool { return strings.ContainsRune("\n\r\u0085\u2028\u2029", r) }
		for _, line := range strings.FieldsFunc(string(data), isBreak) {
			if strings.Contains(line, "image") {
				continue // it may be the line that changed
			}
			_, after, found := strings.Cut(rest, line)
			if !found {
				t.Fatalf("%q lost %q: %q", data, line, got)
			}
			rest = after
		}
	})
}

// A thousand services are promoted into one file.
func BenchmarkEditor(b *testing.B) {
	const file = "environments/dev.yaml"
	data := many(1000)[file].Data
	for len(data) < 130<<10 {
		data = append(data, "# filling that brings the file to the size of a large one\n"...)
	}
	for _, c := range []struct{ name, manifests string }{{"pin", ""}, {"pin and manifests", commit}} {
		b.Run(c.name, func(b *testing.B) {
			e, err := desired.NewEditor(file, data)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				name := fmt.Sprintf("s%05d", i*7%1000)
				if _, err := e.Apply(desired.Edit{Service: desired.ServiceName(name), Pins: []desired.PinEdit{{desired.ArtifactName(name), fmt.Sprintf("ghcr.io/acme/%s:2.%d.0", name, i)}}, Manifests: c.manifests}); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
	b.Run("new pin and manifests", func(b *testing.B) {
		b.ReportAllocs()
		var e *desired.Editor
		i := 0
		for b.Loop() {
			if i%1000 == 0 { // part of what it costs, once in a thousand
				var err error
				if e, err = desired.NewEditor(file, data); err != nil {
					b.Fatal(err)
				}
			}
			name := fmt.Sprintf("t%05d", i*7%1000)
			if _, err := e.Apply(desired.Edit{Service: desired.ServiceName(name), Pins: []desired.PinEdit{{desired.ArtifactName(name), "ghcr.io/acme/" + name + ":2"}}, Manifests: commit, Add: true}); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if _, err := desired.NewEditor(file, data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
