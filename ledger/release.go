package ledger

import (
	"cmp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/pinion-cd/pinion/desired"
)

// DeploymentID names the deployment of a service that a commit on main leads
// to: "web-4f1c2aa90b7e". It is unique within an environment.
func DeploymentID(service desired.ServiceName, commit string) string {
	return string(service) + "-" + short(commit)
}

// short abbreviates a commit to twelve digits.
func short(commit string) string { return commit[:min(len(commit), 12)] }

// ReleaseOf returns the release that pins and the commit of the manifests make.
func ReleaseOf(pins []desired.Pin, source string) Release {
	r := Release{Source: source}
	for _, p := range pins {
		r.Pins = append(r.Pins, Pin{p.Artifact, p.Image.Reference})
	}
	slices.SortFunc(r.Pins, func(a, b Pin) int { return cmp.Compare(a.Artifact, b.Artifact) })
	return r
}

// Equal tells whether two releases have the same pins and the same source.
func (r Release) Equal(o Release) bool { return r.Source == o.Source && r.SamePins(o) }

// SamePins tells whether two releases have the same pins.
func (r Release) SamePins(o Release) bool { return slices.Equal(r.Pins, o.Pins) }

// Version returns what the pins say, as one reads it in a sentence: the
// version of the only artifact, or each artifact with its version.
func (r Release) Version() string {
	if len(r.Pins) == 1 {
		return version(r.Pins[0].Image)
	}
	var parts []string
	for _, p := range r.Pins {
		parts = append(parts, string(p.Artifact)+" "+version(p.Image))
	}
	return strings.Join(parts, ", ")
}

// version returns the tag of a reference, else the beginning of its digest.
func version(reference string) string {
	tag, digest := split(reference)
	if tag != "" {
		return tag
	}
	return digest[:min(len(digest), len("sha256:")+12)]
}

func split(reference string) (tag, digest string) {
	name, digest, _ := strings.Cut(reference, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		tag = name[i+1:]
	}
	return tag, digest
}

// Newer tells whether release a has newer versions than b: by semantic
// versioning, no artifact's is lower and one's is higher. Releases are
// comparable if they have the same artifacts and each version is a semantic
// one.
func Newer(a, b Release) (newer, comparable bool) {
	order, ok := compare(a, b)
	return ok && order.higher && !order.lower, ok
}

type order struct{ higher, lower bool }

func compare(a, b Release) (o order, ok bool) {
	if len(a.Pins) != len(b.Pins) || len(a.Pins) == 0 {
		return o, false
	}
	for i, p := range a.Pins {
		q := b.Pins[i]
		if p.Artifact != q.Artifact {
			return order{}, false
		}
		x, y := semantic(p.Image), semantic(q.Image)
		if x == nil || y == nil {
			return order{}, false
		}
		c := x.Compare(y)
		o.higher, o.lower = o.higher || c > 0, o.lower || c < 0
	}
	return o, true
}

// semantic returns a reference's tag as a semantic version, "v1.2" included,
// or nil.
func semantic(reference string) *semver.Version {
	tag, _ := split(reference)
	v, err := semver.NewVersion(tag)
	if err != nil {
		return nil
	}
	return v
}
