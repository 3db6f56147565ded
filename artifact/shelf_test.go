package artifact_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pinion-cd/pinion/artifact"
)

var began = time.Date(2026, 11, 19, 10, 0, 0, 0, time.UTC)

// found are the sources of a rule that watches the registry alone.
var found = artifact.Sources{Registry: true}

func digest(first string) string { return "sha256:" + first + strings.Repeat("0", 64-len(first)) }

func sighting(version, digest string) artifact.Sighting {
	return artifact.Sighting{Repository: "localhost:5000/acme/web", Version: version, Digest: digest, Origin: artifact.FromRegistry, Time: began}
}

// take takes a sighting in, and goes by way of the file.
func take(t testing.TB, s *artifact.Shelf, x artifact.Sighting) (*artifact.Shelf, artifact.Taken) {
	t.Helper()
	got, err := s.Take(x)
	if err != nil {
		t.Fatal(err)
	}
	if got.Event == "" {
		return s, got
	}
	file := artifact.File(got.Record.Repository, got.Record.Version)
	back, err := artifact.Decode(file, got.Record.Encode())
	if err != nil || !reflect.DeepEqual(back, got.Record) {
		t.Fatalf("%+v is read back as %+v, %v", got.Record, back, err)
	}
	return s.With("c1", got.Record), got
}

func TestAVersionIsBoundToItsDigest(t *testing.T) {
	s, first := take(t, nil, sighting("1.2.3", digest("a")))
	if first.Event != artifact.EventFound {
		t.Errorf("the first sighting is %q", first.Event)
	}
	if _, again := take(t, s, sighting("1.2.3", digest("a"))); again.Event != "" || again.Refused != "" {
		t.Errorf("seen again: %+v", again)
	}
	later := s
	for i := range 20 {
		var moved artifact.Taken
		later, moved = take(t, later, sighting("1.2.3", digest(string(rune('b'+i%5))+strings.Repeat("1", i))))
		if moved.Refused == "" || moved.Record.Digest != digest("a") {
			t.Fatalf("moved: %+v", moved)
		}
	}
	r, _ := later.Lookup("localhost:5000/acme/web", "1.2.3")
	if len(r.Moved) != 10 {
		t.Errorf("%d digests are kept of a tag that never rests", len(r.Moved))
	}
	rules := rule(t, semantic)
	if err := rules.Refuses(r); err == nil || !strings.Contains(err.Error(), "its tag was moved") {
		t.Errorf("a version whose tag was moved is refused for %v", err)
	}
	if _, ok := s.Lookup("localhost:5000/acme/web", "1.2.3"); !ok {
		t.Error("a later shelf has changed an earlier one")
	}
}

func TestPublishersKnowBetter(t *testing.T) {
	label := sighting("1.2.3", digest("a"))
	label.Facts = artifact.Facts{Commit: "aaaaaaa", Branch: "main"}
	told := sighting("1.2.3", digest("a"))
	told.Origin, told.By, told.Facts = artifact.FromPublisher, "ci", artifact.Facts{Commit: "bbbbbbb", Tests: artifact.Passed}
	for _, order := range [][]artifact.Sighting{{label, told}, {told, label}, {label, told, label}} {
		var s *artifact.Shelf
		for _, x := range order {
			s, _ = take(t, s, x)
		}
		r, _ := s.Lookup("localhost:5000/acme/web", "1.2.3")
		if want := (artifact.Facts{Commit: "bbbbbbb", Branch: "main", Tests: artifact.Passed}); r.Told() != want || r.By != "ci" {
			t.Errorf("%+v by %q, want %+v", r.Told(), r.By, want)
		}
	}
}

