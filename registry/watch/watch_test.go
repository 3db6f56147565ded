package watch_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/artifact/signature"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/registry"
	"github.com/pinion-cd/pinion/registry/watch"
)

// keeper records what a watcher finds, as the daemon's clerk does.
type keeper struct {
	testing.TB
	watcher *watch.Watcher
	tracked []desired.Tracked

	mu     sync.Mutex // guards what follows
	shelf  *artifact.Shelf
	events []string
	told   []string
	down   bool
	news   chan struct{} // capacity 1
}

// watches starts a watcher of repositories, each with a rule and the tag that is
// pinned.
func watches(t testing.TB, poll time.Duration, tracked ...desired.Tracked) *keeper {
	t.Helper()
	return watchesAs(t, registry.Credentials{}, poll, tracked...)
}

// watchesAs starts one that has credentials.
func watchesAs(t testing.TB, as registry.Credentials, poll time.Duration, tracked ...desired.Tracked) *keeper {
	t.Helper()
	k := &keeper{TB: t, tracked: tracked, shelf: &artifact.Shelf{}, news: make(chan struct{}, 1)}
	client := registry.New(registry.Options{Allow: outbound.Any(), Rate: 1000, Credentials: as})
	k.watcher = watch.New(watch.Options{Client: client, Poll: poll, Record: k.record, Tell: k.tell})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { k.watcher.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
		client.Close()
	})
	k.watcher.Know(tracked, k.shelf)
	return k
}

func tracks(t testing.TB, repository, tag string, r artifact.Rule) desired.Tracked {
	t.Helper()
	r, err := artifact.MakeRule(r)
	if err != nil {
		t.Fatal(err)
	}
	image, err := desired.ParseImage(repository + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	return desired.Tracked{Environment: "dev", Service: "web", Pin: desired.Pin{Artifact: "web", Image: image}, Track: &desired.Track{Rule: r, Watch: true}}
}

func (k *keeper) record(_ context.Context, found []artifact.Sighting) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down {
		return errors.New("the remote is down")
	}
	for _, x := range found {
		t, err := k.shelf.Take(x)
		if err != nil {
			return err
		}
		k.shelf = k.shelf.With(fmt.Sprint(len(k.events)+1), t.Record)
		k.events = append(k.events, fmt.Sprintf("%s %s", t.Event, t.Record.Version))
	}
	k.watcher.Know(k.tracked, k.shelf)
	k.poke()
	return nil
}

func (k *keeper) tell(text string, bad bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told = append(k.told, text)
	k.poke()
}

