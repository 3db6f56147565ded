package render

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// The limits of one rendering, whatever process it runs in.
const (
	MaxFile    = 10 << 20 // bytes of one file that is read
	MaxOutput  = 32 << 20 // bytes of all objects together
	MaxObjects = 5000
	maxObject  = 1 << 20 // bytes of one object before a warning; etcd refuses 1.5 MiB
	maxDepth   = 1000    // levels of nesting of one object
)

// Request asks for one service in one environment.
type Request struct {
	Environment desired.EnvironmentName `json:"environment"`
	Namespace   string                  `json:"namespace"`
	Service     desired.ServiceName     `json:"service"`
	Folder      string                  `json:"folder"` // of the manifests, as Folder gives it
	Parameters  map[string]any          `json:"parameters,omitempty"`
	Pins        []desired.Pin           `json:"pins,omitempty"` // sorted by artifact
	// Plaintext allows Secrets whose values stand in the repository in the clear.
	Plaintext bool `json:"plaintext,omitempty"`
	// Webhook is what deploys the service in the place of objects; "": nothing.
	Webhook string `json:"webhook,omitempty"`
}

// Folder returns the folder of a service's manifests in an environment,
// relative to the root of the tree.
func Folder(svc *desired.Service, env desired.EnvironmentName) string {
	return path.Clean(strings.ReplaceAll(svc.Folder, "{environment}", string(env)))
}

// Digest returns "sha256:…" over all that a rendering depends on besides the
// tree. Where a pin is written is no part of it.
func (r Request) Digest() (string, error) {
	all := map[string]any{"folder": r.Folder, "pinion": r.argument()}
	if r.Plaintext {
		all["plaintext"] = true
	}
	if r.Webhook != "" {
		all["webhook"] = r.Webhook
	}
	data, err := canonical(all)
	if err != nil {
		return "", err
	}
	return digest(data), nil
}

// argument is what Jsonnet knows as "pinion".
func (r Request) argument() map[string]any {
	pins := make(map[string]any, len(r.Pins))
	for _, p := range r.Pins {
		pins[string(p.Artifact)] = map[string]any{
			"image":      p.Image.Reference,
			"repository": p.Image.Repository,
			"version":    p.Image.Version,
			"digest":     p.Image.Digest,
		}
	}
	parameters := r.Parameters
	if parameters == nil {
		parameters = map[string]any{}
	}
	return map[string]any{
		"environment": string(r.Environment),
		"namespace":   r.Namespace,
		"service":     string(r.Service),
		"parameters":  parameters,
		"pins":        pins,
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
