package desired

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// hinted is an error that knows how it is mended.
type hinted struct{ message, hint string }

func (e *hinted) Error() string {
	if e.hint == "" {
		return e.message
	}
	return e.message + "; " + e.hint
}

func splitHint(err error) (message, hint string) {
	var h *hinted
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &h):
		return h.message, h.hint
	}
	return err.Error(), ""
}

// ParseImage takes a reference to a container image apart and keeps it as it
// is written: no default registry, folder or tag is added. A reference without
// a tag and without a digest is an error, for it pins nothing.
//
// The grammar is that of github.com/google/go-containerregistry/pkg/name, and
// for the elements of a repository, where that is laxer, that of the OCI
// Distribution Specification.
func ParseImage(s string) (Image, error) {
	img := Image{Reference: s, Repository: s}
	if s == "" {
		return Image{}, &hinted{"the image reference is empty", "write REPOSITORY:VERSION"}
	}
	if strings.TrimSpace(s) != s {
		return Image{}, &hinted{fmt.Sprintf("%q has spaces around it", abridge(s)), "remove them"}
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		return Image{}, &hinted{fmt.Sprintf("%q is an address, not an image reference", abridge(s)), fmt.Sprintf("remove %s://: write %s", abridge(scheme), abridge(rest))}
	}
	if i := strings.IndexByte(s, '@'); i >= 0 {
		img.Repository, img.Digest = s[:i], s[i+1:]
	}
	if i := strings.LastIndexByte(img.Repository, ':'); i > strings.LastIndexByte(img.Repository, '/') {
		img.Repository, img.Version = img.Repository[:i], img.Repository[i+1:]
		if img.Version == "" {
			return Image{}, &hinted{fmt.Sprintf("%q has a colon and no version after it", abridge(s)), "pin an exact version: REPOSITORY:VERSION"}
		}
	}
	if !validRepository(img.Repository) {
		hint := "a repository is lower-case letters, digits, and . _ - /"
		if low := strings.ToLower(img.Repository); low != img.Repository {
			if validRepository(low) {
				hint = fmt.Sprintf("did you mean %q? %s", strings.ToLower(img.Repository)+s[len(img.Repository):], hint)
			}
		}
		return Image{}, &hinted{fmt.Sprintf("%q: the repository %q is not valid", abridge(s), abridge(img.Repository)), hint}
	}
	if img.Version == "" && img.Digest == "" && !strings.Contains(s, "@") {
		return Image{}, &hinted{fmt.Sprintf("%q has neither a tag nor a digest", abridge(s)), fmt.Sprintf("pin an exact version: %s:VERSION", abridge(s))}
	}
	if img.Version != "" {
		if _, err := name.NewTag(img.Repository + ":" + img.Version); err != nil || strings.HasPrefix(img.Version, "-") || strings.HasPrefix(img.Version, ".") {
			return Image{}, &hinted{fmt.Sprintf("%q: the tag %q is not valid", abridge(s), abridge(img.Version)), "a tag is letters, digits, and . _ -, begins with a letter, a digit or _, and has at most 128 characters"}
		}
	}
	if strings.Contains(s, "@") {
		if _, err := name.NewDigest(img.Repository + "@" + img.Digest); err != nil {
			hint := "a digest is sha256: and 64 hexadecimal digits"
			if hex, ok := strings.CutPrefix(img.Digest, "sha256:"); ok && len(hex) != 64 {
				hint = fmt.Sprintf("it has %d digits: %s", len(hex), hint)
			}
			return Image{}, &hinted{fmt.Sprintf("%q: the digest is not valid", abridge(s)), hint}
		}
	}
	return img, nil
}

var elementRegexp = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

func validRepository(s string) bool {
	if _, err := name.NewRepository(s); err != nil {
		return false
	}
	elements := strings.Split(s, "/")
	if len(elements) > 1 && (strings.ContainsAny(elements[0], ".:") || elements[0] == "localhost") {
		elements = elements[1:] // the host
	}
	for _, e := range elements {
		if !elementRegexp.MatchString(e) {
			return false
		}
	}
	return true
}