// What a publisher has said is its own: another one neither changes it, nor adds
// to it, nor has the tag for moved.
func TestPublishersKeepWhatTheySaid(t *testing.T) {
	told := func(by string, as []string, digest string, tests artifact.Result) artifact.Sighting {
		x := sighting("1.2.3", digest)
		x.Origin, x.By, x.As, x.Tests = artifact.FromPublisher, by, as, tests
		return x
	}
	s, _ := take(t, nil, told("ci", []string{"builders", "ci"}, digest("a"), artifact.Failed))
	for _, x := range []artifact.Sighting{
		told("other", []string{"other"}, digest("a"), artifact.Passed), told("other", []string{"builders"}, digest("a"), artifact.Passed),
		told("other", nil, digest("a"), ""), told("other", []string{"other"}, digest("b"), ""),
	} {
		if got, err := s.Take(x); err != nil || got.Event != "" || !got.Foreign || !strings.Contains(got.Refused, "was published by ci") {
			t.Errorf("%s as %v of %s: %+v, %v", x.By, x.As, x.Digest, got, err)
		}
	}
	r, _ := s.Lookup("localhost:5000/acme/web", "1.2.3")
	for name, want := range map[string]bool{"ci": true, "builders": true, "other": false, "": false} {
		if _, err := r.For(artifact.Sources{Publishers: []string{name}}); (err == nil) != want {
			t.Errorf("a stage that names %q: %v", name, err)
		}
	}
	for _, watch := range []bool{false, true} {
		if _, err := r.For(artifact.Sources{Registry: watch}); err == nil {
			t.Error("a stage that names nobody takes what was published")
		}
	}
	// The same one may, and one who is let by all the same names.
	s, _ = take(t, s, told("ci", []string{"builders", "ci"}, digest("a"), artifact.Passed))
	s, _ = take(t, s, told("second", []string{"ci", "builders", "third"}, digest("a"), artifact.Failed))
	if r, _ := s.Lookup("localhost:5000/acme/web", "1.2.3"); r.Tests != artifact.Failed || r.By != "second" {
		t.Errorf("it is %+v", r)
	}
}

// Who has not published a version, and did not see it, has not brought it: what
// others say of it is nothing to a stage.
func TestSourcesAreKeptApart(t *testing.T) {
	seen := sighting("1.2.3", digest("a"))
	seen.Facts = artifact.Facts{Commit: "aaaaaaa", Tests: artifact.Failed}
	told := sighting("1.2.3", digest("a"))
	told.Origin, told.By, told.Facts, told.Time = artifact.FromPublisher, "ci", artifact.Facts{Tests: artifact.Passed}, began.Add(time.Hour)
	ci, nobody, other := artifact.Sources{Publishers: []string{"ci"}}, artifact.Sources{}, artifact.Sources{Publishers: []string{"other"}}
	both := artifact.Sources{Publishers: []string{"other"}, Registry: true}
	for _, c := range []struct {
		name  string
		order []artifact.Sighting
		from  artifact.Sources
		want  artifact.Facts
		err   string
	}{
		{"seen, watched", []artifact.Sighting{seen}, found, seen.Facts, ""},
		{"seen, not watched", []artifact.Sighting{seen}, ci, artifact.Facts{}, "nobody whom the rule names has published it"},
		{"published, named", []artifact.Sighting{told}, ci, told.Facts, ""},
		{"published, watched", []artifact.Sighting{told}, found, artifact.Facts{}, "was not found in the registry yet"},
		{"published, others named", []artifact.Sighting{told}, other, artifact.Facts{}, "whom the rule does not name"},
		{"both, watched", []artifact.Sighting{seen, told}, found, seen.Facts, ""},
		{"both, the other way round", []artifact.Sighting{told, seen}, found, seen.Facts, ""},
		{"both, named", []artifact.Sighting{told, seen}, ci, artifact.Facts{Commit: "aaaaaaa", Tests: artifact.Passed}, ""},
		{"both, others named and watched", []artifact.Sighting{told, seen}, both, seen.Facts, ""},
		{"both, no source", []artifact.Sighting{told, seen}, nobody, artifact.Facts{}, "whom the rule does not name"},
	} {
		var s *artifact.Shelf
		for _, x := range c.order {
			s, _ = take(t, s, x)
		}
		r, _ := s.Lookup("localhost:5000/acme/web", "1.2.3")
		got, err := r.For(c.from)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
			continue
		}
		if err != nil || got.Facts != c.want || (got.By == "ci") != slices.Contains(c.from.Publishers, "ci") {
			t.Errorf("%s: %+v by %q, %v; want %+v", c.name, got.Facts, got.By, err, c.want)
		}
	}
}

