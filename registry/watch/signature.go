package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/artifact/signature"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/registry"
)

const (
	// How many of the newest versions of a rule each look asks for signatures, how
	// many of those before them, in turn, and how many signatures of one version are
	// read.
	mostUnsigned   = 5
	mostFurther    = 5
	mostSignatures = 30

	// emptyType is what a configuration is that says nothing.
	emptyType = "application/vnd.oci.empty.v1+json"
)

// unsigned returns the known versions of which a rule has to know whether they
// are signed: those that it could choose otherwise, down to the first that is
// signed, the newest and the one that is pinned, which each look asks for, and
// those further back.
func unsigned(t desired.Tracked, shelf *artifact.Shelf) (near, far []artifact.Record) {
	if len(t.Keys) == 0 {
		return nil, nil
	}
	image := t.Pin.Image
	tag := shelf.Tag(image.Repository, image.Version, image.Digest)
	present, err := t.Rule.Read(tag)
	if err != nil {
		return nil, nil
	}
	lacks := func(r artifact.Record) bool {
		return !slices.ContainsFunc(t.Keys, func(k *desired.Key) bool { return slices.Contains(r.Signed, k.Fingerprint) })
	}
	type candidate struct {
		record  artifact.Record
		version artifact.Version
	}
	var newer []candidate
	for _, r := range shelf.Versions(image.Repository) {
		known, err := r.For(t.Sources())
		if v, bad := t.Rule.Read(r.Version); err == nil && bad == nil && v.Newer(present) && t.Rule.Refuses(known) == nil {
			newer = append(newer, candidate{r, v})
		}
	}
	slices.SortFunc(newer, func(a, b candidate) int { return b.version.Compare(a.version) })
	for _, x := range newer {
		switch {
		case !lacks(x.record):
		case len(near) < mostUnsigned:
			near = append(near, x.record)
			continue
		default:
			far = append(far, x.record)
			continue
		}
		break
	}
	if r, ok := shelf.Lookup(image.Repository, tag); ok && lacks(r) && (image.Digest == "" || image.Digest == r.Digest) {
		near = append(near, r)
	}
	return near, far
}

// signatures looks for those of a rule that are not known yet. Further back it
// asks for some, those first that were not asked for the longest: so each has its
// turn, however many came after it.
func (l *look) signatures(ctx context.Context, t desired.Tracked) error {
	near, _ := unsigned(t, l.shelf)
	for _, r := range near {
		if err := l.sign(ctx, t, r); err != nil {
			return err
		}
	}
	near, far := unsigned(t, l.shelf)
	for _, r := range slices.Concat(near, far) {
		l.lack[r.Digest] = l.looked[r.Digest]
	}
	slices.SortStableFunc(far, func(a, b artifact.Record) int { return l.looked[a.Digest].Compare(l.looked[b.Digest]) })
	told := l.faults // what has its turn seldom would come and go among what is told
	defer func() { l.faults = told }()
	for _, r := range far[:min(len(far), mostFurther)] {
		if err := l.sign(ctx, t, r); err != nil {
			return err
		}
		l.lack[r.Digest] = l.looked[r.Digest]
	}
	return nil
}

// sign looks who has signed a version, once in a look. An error says that the
// registry fails.
func (l *look) sign(ctx context.Context, t desired.Tracked, r artifact.Record) error {
	if l.asked[r.Digest] {
		return nil
	}
	l.asked[r.Digest], l.looked[r.Digest] = true, time.Now()
	found, err := l.signers(ctx, r, t.Known)
	if err == nil && len(found) > 0 {
		err = l.sight(artifact.Sighting{Version: r.Version, Digest: r.Digest, Origin: artifact.FromSignature, Signed: found})
	}
	if e, ok := errors.AsType[*registry.Error](err); ctx.Err() != nil || ok && e.Host {
		return err
	}
	if err != nil {
		l.faults = append(l.faults, err)
	}
	return nil
}

// signers returns the fingerprints of the keys that have signed a version: under
// the tag that cosign makes of its digest, and by what refers to it.
func (l *look) signers(ctx context.Context, r artifact.Record, keys []*desired.Key) ([]string, error) {
	var by []signature.Key
	for _, k := range keys {
		by = append(by, k.Key)
	}
	s := signed{look: l, record: r, keys: by}
	if err := s.manifest(ctx, signature.Tag(r.Digest)); err != nil {
		return nil, err
	}
	others, err := l.options.Client.Referrers(ctx, l.repository, r.Digest)
	if err != nil && !registry.NotFound(err) {
		return nil, err
	}
	unclear := 0
	for _, d := range others {
		switch {
		case d.ArtifactType == signature.OldType, strings.HasPrefix(d.ArtifactType, signature.BundleType):
		case d.ArtifactType != "" && d.ArtifactType != emptyType:
			continue
		default: // as cosign itself lists a bundle where the registry does not
			if unclear++; unclear > mostSignatures {
				continue
			}
		}
		if err := s.manifest(ctx, d.Digest); err != nil {
			return nil, err
		}
	}
	if unclear > mostSignatures {
		s.wrong = append(s.wrong, fmt.Errorf("%d refer to %s:%s of which it is not said what they are, and %d are read; remove some", unclear, l.repository, r.Version, mostSignatures))
	}
	if len(s.found) == 0 && len(s.wrong) > 0 {
		l.faults = append(l.faults, fmt.Errorf("no key of keys/ has signed %s:%s, which has %d signatures: %w", l.repository, r.Version, len(s.wrong), s.wrong[0]))
	}
	return s.found, nil
}

// signed gathers who has signed a version.
type signed struct {
	look   *look
	record artifact.Record
	keys   []signature.Key
	read   int
	found  []string
	wrong  []error // of signatures that are none
}

// unread notes that a signature can't be read: it is none, and the others count
// all the same, for whoever may push to the repository can add what can't be read.
// The error says that it is the registry that fails.
func (s *signed) unread(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*registry.Error](err); ctx.Err() != nil || ok && e.Host {
		return err
	}
	if !registry.NotFound(err) {
		s.wrong = append(s.wrong, err)
	}
	return nil
}

// manifest takes in the signatures that a manifest has as its layers.
func (s *signed) manifest(ctx context.Context, reference string) error {
	m, err := s.look.options.Client.Manifest(ctx, s.look.repository, reference)
	if err != nil {
		return s.unread(ctx, err)
	}
	var image struct {
		Layers []struct {
			MediaType   string            `json:"mediaType"`
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(m.Data, &image); err != nil {
		s.wrong = append(s.wrong, errors.New("the manifest of a signature can't be read"))
		return nil
	}
	for _, layer := range image.Layers {
		simple := layer.MediaType == signature.PayloadType
		if !simple && !strings.HasPrefix(layer.MediaType, signature.BundleType) {
			continue
		}
		if s.read++; s.read > mostSignatures {
			s.wrong = append(s.wrong, fmt.Errorf("%s:%s has more than %d signatures; remove some", s.look.repository, s.record.Version, mostSignatures))
			return nil
		}
		data, err := s.look.options.Client.Blob(ctx, s.look.repository, layer.Digest, signature.MaxSize)
		if err != nil {
			if err := s.unread(ctx, err); err != nil {
				return err
			}
			continue
		}
		var by []string
		if simple {
			by, err = signature.Payload(data, layer.Annotations[signature.Annotation], s.record.Digest, s.keys)
		} else {
			by, err = signature.Bundle(data, s.record.Digest, s.keys)
		}
		if err != nil {
			s.wrong = append(s.wrong, err)
		}
		s.found = append(s.found, by...)
	}
	return nil
}
