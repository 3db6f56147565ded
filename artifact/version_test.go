package artifact_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/artifact"
)

func rule(t testing.TB, r artifact.Rule) artifact.Rule {
	t.Helper()
	r, err := artifact.MakeRule(r)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	semantic = artifact.Rule{Range: ">=1.0.0 <2", Prereleases: true}
	dated    = artifact.Rule{Pattern: "{date}-{branch}-{version}", Branch: "master", Prereleases: true}
)

// Each list is in its order, and each version is newer than those before it.
func TestOrder(t *testing.T) {
	for _, c := range []struct {
		rule artifact.Rule
		tags string
	}{
		{semantic, "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 v1.0.0 1.2.9 1.2.10 1.10.0 18446744073709551615.0.0"},
		{dated, "20170716.235959-master-9.9.9 20170717-master-1.2.9 20170717.111749-master-1.2.9 20170717.111749-master-1.2.10-rc.1 20170717.111749-master-1.2.10 20170717T111750-master-1.2.3 20170718.0000-master-1.0"},
		{artifact.Rule{Pattern: "main-{commit}-{number}"}, "main-fffffff-7 main-0000000-10 main-abcdef0-00011 main-1234567-99999999999999999999999999"},
		{artifact.Rule{Pattern: "{version}-{date}", Range: "1.x"}, "1.2.9-20990101 1.2.10-20170717 1.2.10-20170718"},
		{artifact.Rule{Pattern: "{branch}_{version}"}, "z_1.2.3.4 a_1.2.4 feature-1_1.2.10"},
	} {
		r := rule(t, c.rule)
		var all []artifact.Version
		for _, tag := range strings.Fields(c.tags) {
			v, err := r.Read(tag)
			if err != nil {
				t.Errorf("%s: %v", tag, err)
			}
			all = append(all, v)
		}
		for i := range all {
			for j := range all {
				if got, want := all[i].Newer(all[j]), i > j; got != want {
					t.Errorf("%s: is %s newer than %s: %v", r, all[i].Tag, all[j].Tag, got)
				}
			}
		}
	}
}

