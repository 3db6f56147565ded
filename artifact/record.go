package artifact

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"sigs.k8s.io/yaml"
)

// Branch is where what is known of artifacts is kept. It is not below ledger/,
// where each name is an environment's.
const Branch = "pinion/artifacts"

// Result is what a build says of one of its checks; "" is nothing.
type Result string

// The results.
const (
	Passed Result = "passed"
	Failed Result = "failed"
)

// Facts are what a build says of what it has made.
type Facts struct {
	Commit  string `json:"commit,omitempty"` // of the source
	Branch  string `json:"branch,omitempty"` // of the source
	Source  string `json:"source,omitempty"` // the address of the source's repository
	Build   string `json:"build,omitempty"`  // the address of the build
	Tests   Result `json:"tests,omitempty"`
	Quality Result `json:"quality,omitempty"` // of the quality gate
	// Created is when it was built.
	Created time.Time `json:"created,omitzero"`
	// Committed is when the commit was made.
	Committed time.Time `json:"committed,omitzero"`
}

// Origin is how a version came to be known.
type Origin string

// The origins.
const (
	FromRegistry  Origin = "registry"
	FromPublisher Origin = "publisher"
	// FromSignature is of a sighting, and of no record: it adds who has signed.
	FromSignature Origin = "signature"
)

// Record is one version of an artifact: a file of the branch.
type Record struct {
	Repository string `json:"repository"`
	Version    string `json:"version"` // the tag
	Digest     string `json:"digest"`  // for ever
	// Facts are what who published it says of it.
	Facts `json:",inline"`
	// Labels are what the image itself says, if the registry had it.
	Labels Facts `json:"labels,omitzero"`
	// Signed are the fingerprints of the keys whose signature was found, sorted.
	Signed []string `json:"signed,omitempty"`
	Origin Origin   `json:"origin"`
	By     string   `json:"by,omitempty"` // the principal who published it
	// As are the names, the principal's and of its groups, by which rules let it
	// publish, sorted.
	As    []string  `json:"as,omitempty"`
	Found time.Time `json:"found"`
	// Seen is when a look at the registry found it there, with its digest; zero:
	// nobody has looked.
	Seen time.Time `json:"seen,omitzero"`
	// Moved are other digests that the tag has led to, in the order in which
	// they were seen, at most mostMoved.
	Moved []string `json:"moved,omitempty"`
}

const (
	mostMoved  = 10
	mostSigned = 20
	mostNames  = 100
)

// Sources are who may bring versions to a stage. The zero value lets nobody.
type Sources struct {
	Publishers []string // principals and groups
	Registry   bool     // what is found there
	// Signers are the keys of which one must have signed a version; none: nobody
	// has to.
	Signers []Signer
}

// Signer is a key: its name, and its fingerprint.
type Signer struct{ Name, Fingerprint string }