func TestNext(t *testing.T) {
	s, _ := take(t, nil, sighting("1.3.0", digest("a")))
	s, _ = take(t, s, sighting("1.5.0", digest("a")))
	s, _ = take(t, s, sighting("1.5.0", digest("b"))) // moved
	published := sighting("1.4.0", digest("a"))
	published.Origin, published.By = artifact.FromPublisher, "ci"
	s, _ = take(t, s, published)
	r := rule(t, artifact.Rule{Range: "1.x", Branch: "main"})
	plain := rule(t, artifact.Rule{Range: "1.x"})
	present, err := plain.Read("1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rule        artifact.Rule
		tags, tried string
		want        string
	}{
		{plain, "1.2.0 1.1.0 latest 2.0.0 1.9.0-rc.1", "", ""},
		{plain, "1.3.0 1.2.5", "", ""},
		{plain, "1.6.0 1.10.0 1.9.0 1.3.0", "", "1.10.0"},
		{plain, "1.6.0 1.10.0 1.9.0 1.3.0", "1.10.0 1.9.0", "1.6.0"},
		{plain, "1.10.0", "1.10.0", ""},
		{plain, "1.5.0 1.4.0", "", "1.4.0"}, // known of somebody else
		{plain, "1.5.0 1.3.0 1.2.9", "", ""},
		{r, "1.3.0 1.2.9", "", "1.2.9"}, // of 1.3.0 no branch is known
	} {
		got, ok := s.Next(c.rule, found, "localhost:5000/acme/web", present, strings.Fields(c.tags), func(tag string) bool { return slices.Contains(strings.Fields(c.tried), tag) })
		if got != c.want || ok != (c.want != "") {
			t.Errorf("of %s, tried %q: %q, want %q", c.tags, c.tried, got, c.want)
		}
	}
}

// A tag that names its branch says so where nobody else does.
func TestChooseReadsTheBranchOfATag(t *testing.T) {
	for _, c := range []struct {
		branch, labelled, want string
	}{{"", "", "feature-x"}, {"feature/x", "", "feature/x"}, {"feature/x", "Feature/X", "Feature/X"}} {
		r := rule(t, artifact.Rule{Pattern: "{date}-{branch}-{version}", Branch: c.branch})
		x := sighting("20170717-feature-x-1.2", digest("a"))
		x.Branch = c.labelled
		s, _ := take(t, nil, x)
		present, err := r.Read("20170716-feature-x-1.2")
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Choose(r, found, x.Repository, present); got.Record.Branch != c.want {
			t.Errorf("a rule for %q, labelled %q: it is of %q, want %q", c.branch, c.labelled, got.Record.Branch, c.want)
		}
	}
}

func TestNormal(t *testing.T) {
	for s, want := range map[string]string{
		"nginx": "docker.io/library/nginx", "docker.io/nginx": "docker.io/library/nginx", "index.docker.io/library/nginx": "docker.io/library/nginx",
		"acme/web": "docker.io/acme/web", "GHCR.io/acme/web": "ghcr.io/acme/web", "ghcr.io:443/acme/web": "ghcr.io/acme/web",
		"localhost/web": "localhost/web", "localhost:5000/web": "localhost:5000/web", "registry.example:80/web": "registry.example:80/web",
		"registry-1.docker.io/acme/web": "docker.io/acme/web", "web.v2": "docker.io/library/web.v2", "": "docker.io/library/",
	} {
		if got := artifact.Normal(s); got != want || artifact.Normal(got) != got {
			t.Errorf("%q is %q, want %q", s, got, want)
		}
	}
	s, _ := take(t, nil, artifact.Sighting{Repository: "nginx", Version: "1.2.3", Digest: digest("a"), Origin: artifact.FromRegistry, Time: began})
	if r, ok := s.Lookup("index.docker.io/library/nginx", "1.2.3"); !ok || r.Repository != "docker.io/library/nginx" {
		t.Errorf("it is known as %+v", r)
	}
}

