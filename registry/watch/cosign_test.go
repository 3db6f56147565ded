package watch_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/pinion-cd/pinion/artifact/signature"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
)

// cosign is the real one, with a key pair of its own in a folder. It sees nothing
// of this machine's settings, and no other host than the registry.
type cosign struct {
	*testing.T
	binary, dir string
}

// The forms in which it puts signatures into a registry.
var (
	byTag      = []string{"--new-bundle-format=false"}
	byReferrer = []string{"--new-bundle-format=false", "--registry-referrers-mode=oci-1-1"}
	inBundle   = []string{"--new-bundle-format=true"}
)

func (c cosign) run(args ...string) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"HOME=" + c.dir, "COSIGN_PASSWORD=", "COSIGN_EXPERIMENTAL=1",
		"HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1"}
	if out, err := cmd.CombinedOutput(); err != nil {
		c.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// signs has it sign an image, without a transparency log.
func (c cosign) signs(image string, form []string) {
	c.Helper()
	c.run(slices.Concat([]string{"sign", "--yes", "--key", "cosign.key", "--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry"}, form, []string{image})...)
}

// attests has it sign that something else is true of an image.
func (c cosign) attests(image string, form []string) {
	c.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "scan.json"), []byte(`{"critical": 7}`), 0o600); err != nil {
		c.Fatal(err)
	}
	c.run(slices.Concat([]string{"attest", "--yes", "--key", "cosign.key", "--predicate", "scan.json", "--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry"}, form, []string{image})...)
}

// What the real cosign signs is taken, in each form in which it puts it into a
// registry; another key's is not, nor what was changed, nor what was moved from
// another image, nor that something else is true of it. See make cosign.
func TestCosign(t *testing.T) {
	binary := os.Getenv("PINION_COSIGN")
	if binary == "" {
		t.Skip("make cosign builds the real one and runs this")
	}
	t.Parallel()
	r := devtest.Registry(t, devtest.RegistryOptions{})
	release, stranger := cosign{t, binary, t.TempDir()}, cosign{t, binary, t.TempDir()}
	release.run("generate-key-pair")
	stranger.run("generate-key-pair")
	text, err := os.ReadFile(filepath.Join(release.dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := signature.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}

	var rules []desired.Tracked
	repository := func(name string) string { return r.Host + "/acme/" + name }
	// push puts an image into a repository of its own, which is watched.
	push := func(name string) (image, digest string) {
		t.Helper()
		digest = r.Push(t, "acme/"+name+":1.2.10", nil)
		rule := tracks(t, repository(name), "1.2.9", semantic)
		rule.Keys = []*desired.Key{{Name: "release", Key: key}}
		rule.Known = rule.Keys
		rules = append(rules, rule)
		return repository(name) + "@" + digest, digest
	}
	// moved has what is under a tag put under another one, changed or as it is.
	moved := func(repository, from, to string, change func(payload []byte) []byte) {
		t.Helper()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		source, err := name.ParseReference(repository + ":" + from)
		must(err)
		target, err := name.NewTag(repository + ":" + to)
		must(err)
		got, err := remote.Get(source)
		must(err)
		if change == nil {
			must(remote.Tag(target, got))
			return
		}
		image, err := got.Image()
		must(err)
		manifest, err := image.Manifest()
		must(err)
		layers, err := image.Layers()
		must(err)
		body, err := layers[0].Compressed()
		must(err)
		payload, err := io.ReadAll(body)
		must(err)
		image, err = mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(change(payload), signature.PayloadType), Annotations: manifest.Layers[0].Annotations})
		must(err)
		must(remote.Write(target, image))
	}

	taken := map[string]bool{}
	for name, form := range map[string][]string{"tag": byTag, "referrer": byReferrer, "bundle": inBundle} {
		image, _ := push(name)
		release.signs(image, form)
		taken[name] = true
		image, _ = push("strange-" + name)
		stranger.signs(image, form)
		image, _ = push("both-" + name)
		stranger.signs(image, form)
		release.signs(image, form)
		taken["both-"+name] = true
	}
	quiet := map[string]bool{"attested": true} // it is under a tag of which a signature is none
	for name, form := range map[string][]string{"attested": byTag, "attested-bundle": inBundle} {
		image, _ := push(name)
		release.attests(image, form)
	}
	image, digest := push("changed")
	release.signs(image, byTag)
	moved(repository("changed"), signature.Tag(digest), signature.Tag(digest), func(p []byte) []byte {
		return []byte(strings.Replace(string(p), `"optional":null`, `"optional":{"passed":true}`, 1))
	})
	_, digest = push("moved")
	source := r.Push(t, "acme/moved:source", nil)
	release.signs(repository("moved")+"@"+source, byTag)
	moved(repository("moved"), signature.Tag(source), signature.Tag(digest), nil)
	_, digest = push("moved-bundle")
	source = r.Push(t, "acme/moved-bundle:source", nil)
	release.signs(repository("moved-bundle")+"@"+source, inBundle)
	// What refers to an image is listed there by a registry that has no list.
	plain := func(digest string) string { return strings.Replace(digest, ":", "-", 1) }
	moved(repository("moved-bundle"), plain(source), plain(digest), nil)

	k := watches(t, time.Hour, rules...)
	k.until(func() string {
		for _, rule := range rules {
			name := rule.Pin.Image.Repository
			if at, _ := k.watcher.Reading(name); at.Success.IsZero() {
				return fmt.Sprintf("%s was not looked at: %+v", name, at)
			}
		}
		return ""
	})
	for _, rule := range rules {
		name := strings.TrimPrefix(rule.Pin.Image.Repository, r.Host+"/acme/")
		x, known := k.shelf.Lookup(rule.Pin.Image.Repository, "1.2.10")
		at, _ := k.watcher.Reading(rule.Pin.Image.Repository)
		want := []string(nil)
		if taken[name] {
			want = []string{key.Fingerprint}
		}
		if !known || !slices.Equal(x.Signed, want) {
			t.Errorf("%s is signed by %v, want %v; told is %q", name, x.Signed, want, at.Problem)
		}
		if told := strings.Contains(at.Problem, "no key of keys/ has signed"); told == (taken[name] || quiet[name]) {
			t.Errorf("of %s is told %q", name, at.Problem)
		}
	}
}