func (k *keeper) poke() {
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// until waits until there is no complaint.
func (k *keeper) until(complaint func() string) {
	k.Helper()
	late := time.After(30 * time.Second)
	for {
		k.mu.Lock()
		text := complaint()
		k.mu.Unlock()
		if text == "" {
			return
		}
		select {
		case <-k.news:
		case <-late:
			k.Fatal(text)
		}
	}
}

// records waits for what is recorded, all of it.
func (k *keeper) records(events ...string) {
	k.Helper()
	k.until(func() string {
		if slices.Equal(k.events, events) {
			return ""
		}
		return fmt.Sprintf("recorded is %q, want %q; told was %q", k.events, events, k.told)
	})
}

// tells waits for what is told.
func (k *keeper) tells(want string) {
	k.Helper()
	k.until(func() string {
		if slices.ContainsFunc(k.told, func(s string) bool { return strings.Contains(s, want) }) {
			return ""
		}
		return fmt.Sprintf("told is %q, want %q", k.told, want)
	})
}

// settled waits until the repository was looked at once more, from beginning to
// end.
func (k *keeper) settled(repository string) {
	k.Helper()
	host, _, _ := strings.Cut(repository, "/")
	for range 2 { // a look may have begun before
		before := k.watcher.Hosts()[host].Success
		k.watcher.Notify([]string{repository})
		tick := time.NewTicker(5 * time.Millisecond)
		late := time.After(30 * time.Second)
		for !k.watcher.Hosts()[host].Success.After(before) {
			select {
			case <-tick.C:
			case <-late:
				k.Fatalf("%s was not looked at", repository)
			}
		}
		tick.Stop()
	}
}

var (
	semantic = artifact.Rule{Range: ">=1.0.0 <2"}
	dated    = artifact.Rule{Pattern: "{date}-{branch}-{version}", Branch: "master"}
	ofMain   = artifact.Rule{Range: "1.x", Branch: "main"}
)

func TestWatch(t *testing.T) {
	t.Parallel()
	r := devtest.Registry(t, devtest.RegistryOptions{})
	web, api, lib := r.Host+"/acme/web", r.Host+"/acme/api", r.Host+"/acme/lib"
	for _, tag := range []string{"1.2.9", "1.2.3", "1.2.10", "1.3.0-rc.1", "2.0.0", "latest"} {
		r.Push(t, "acme/web:"+tag, map[string]string{"dev.pinion.branch": "main", "org.opencontainers.image.revision": "4f1c2aa90b7e"})
	}
	for _, tag := range []string{"20170717.111749-master-1.2.9", "20170717.111749-master-1.2.10", "20170718.111749-next-1.2.11", "20170717.111749-master-1.2.3"} {
		r.Push(t, "acme/api:"+tag, nil)
	}
	// Of an index, what its own annotations say goes before the image's labels.
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: devtest.Image(t, map[string]string{"dev.pinion.branch": "next", "dev.pinion.tests": "passed"}),
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	r.Put(t, "acme/lib:1.2.0", mutate.Annotations(index, map[string]string{"dev.pinion.branch": "main"}).(v1.ImageIndex))
	for _, tag := range []string{"1.3.0", "1.4.0"} {
		r.Push(t, "acme/lib:"+tag, map[string]string{"dev.pinion.branch": "next"})
	}

	k := watches(t, time.Hour, tracks(t, web, "1.2.9", semantic))
	k.records("found 1.2.10")
	x, _ := k.shelf.Lookup(web, "1.2.10")
	if x.Labels.Commit != "4f1c2aa90b7e" || x.Labels.Branch != "main" || x.Seen.IsZero() || x.By != "" || x.Facts != (artifact.Facts{}) {
		t.Errorf("what is known of it is %+v", x)
	}

	// Other rules come, and with them what is the newest by those.
	k.mu.Lock()
	k.tracked = append(k.tracked, tracks(t, api, "20170717.111749-master-1.2.9", dated), tracks(t, lib, "1.0.0", ofMain))
	k.watcher.Know(k.tracked, k.shelf)
	k.mu.Unlock()
	k.until(func() string {
		got := slices.Sorted(slices.Values(k.events))
		if want := []string{"found 1.2.0", "found 1.2.10", "found 20170717.111749-master-1.2.10"}; !slices.Equal(got, want) {
			return fmt.Sprintf("recorded is %q, want %q", got, want)
		}
		return ""
	})
	if x, _ := k.shelf.Lookup(lib, "1.2.0"); x.Labels.Branch != "main" || x.Labels.Tests != artifact.Passed {
		t.Errorf("of the index is known %+v", x)
	}

	// A tag that is moved, and one that comes.
	moved := r.Push(t, "acme/web:1.2.10", nil)
	r.Push(t, "acme/web:1.2.11", nil)
	k.watcher.Notify([]string{"acme/other", "acme/web"})
	k.until(func() string {
		if !slices.Contains(k.events, "moved 1.2.10") || !slices.Contains(k.events, "found 1.2.11") {
			return fmt.Sprintf("recorded is %q", k.events)
		}
		return ""
	})
	if x, _ := k.shelf.Lookup(web, "1.2.10"); !slices.Equal(x.Moved, []string{moved}) {
		t.Errorf("it has moved to %v, not to %s", x.Moved, moved)
	}
	k.settled(web)
	if n := len(k.events); n != 5 {
		t.Errorf("looked at again, it is %q", k.events)
	}

	// What somebody has published with another digest is bound to that.
	published, err := k.shelf.Take(artifact.Sighting{Repository: web, Version: "1.2.12", Digest: "sha256:" + strings.Repeat("a", 64), Origin: artifact.FromPublisher, By: "ci", Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	k.shelf = k.shelf.With("published", published.Record)
	k.watcher.Know(k.tracked, k.shelf)
	k.mu.Unlock()
	r.Push(t, "acme/web:1.2.12", nil)
	k.watcher.Notify([]string{web})
	k.until(func() string {
		if !slices.Contains(k.events, "moved 1.2.12") {
			return fmt.Sprintf("recorded is %q", k.events)
		}
		return ""
	})
}

// sign puts a signature of an image into a registry, under its tag.
func sign(t *testing.T, r *devtest.RegistryServer, path, digest string, key ed25519.PrivateKey) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"any"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	image, err := mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(payload, signature.PayloadType),
		Annotations: map[string]string{signature.Annotation: base64.StdEncoding.EncodeToString(ed25519.Sign(key, payload))}})
	if err != nil {
		t.Fatal(err)
	}
	r.Put(t, path+":"+signature.Tag(digest), image)
}

