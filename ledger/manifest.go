package ledger

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// EncodeManifests returns rendered objects, each as JSON, as one YAML file with
// a document each, in their order. No value of a Secret is in it, wherever the
// Secret stands. In its place is an HMAC-SHA-256 of the value and of whose it
// is, under the key. So one sees whether a value has changed, and who does not
// know the key can neither guess a short value nor see that two are the same.
// Without a key there is only "hidden".
//
// What a Secret says elsewhere of itself is cleaned too: the annotation that
// kubectl keeps its last state in is left out, and a value in another one is
// replaced. What the other objects have is in the deployment repository for all
// to read, and is left as it is.
func EncodeManifests(objects [][]byte, key []byte) ([]byte, error) {
	var b bytes.Buffer
	for i, data := range objects {
		var object map[string]any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber() // a number may have more digits than a float
		// The decoder's errors may quote what stands there.
		if err := dec.Decode(&object); err != nil || object == nil {
			return nil, fmt.Errorf("write the manifests: object %d is not an object in JSON", i+1)
		}
		redact(object, key)
		clean, err := json.Marshal(object)
		if err != nil {
			return nil, fmt.Errorf("write the manifests: object %d can't be written", i+1)
		}
		doc, err := yaml.JSONToYAML(clean)
		if err != nil {
			return nil, fmt.Errorf("write the manifests: object %d can't be written as YAML", i+1)
		}
		if i > 0 {
			b.WriteString("---\n")
		}
		b.Write(doc)
	}
	return b.Bytes(), nil
}

// redact hides the values of all Secrets that a value holds.
func redact(value any, key []byte) {
	switch v := value.(type) {
	case []any:
		for _, x := range v {
			redact(x, key)
		}
	case map[string]any:
		if v["kind"] == "Secret" {
			redactSecret(v, key)
			return
		}
		for _, x := range v {
			redact(x, key)
		}
	}
}

const (
	lastApplied = "kubectl.kubernetes.io/last-applied-configuration"
	// shortest is the length of a value that is looked for in annotations: a
	// shorter one stands everywhere.
	shortest = 4
)

func redactSecret(secret map[string]any, key []byte) {
	meta, _ := secret["metadata"].(map[string]any)
	namespace, _ := meta["namespace"].(string)
	name, _ := meta["name"].(string)
	var values []string
	for section, there := range secret {
		if there == nil || slices.Contains([]string{"apiVersion", "kind", "metadata", "type", "immutable"}, section) {
			continue
		}
		entries, ok := there.(map[string]any)
		if !ok || section != "data" && section != "stringData" { // a slip of the pen, perhaps
			secret[section] = digest(key, namespace, name, section, fmt.Sprint(there))
			continue
		}
		for k, v := range entries {
			text, ok := v.(string)
			if !ok {
				if v != nil {
					entries[k] = digest(key, namespace, name, k, fmt.Sprint(v))
				}
				continue
			}
			values = append(values, text)
			if section == "data" {
				if raw, err := base64.StdEncoding.DecodeString(text); err == nil {
					text = string(raw)
					values = append(values, text)
				}
			} else {
				values = append(values, base64.StdEncoding.EncodeToString([]byte(text)))
			}
			if escaped, err := json.Marshal(text); err == nil {
				values = append(values, string(escaped[1:len(escaped)-1]))
			}
			entries[k] = digest(key, namespace, name, k, text)
		}
	}
	annotations, _ := meta["annotations"].(map[string]any)
	delete(annotations, lastApplied)
	for k, v := range annotations {
		text, _ := v.(string)
		if slices.ContainsFunc(values, func(s string) bool { return len(s) >= shortest && strings.Contains(text, s) }) {
			annotations[k] = digest(key, namespace, name, k, text)
		}
	}
}

// digest stands in the place of a value.
func digest(key []byte, parts ...string) string {
	if len(key) == 0 {
		return "hidden"
	}
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		fmt.Fprintf(mac, "%d:%s", len(p), p)
	}
	return "hmac-sha256:" + hex.EncodeToString(mac.Sum(nil))
}