func TestWhatARuleRefuses(t *testing.T) {
	plain := artifact.Rule{Range: ">=1.0.0 <2"}
	pre := func(text string) artifact.Rule { return artifact.Rule{Range: text, Prereleases: true} }
	for _, c := range []struct {
		rule        artifact.Rule
		tag, branch string // the branch as the build says it
		want        string
	}{
		{plain, "1.2.3", "", ""},
		{plain, "latest", "", "it is not a semantic version with all three numbers"},
		{plain, "1.2", "", "it is not a semantic version with all three numbers"},
		{plain, "20170717", "", "it is not a semantic version with all three numbers"},
		{plain, "2.0.0", "", "it is not in >=1.0.0 <2"},
		{plain, "1.2.3-rc.1", "", "it is a prerelease"},
		{semantic, "1.2.3-rc.1", "", ""},
		// Who excludes a version means its prereleases, too.
		{semantic, "2.0.0-rc.1", "", "it is a prerelease of what >=1.0.0 <2 excludes"},
		{semantic, "2.0.0-0", "", "it is a prerelease of what >=1.0.0 <2 excludes"},
		{semantic, "2.0.1-rc.1", "", "it is not in >=1.0.0 <2"},
		{semantic, "1.0.0-rc.1", "", "it is not in >=1.0.0 <2"},
		{semantic, "1.99.0-rc.1", "", ""},
		{pre(">=1, < v2.0.0"), "2.0.0-rc.1", "", "it is a prerelease of what >=1, < v2.0.0 excludes"},
		{pre(">=1 <2.1.x"), "2.1.0-rc.1", "", "it is a prerelease of what >=1 <2.1.x excludes"},
		{pre(">=1 <2.1.x"), "2.0.0-rc.1", "", ""},
		{pre(">=1 <2.0.0-rc.3"), "2.0.0-rc.1", "", ""},
		{pre(">=1 <2.0.0-rc.3"), "2.0.0-rc.3", "", "it is not in >=1 <2.0.0-rc.3"},
		{pre(">=1 <2 || >=2.0.0-rc.1 <3"), "2.0.0-rc.1", "", ""},
		{pre(">=1 <2 || >=2.0.0-rc.1 <3"), "3.0.0-rc.1", "", "it is a prerelease of what >=1 <2 || >=2.0.0-rc.1 <3 excludes"},
		{pre("<=2.0.0"), "2.0.0-rc.1", "", ""},
		{pre(">=1 =<2.0.0"), "2.0.0-rc.1", "", ""},
		{pre("1.0.0 - 2.0.0"), "2.0.0-rc.1", "", ""},
		{pre("^1.2"), "2.0.0-rc.1", "", "it is not in ^1.2"},
		{pre("~1.2"), "1.3.0-rc.1", "", "it is not in ~1.2"},
		{pre("1.x"), "2.0.0-rc.1", "", "it is not in 1.x"},
		{plain, "2.0.0-rc.1", "", "it is a prerelease"},
		{artifact.Rule{Pattern: "r{version}", Range: ">=1 <2", Prereleases: true}, "r2.0.0-rc.1", "", "it is a prerelease of what >=1 <2 excludes"},
		{artifact.Rule{Range: "1.x", Branch: "main"}, "1.2.3", "main", ""},
		{artifact.Rule{Range: "1.x", Branch: "main"}, "1.2.3", "next", "it is of the branch next, not of main"},
		{artifact.Rule{Range: "1.x", Branch: "main"}, "1.2.3", "", "it is not known to be of the branch main"},
		{dated, "20170717.111749-master-1.2.3", "", ""},
		{dated, "20170717.111749-next-1.2.3", "", "it does not have the form {date}-master-{version}"},
		{dated, "20171317.111749-master-1.2.3", "", "20171317.111749 is no date"},
		{artifact.Rule{Pattern: "{branch}-{version}", Branch: "feature/x"}, "feature-x-1.2", "", ""},
		{artifact.Rule{Pattern: "{version}", Range: "1.x"}, "1.2", "", "it has no semantic version, and has to be in 1.x"},
		{artifact.Rule{}, "1.2.3", "", "there is no rule for it"},
	} {
		r := c.rule
		if r.Range != "" || r.Pattern != "" {
			r = rule(t, r)
		}
		v, err := r.Read(c.tag)
		if err == nil {
			err = r.Allows(v, c.branch)
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s, %s of %q: %q, want %q", r, c.tag, c.branch, got, c.want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"{date}-{branch}-{version}", "v{version}", "{number}", "{", "}{", "{versoin}", "{version}{version}", "a.b+c{number}$"} {
		f.Add(seed, "20170717.111749-master-1.2.3", "20170717-master-1.2.10")
	}
	f.Fuzz(func(t *testing.T, pattern, a, b string) {
		r, err := artifact.MakeRule(artifact.Rule{Pattern: pattern, Prereleases: true})
		if (err == nil) != (artifact.ParsePattern(pattern) == nil) {
			t.Fatalf("%q: MakeRule and ParsePattern differ: %v", pattern, err)
		}
		if err == nil {
			ordered(t, r, a, b)
		}
	})
}

func FuzzTag(f *testing.F) {
	r := rule(f, artifact.Rule{Range: "*", Prereleases: true})
	f.Add("1.2.9", "1.2.10-rc.1", "v1.2.10")
	f.Add("0.0.0", "00.1.2", "1.2.3-0a.-")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ordered(t, r, a, b)
		x, xErr := r.Read(a)
		y, yErr := r.Read(b)
		z, zErr := r.Read(c)
		if xErr == nil && yErr == nil && zErr == nil && x.Compare(y) <= 0 && y.Compare(z) <= 0 && x.Compare(z) > 0 {
			t.Fatalf("%q ≤ %q ≤ %q, and %q > %q", a, b, c, a, c)
		}
	})
}

// ordered checks that the order of two tags, if the rule reads them, is total.
func ordered(t *testing.T, r artifact.Rule, a, b string) {
	x, err := r.Read(a)
	if err != nil {
		return
	}
	y, err := r.Read(b)
	if err != nil {
		return
	}
	if x.Compare(y) != -y.Compare(x) || (x.Compare(y) == 0) != (a == b) || x.Compare(x) != 0 || x.Newer(y) && y.Newer(x) {
		t.Fatalf("%s: %q and %q compare as %d and %d", r, a, b, x.Compare(y), y.Compare(x))
	}
}

func TestPlaceholdersAreSorted(t *testing.T) {
	if all := artifact.Placeholders(); !slices.IsSorted(all) || len(all) == 0 {
		t.Errorf("placeholders are %v", all)
	}
}