// signs has a rule want signatures, by a new key.
func signs(t *testing.T, rule *desired.Tracked) ed25519.PrivateKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signature.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	known := &desired.Key{Name: "release", Key: key}
	rule.Keys, rule.Known = []*desired.Key{known}, []*desired.Key{known}
	return private
}

// A registry that wants tokens is watched with the credentials of a docker
// config: those of a user, and an identity token.
func TestRegistryThatWantsTokens(t *testing.T) {
	t.Parallel()
	r := devtest.Registry(t, devtest.RegistryOptions{User: "ci", Password: "push-word", Readers: []devtest.Reader{
		{Name: "pinion", Password: "read-word", Folder: "acme"}, {Name: "robot", Identity: "identity-word", Folder: "acme"}}})
	first := r.Push(t, "acme/web:1.2.10", nil)
	r.Push(t, "secret/web:1.2.10", nil)
	file := filepath.Join(t.TempDir(), "config.json")
	login := func(auth string) registry.Credentials {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, `{"auths": {%q: {%s}}}`, r.Host, auth), 0o600); err != nil {
			t.Fatal(err)
		}
		return registry.Credentials{File: file}
	}
	password := func(word string) string {
		return fmt.Sprintf(`"auth": %q`, base64.StdEncoding.EncodeToString([]byte("pinion:"+word)))
	}
	wanted := tracks(t, r.Host+"/acme/web", "1.2.9", semantic)
	key := signs(t, &wanted)
	pushed := r.Tokens()
	k := watchesAs(t, login(password("read-word")), time.Hour, wanted, tracks(t, r.Host+"/secret/web", "1.2.9", semantic))
	k.until(func() string {
		if x, ok := k.shelf.Lookup(r.Host+"/acme/web", "1.2.10"); !ok || x.Digest != first || len(x.Signed) > 0 {
			return fmt.Sprintf("known is %+v; told was %q", x, k.told)
		}
		return ""
	})
	sign(t, r, "acme/web", first, key)
	moved := r.Push(t, "acme/web:1.2.10", nil)
	k.settled(r.Host + "/acme/web")
	k.records("found 1.2.10", "moved 1.2.10")
	second := r.Push(t, "acme/web:1.2.11", nil)
	sign(t, r, "acme/web", second, key)
	k.watcher.Notify([]string{"acme/web"})
	k.records("found 1.2.10", "moved 1.2.10", "found 1.2.11", "signed 1.2.11")
	if x, _ := k.shelf.Lookup(r.Host+"/acme/web", "1.2.10"); !slices.Equal(x.Moved, []string{moved}) {
		t.Errorf("the tag was moved to %s, and known is %+v", moved, x)
	}
	if r.Tokens() == pushed {
		t.Error("nobody has asked for a token")
	}
	// What the token is not for is told, and held against nothing else.
	k.tells("list the tags of " + r.Host + "/secret/web: the registry answers 401 Unauthorized")
	if at, ok := k.watcher.Reading(r.Host + "/secret/web"); !ok || at.Failing.IsZero() || !strings.Contains(at.Problem, "401") {
		t.Errorf("of what can't be read is known %+v", at)
	}
	if at, ok := k.watcher.Reading(r.Host + "/acme/web"); !ok || !at.Failing.IsZero() || !strings.Contains(at.Problem, "1.2.10 is bound to") {
		t.Errorf("of what can be read is known %+v", at)
	}

	k = watchesAs(t, login(`"identitytoken": "identity-word"`), time.Hour, tracks(t, r.Host+"/acme/web", "1.2.10", semantic))
	k.records("found 1.2.11")
	k = watchesAs(t, login(password("other-word")), time.Hour, tracks(t, r.Host+"/acme/web", "1.2.10", semantic))
	k.tells("list the tags of " + r.Host + "/acme/web: the registry answers 401 Unauthorized: incorrect username or password; see registry.credentialsFile")
}