// unsigned says that none of the signers has signed the version; nil: one has.
func (s Sources) unsigned(r Record) error {
	var names []string
	for _, k := range s.Signers {
		if slices.Contains(r.Signed, k.Fingerprint) {
			return nil
		}
		names = append(names, k.Name)
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("no signature by %s was found", strings.Join(names, " or "))
}

// For is what a record says to who trusts these sources; an error says why none
// of them has brought the version. What others have said is not in it.
func (r Record) For(s Sources) (Record, error) {
	published := r.Origin == FromPublisher && (slices.Contains(s.Publishers, r.By) || slices.ContainsFunc(r.As, func(n string) bool { return slices.Contains(s.Publishers, n) }))
	switch {
	case published: // the labels are of that very digest
		r.Facts = r.Labels.with(r.Facts)
	case s.Registry && !r.Seen.IsZero():
		r.Facts, r.Origin, r.By, r.As, r.Found = r.Labels, FromRegistry, "", nil, r.Seen
	case r.Origin == FromPublisher && s.Registry:
		return r, fmt.Errorf("it was published by %s, whom the rule does not name, and was not found in the registry yet", r.By)
	case r.Origin == FromPublisher:
		return r, fmt.Errorf("it was published by %s, whom the rule does not name", r.By)
	default:
		return r, errors.New("it is in the registry, and nobody whom the rule names has published it")
	}
	return r, nil
}

// Told is all that anybody says of it: for who looks, not for who decides.
func (r Record) Told() Facts { return r.Labels.with(r.Facts) }

// shared tells whether what a publisher says may stand in the place of what the
// record's publisher has said: it is the same one, or every name by which that
// one was let is its own, too.
func (r Record) shared(by string, as []string) bool {
	return r.Origin != FromPublisher || r.By == by ||
		len(r.As) > 0 && !slices.ContainsFunc(r.As, func(n string) bool { return !slices.Contains(as, n) })
}

// Reference is what pins the version.
func (r Record) Reference() string { return r.Repository + ":" + r.Version + "@" + r.Digest }

// File is the name of a version's file. The folder can't be part of a
// repository's name.
func File(repository, version string) string {
	return path.Join(repository, "_tags", version+".yaml")
}

// The forms are compiled when a record is first checked, for most commands see none.
var (
	digestForm     = form(`^sha256:[0-9a-f]{64}$`)
	tagForm        = form(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	repositoryForm = form(`^[a-zA-Z0-9][a-zA-Z0-9.:_/-]{0,254}$`)
	commitForm     = form(`^[0-9a-f]{7,64}$`)
	keyForm        = form(`^[0-9a-f]{64}$`)
)

func form(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// Encode writes a record as its file has it.
func (r Record) Encode() []byte {
	for _, t := range []*time.Time{&r.Found, &r.Seen, &r.Created, &r.Labels.Created, &r.Committed, &r.Labels.Committed} {
		*t = t.UTC().Truncate(time.Second)
	}
	data, err := yaml.Marshal(r)
	if err != nil {
		panic("artifact: a record can't be written: " + err.Error())
	}
	return data
}

// Decode reads a record's file, strictly.
func Decode(file string, data []byte) (Record, error) {
	var r Record
	if err := yaml.UnmarshalStrict(data, &r); err != nil {
		return Record{}, fmt.Errorf("%s: %w", file, err)
	}
	switch err := r.check(); {
	case err != nil:
		return Record{}, fmt.Errorf("%s: %w", file, err)
	case File(r.Repository, r.Version) != file:
		return Record{}, fmt.Errorf("%s: it is the record of %s:%s", file, r.Repository, r.Version)
	}
	return r, nil
}

func (r Record) check() error {
	switch {
	case !repositoryForm().MatchString(r.Repository) || path.Clean(r.Repository) != r.Repository || strings.Contains(r.Repository, ".."):
		return fmt.Errorf("%q is not a repository", head(r.Repository))
	case Normal(r.Repository) != r.Repository:
		return fmt.Errorf("the repository %q is written %s", head(r.Repository), Normal(r.Repository))
	case !tagForm().MatchString(r.Version):
		return fmt.Errorf("%q is not a tag", head(r.Version))
	case !digestForm().MatchString(r.Digest):
		return fmt.Errorf("%q is not a digest: sha256: and 64 hexadecimal digits", head(r.Digest))
	case r.Origin != FromRegistry && r.Origin != FromPublisher:
		return fmt.Errorf("%q is no way in which a version comes to be known", head(string(r.Origin)))
	case r.Found.IsZero():
		return errors.New("it does not say when it came to be known")
	case r.Origin == FromRegistry && r.Seen.IsZero():
		return errors.New("it does not say when it was seen in the registry")
	case len(r.Moved) > mostMoved || slices.ContainsFunc(r.Moved, func(d string) bool { return !digestForm().MatchString(d) }):
		return errors.New("moved is not a list of digests")
	case len(r.Signed) > mostSigned || slices.ContainsFunc(r.Signed, func(k string) bool { return !keyForm().MatchString(k) }):
		return errors.New("signed is not a list of the fingerprints of keys")
	case len(r.As) > mostNames || slices.ContainsFunc(r.As, func(n string) bool { return n == "" || !isToken(n) }):
		return errors.New("as is not a list of names")
	}
	if err := r.Labels.Check(); err != nil {
		return fmt.Errorf("labels: %w", err)
	}
	return r.Facts.Check()
}

// Check says what of the facts can't be recorded.
func (f Facts) Check() error {
	result := func(r Result) bool { return r == "" || r == Passed || r == Failed }
	switch {
	case f.Commit != "" && !commitForm().MatchString(f.Commit):
		return fmt.Errorf("commit: %q is not a commit: 7 to 64 hexadecimal digits", head(f.Commit))
	case f.Branch != "" && !isToken(f.Branch):
		return fmt.Errorf("branch: %q is not a branch's name", head(f.Branch))
	case f.Source != "" && !isAddress(f.Source):
		return errors.New("source is not an http, https, git or ssh address without a password")
	case f.Build != "" && !isAddress(f.Build):
		return errors.New("build is not an http or https address without a password")
	case !f.Created.IsZero() && !isTime(f.Created):
		return errors.New("created is no time at which anything was built")
	case !f.Committed.IsZero() && !isTime(f.Committed):
		return errors.New("committed is no time at which anything was committed")
	case !result(f.Tests):
		return fmt.Errorf("tests: %q is not a result: write passed or failed", head(string(f.Tests)))
	case !result(f.Quality):
		return fmt.Errorf("quality: %q is not a result: write passed or failed", head(string(f.Quality)))
	}
	return nil
}

// Sound leaves out of the facts what can't be recorded, and says what that is.
func (f Facts) Sound() (Facts, []string) {
	var dropped []string
	keep := func(one Facts, drop func()) {
		if err := one.Check(); err != nil {
			dropped = append(dropped, err.Error())
			drop()
		}
	}
	keep(Facts{Commit: f.Commit}, func() { f.Commit = "" })
	keep(Facts{Branch: f.Branch}, func() { f.Branch = "" })
	keep(Facts{Source: f.Source}, func() { f.Source = "" })
	keep(Facts{Build: f.Build}, func() { f.Build = "" })
	keep(Facts{Tests: f.Tests}, func() { f.Tests = "" })
	keep(Facts{Quality: f.Quality}, func() { f.Quality = "" })
	keep(Facts{Created: f.Created}, func() { f.Created = time.Time{} })
	keep(Facts{Committed: f.Committed}, func() { f.Committed = time.Time{} })
	return f, dropped
}

// with takes over what other facts say.
func (f Facts) with(o Facts) Facts {
	take := func(into *string, from string) {
		if from != "" {
			*into = from
		}
	}
	take(&f.Commit, o.Commit)
	take(&f.Branch, o.Branch)
	take(&f.Source, o.Source)
	take(&f.Build, o.Build)
	take((*string)(&f.Tests), string(o.Tests))
	take((*string)(&f.Quality), string(o.Quality))
	if !o.Created.IsZero() {
		f.Created = o.Created.UTC().Truncate(time.Second)
	}
	if !o.Committed.IsZero() {
		f.Committed = o.Committed.UTC().Truncate(time.Second)
	}
	return f
}

// isTime tells whether a time can be one of a build: of Unix's years.
func isTime(t time.Time) bool { return t.Year() >= 1970 && t.Year() <= 9999 }

const maxText = 500

// isToken tells whether a text can stand as one word.
func isToken(s string) bool {
	return len(s) <= maxText && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || !unicode.IsPrint(r)
	})
}

// isAddress tells whether a text is an address that may be shown to anybody.
func isAddress(s string) bool {
	u, err := url.Parse(s)
	if err != nil || !isToken(s) || u.Host == "" {
		return false
	}
	switch u.Scheme {
	case "http", "https", "git", "ssh":
	default:
		return false
	}
	_, password := u.User.Password()
	return !password && (u.User == nil || u.Scheme == "ssh")
}

// head keeps a message readable whatever it is about.
func head(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