// What is chosen is a member, is allowed, is newer than what is there, and no
// other one that is allowed is newer; the order of what is known does not matter.
func TestChooseProperties(t *testing.T) {
	r := rule(t, artifact.Rule{Range: ">=1.0.0 <3"})
	random := rand.New(rand.NewPCG(1, 2))
	numbers := "0 1 2 3 9 10 11"
	pick := func() string { f := strings.Fields(numbers); return f[random.IntN(len(f))] }
	for range 500 {
		var s *artifact.Shelf
		var all []artifact.Record
		for range random.IntN(12) {
			tag := pick() + "." + pick() + "." + pick()
			if random.IntN(4) == 0 {
				tag += "-rc." + pick()
			}
			s, _ = take(t, s, sighting(tag, digest("a")))
			if random.IntN(5) == 0 {
				s, _ = take(t, s, sighting(tag, digest("b")))
			}
		}
		all = s.Versions("localhost:5000/acme/web")
		present, err := r.Read(pick() + "." + pick() + ".0")
		if err != nil {
			t.Fatal(err)
		}
		c := s.Choose(r, found, "localhost:5000/acme/web", present)
		best := present
		any := false
		for _, x := range all {
			v, err := r.Read(x.Version)
			if err == nil && r.Refuses(x) == nil && v.Newer(best) {
				best, any = v, true
			}
		}
		if c.Found != any || any && c.Record.Version != best.Tag {
			t.Fatalf("of %v after %s: chose %q, want %q", all, present.Tag, c.Record.Version, best.Tag)
		}
		slices.Reverse(all)
		if again := (&artifact.Shelf{}).With("c2", all...).Choose(r, found, "localhost:5000/acme/web", present); !reflect.DeepEqual(again, c) {
			t.Fatalf("in another order: %+v, want %+v", again, c)
		}
	}
}

func TestReadShelf(t *testing.T) {
	s, _ := take(t, nil, sighting("1.2.3", digest("a")))
	r, _ := s.Lookup("localhost:5000/acme/web", "1.2.3")
	tree := fstest.MapFS{
		"localhost:5000/acme/web/_tags/1.2.3.yaml": {Data: r.Encode()},
		"localhost:5000/acme/web/_tags/1.2.4.yaml": {Data: r.Encode()},
		"README.md": {Data: []byte("hello")},
	}
	got, err := artifact.ReadShelf("c1", tree)
	if got.At() != "c1" || len(got.Versions("localhost:5000/acme/web")) != 1 {
		t.Errorf("read %+v", got)
	}
	const want = "localhost:5000/acme/web/_tags/1.2.4.yaml: it is the record of localhost:5000/acme/web:1.2.3"
	if err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
	// What can't be read is not unknown: nobody may bind it anew.
	if taken, err := got.Take(sighting("1.2.4", digest("b"))); err == nil {
		t.Errorf("a version whose record can't be read was taken as %+v", taken)
	}
}

func TestSoundFacts(t *testing.T) {
	f, dropped := artifact.Facts{Commit: "not a commit", Branch: "main", Build: "https://user:secret@ci.example/5", Source: "javascript:alert(1)", Tests: "perhaps", Quality: artifact.Passed,
		Created: time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), Committed: time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)}.Sound()
	if want := (artifact.Facts{Branch: "main", Quality: artifact.Passed}); f != want {
		t.Errorf("sound are %+v, want %+v", f, want)
	}
	if len(dropped) != 6 || strings.Contains(strings.Join(dropped, " "), "secret") {
		t.Errorf("dropped: %q", dropped)
	}
}

func FuzzDecode(f *testing.F) {
	s, _ := take(f, nil, sighting("1.2.3", digest("a")))
	r, _ := s.Lookup("localhost:5000/acme/web", "1.2.3")
	f.Add(string(r.Encode()))
	f.Add("repository: a\nversion: [1]\n")
	f.Fuzz(func(t *testing.T, data string) {
		got, err := artifact.Decode("localhost:5000/acme/web/_tags/1.2.3.yaml", []byte(data))
		if err != nil {
			return
		}
		back, err := artifact.Decode("localhost:5000/acme/web/_tags/1.2.3.yaml", got.Encode())
		if err != nil || !reflect.DeepEqual(back, got) && got.Found.Nanosecond() == 0 && got.Created.Nanosecond() == 0 && got.Found.Location() == time.UTC {
			t.Fatalf("%+v is read back as %+v, %v", got, back, err)
		}
	})
}

// What one more commit costs does not grow with what is known.
func TestShelvesOfManyVersions(t *testing.T) {
	allocations := func(n int) float64 {
		var all []artifact.Record
		for i := range n {
			all = append(all, artifact.Record{Repository: "registry.example/web", Version: fmt.Sprintf("1.%d.0", i)})
		}
		shelf := (*artifact.Shelf)(nil).With("a", all...)
		next := artifact.Record{Repository: "registry.example/web", Version: "2.0.0"}
		return testing.AllocsPerRun(10, func() { shelf.With("b", next) })
	}
	if few, many := allocations(10), allocations(5000); many > few {
		t.Errorf("%v allocations with 10 versions, %v with 5,000", few, many)
	}
}