// A tag of another branch is not bound to anything: pushed anew, from the branch
// that is wanted, it is found.
func TestTagOfAnotherBranchThatIsPushedAnew(t *testing.T) {
	t.Parallel()
	r := devtest.Registry(t, devtest.RegistryOptions{})
	branch := func(name string) map[string]string { return map[string]string{"dev.pinion.branch": name} }
	r.Push(t, "acme/lib:1.1.0", branch("main"))
	for _, tag := range []string{"1.2.0", "1.3.0"} {
		r.Push(t, "acme/lib:"+tag, branch("next"))
	}
	lib := r.Host + "/acme/lib"
	k := watches(t, time.Hour, tracks(t, lib, "1.0.0", ofMain))
	k.records("found 1.1.0")
	digest := r.Push(t, "acme/lib:1.2.0", branch("main"))
	r.Push(t, "acme/lib:1.3.0", branch("next"))
	k.settled(lib)
	k.records("found 1.1.0", "found 1.2.0")
	if x, _ := k.shelf.Lookup(lib, "1.2.0"); x.Digest != digest || len(x.Moved) > 0 {
		t.Errorf("known of it is %+v", x)
	}
}

// A version that is signed long after others came is found, although none of
// those is signed.
func TestSignedLate(t *testing.T) {
	t.Parallel()
	r := devtest.Registry(t, devtest.RegistryOptions{})
	digests, want := map[string]string{}, []string{}
	for i := 13; i > 0; i-- {
		version := fmt.Sprintf("1.%d.0", i)
		digests[version] = r.Push(t, "acme/web:"+version, map[string]string{"version": version})
		want = append(want, "found "+version)
	}
	web := r.Host + "/acme/web"
	rule := tracks(t, web, "1.0.0", semantic)
	private := signs(t, &rule)
	k := watches(t, time.Hour, rule)
	k.records(want...)
	sign(t, r, "acme/web", digests["1.2.0"], private)
	k.settled(web)
	k.records(append(want, "signed 1.2.0")...)
}

// pages is a registry that can be made to lie and to fail.
type pages struct {
	*httptest.Server
	mu     sync.Mutex // guards what follows
	tags   []string
	lies   map[string]bool // tags whose digest is not that of their content
	fails  func(w http.ResponseWriter, r *http.Request) bool
	asked  map[string]int // by what is asked for
	bodies map[string]string
}

func newPages(t testing.TB, tags ...string) *pages {
	p := &pages{tags: tags, lies: map[string]bool{}, asked: map[string]int{}, bodies: map[string]string{}}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *pages) repository() string { return strings.TrimPrefix(p.URL, "http://") + "/acme/web" }

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	p.asked[what]++
	if p.fails != nil && p.fails(w, r) {
		return
	}
	switch {
	case what == "": // the version of the API
	case what == "list":
		fmt.Fprintf(w, `{"tags":["%s"]}`, strings.Join(p.tags, `","`))
	default:
		body, ok := p.bodies[what]
		if !ok {
			body = fmt.Sprintf(`{"schemaVersion":2,"annotations":{"tag":%q}}`, what)
		}
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(body)))
		if !p.lies[what] {
			p.bodies[digest] = body
		} else {
			digest = "sha256:" + strings.Repeat("b", 64)
			p.bodies[digest] = body
		}
		if !ok {
			w.Header().Set("Docker-Content-Digest", digest)
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Write([]byte(body))
	}
}

func (p *pages) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func TestWatchedRegistriesThatFail(t *testing.T) {
	t.Parallel()
	p := newPages(t, "1.0.0", "1.1.0", "1.2.0")
	p.lies["1.2.0"] = true
	k := watches(t, 20*time.Millisecond, tracks(t, p.repository(), "1.0.0", semantic))
	// The newest is not what it says that it is: it is told, and the next one is
	// there all the same.
	k.tells("does not match requested digest")
	k.records("found 1.1.0")

	// A known tag leads to something that is not there: nothing is for ever of that.
	p.set(func() { p.lies["1.1.0"] = true })
	k.tells("read " + p.repository() + "@sha256:bbbb")
	p.set(func() { p.lies, p.tags = map[string]bool{}, []string{"1.0.0", "1.1.0"} })
	k.tells(p.repository() + " can be read again")
	k.settled(p.repository())
	k.records("found 1.1.0")

	// Half a list is none.
	p.set(func() {
		p.fails = func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Query().Get("last") != "":
				w.WriteHeader(http.StatusNotFound)
			case strings.HasSuffix(r.URL.Path, "/list"):
				w.Header().Set("Link", `</v2/acme/web/tags/list?last=a>; rel="next"`)
				fmt.Fprint(w, `{"tags":["1.5.0"]}`)
			default:
				return false
			}
			return true
		}
	})
	k.tells("404 Not Found")
	k.records("found 1.1.0")

	// One that is down is told once, and asked ever more rarely.
	p.set(func() {
		p.fails = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }
	})
	k.tells("502 Bad Gateway")
	host, _, _ := strings.Cut(p.repository(), "/")
	if h := k.watcher.Hosts()[host]; h.Failures == 0 || time.Until(h.Until) <= 0 {
		t.Errorf("it is %+v", h)
	}
}

