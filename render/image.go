package render

import (
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// overrideImages puts the pins' references in the place of the images of all
// containers of an object, wherever its pod spec lies: an image is a pin's if
// its name, without tag and digest, is the pin's repository or its artifact.
// It is done here and not by Kustomize's own images: transformer so that plain
// YAML and Kustomize can't come apart, and so that the reference stays as it
// is written, tag and digest both.
func overrideImages(object any, pins []desired.Pin) {
	if m, ok := object.(map[string]any); ok && m["kind"] == "CustomResourceDefinition" {
		return // its "containers" are a schema
	}
	references := make(map[string]string, 2*len(pins))
	for _, p := range pins {
		references[string(p.Artifact)] = p.Image.Reference
	}
	for _, p := range pins { // the repository is the surer sign
		references[p.Image.Repository] = p.Image.Reference
	}
	override(object, references)
}

func override(v any, references map[string]string) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			override(item, references)
		}
	case map[string]any:
		for key, value := range v {
			override(value, references)
			switch key {
			case "containers", "initContainers", "ephemeralContainers":
				list, _ := value.([]any)
				for _, item := range list {
					container, _ := item.(map[string]any)
					image, _ := container["image"].(string)
					if reference, ok := references[imageName(image)]; ok {
						container["image"] = reference
					}
				}
			}
		}
	}
}

// imageName cuts tag and digest from a reference.
func imageName(reference string) string {
	name, _, _ := strings.Cut(reference, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// mentions says whether any string of a value contains text.
func mentions(v any, text string) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, text)
	case []any:
		for _, item := range v {
			if mentions(item, text) {
				return true
			}
		}
	case map[string]any:
		for _, item := range v {
			if mentions(item, text) {
				return true
			}
		}
	}
	return false
}
