package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	maxConfig = 2 << 20 // bytes of an image's configuration
	maxLabels = 1000
)

// Image is what a tag leads to.
type Image struct {
	Digest string
	// Labels are those of the image's configuration, and over them the
	// annotations of its manifest, and of the index that lists it.
	Labels map[string]string
	// Created is when the configuration says that it was made.
	Created time.Time
}

// Image reads to what a tag leads. All of it is content of that digest. Of an
// index it is the image for linux/amd64 that is read, or else the first.
func (c *Client) Image(ctx context.Context, repository, tag string) (Image, error) {
	top, err := c.Head(ctx, repository, tag)
	if err != nil {
		return Image{}, err
	}
	image := Image{Digest: top.Digest, Labels: map[string]string{}}
	m, err := c.manifest(ctx, repository, top.Digest)
	if err != nil {
		return Image{}, err
	}
	if len(m.Manifests) > 0 {
		i := max(0, slices.IndexFunc(m.Manifests, func(d listed) bool { return d.Platform.OS == "linux" && d.Platform.Architecture == "amd64" }))
		index := m
		if m, err = c.manifest(ctx, repository, index.Manifests[i].Digest); err != nil {
			return Image{}, err
		}
		m.Annotations = over(m.Annotations, index.Annotations)
	}
	if m.Config.Digest != "" {
		data, err := c.Blob(ctx, repository, m.Config.Digest, maxConfig)
		if err != nil {
			return Image{}, err
		}
		// What is no image, such as a chart, may have anything there.
		var config struct {
			Created time.Time `json:"created"`
			Config  struct {
				Labels map[string]string `json:"Labels"`
			} `json:"config"`
		}
		if json.Unmarshal(data, &config) == nil {
			image.Labels, image.Created = over(image.Labels, config.Config.Labels), config.Created
		}
	}
	image.Labels = over(image.Labels, m.Annotations)
	if len(image.Labels) > maxLabels {
		return Image{}, fmt.Errorf("read %s: it has more than %d labels", show(repository, tag), maxLabels)
	}
	return image, nil
}

// over returns a map with another one's entries in the place of its own.
func over(m, others map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, m)
	maps.Copy(all, others)
	return all
}

// listed is a manifest that an index lists.
type listed struct {
	Digest   string `json:"digest"`
	Platform struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	} `json:"platform"`
}

// outline is what counts of a manifest, or of an index.
type outline struct {
	Annotations map[string]string `json:"annotations"`
	Manifests   []listed          `json:"manifests"`
	Config      struct {
		Digest string `json:"digest"`
	} `json:"config"`
}

func (c *Client) manifest(ctx context.Context, repository, digest string) (outline, error) {
	m, err := c.Manifest(ctx, repository, digest)
	if err != nil {
		return outline{}, err
	}
	var o outline
	if json.Unmarshal(m.Data, &o) != nil {
		return o, fmt.Errorf("read %s: %w", show(repository, digest), errors.New("it is not a manifest"))
	}
	return o, nil
}