// Tags that can't be read are in nobody's way, however many there are, and are
// read when somebody says that there is something new.
func TestManyTagsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	tags := []string{"1.0.0", "1.1.0"}
	p := newPages(t)
	for i := range 45 {
		tag := fmt.Sprintf("1.2.%d", i)
		tags = append(tags, tag)
		p.lies[tag] = true
	}
	p.tags = tags
	k := watches(t, time.Hour, tracks(t, p.repository(), "1.0.0", semantic))
	k.records("found 1.1.0")
	k.tells("and 40 more tags")
	p.set(func() { p.lies = map[string]bool{} })
	k.watcher.Notify([]string{p.repository()})
	k.records("found 1.1.0", "found 1.2.44")
	k.tells(p.repository() + " can be read again")
}

// A registry may tell of a push before it shows it.
func TestNewsThatAreEarly(t *testing.T) {
	t.Parallel()
	p := newPages(t, "1.0.0")
	k := watches(t, time.Hour, tracks(t, p.repository(), "1.0.0", semantic))
	k.settled(p.repository())
	// First its name, and then itself.
	p.set(func() {
		p.tags = append(p.tags, "1.1.0")
		p.fails = func(w http.ResponseWriter, r *http.Request) bool {
			missing := strings.HasSuffix(r.URL.Path, "/manifests/1.1.0")
			if missing {
				w.WriteHeader(http.StatusNotFound)
			}
			return missing
		}
	})
	k.watcher.Notify([]string{p.repository()})
	k.tells("1.1.0")
	p.set(func() { p.fails = nil })
	k.records("found 1.1.0")
}

// What can't be recorded is found again.
func TestWhatIsFoundIsRecordedInTheEnd(t *testing.T) {
	t.Parallel()
	p := newPages(t, "1.0.0", "1.1.0")
	k := watches(t, 20*time.Millisecond)
	k.down = true
	k.tracked = []desired.Tracked{tracks(t, p.repository(), "1.0.0", semantic)}
	k.watcher.Know(k.tracked, k.shelf)
	k.tells("record what was found in " + p.repository() + ": the remote is down")
	k.mu.Lock()
	k.down = false
	k.mu.Unlock()
	k.records("found 1.1.0")
	k.tells(p.repository() + " can be read again")
}

// Who limits us is left alone, and a version of which nothing can come is gone
// into once.
func TestWatchAsksLittle(t *testing.T) {
	t.Parallel()
	tags := []string{"1.0.0"}
	for i := range 30 {
		tags = append(tags, fmt.Sprintf("1.%d.0", i+1))
	}
	p := newPages(t, tags...)
	k := watches(t, 20*time.Millisecond, tracks(t, p.repository(), "1.0.0", ofMain)) // nothing says that it is of main
	k.until(func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.asked["1.1.0"] == 0 || p.asked["list"] < 4 {
			k.poke()
			return fmt.Sprintf("asked was %v", p.asked)
		}
		return ""
	})
	p.set(func() {
		for tag, n := range p.asked {
			if strings.HasPrefix(tag, "sha256:") && n > 1 { // that the tag still leads there is asked now and then
				t.Errorf("%s was gone into %d times", tag, n)
			}
		}
		p.fails = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
	})
	k.tells("asked too often, and wants to be left alone until")
	before := map[string]int{}
	p.set(func() { maps.Copy(before, p.asked) })
	k.watcher.Notify([]string{p.repository()})
	host, _, _ := strings.Cut(p.repository(), "/")
	if left := time.Until(k.watcher.Hosts()[host].Until); left < 5*time.Minute || left > 10*time.Minute {
		t.Errorf("it is left alone for %s", left)
	}
	p.set(func() {
		if !maps.Equal(before, p.asked) {
			t.Errorf("asked was %v, and then %v", before, p.asked)
		}
	})
}
