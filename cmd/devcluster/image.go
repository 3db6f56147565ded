package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// An image is a reference to one, taken apart.
type image struct {
	repository  string
	tag, digest string // empty if it has none
}

func parseImage(reference string) image {
	rest, digest, _ := strings.Cut(reference, "@")
	// The colon of a tag is behind the last slash; one before it is a port's.
	slash := strings.LastIndex(rest, "/") + 1
	name, tag, _ := strings.Cut(rest[slash:], ":")
	return image{repository: rest[:slash] + name, tag: tag, digest: digest}
}

// imageID is what a kubelet reports as the image that it runs: the repository
// and the digest that was pulled. A reference without a digest gets one that
// is made up, the SHA-256 of the reference: the same reference, the same image.
func imageID(reference string) string {
	i := parseImage(reference)
	if i.digest == "" {
		i.digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(reference)))
	}
	return i.repository + "@" + i.digest
}
