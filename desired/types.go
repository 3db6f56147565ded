package desired

import (
	"io/fs"
	"strings"
	"time"
)

// The names are the stems of the files: environments/staging.yaml is the
// EnvironmentName "staging". Each is a DNS label (RFC 1123): lower-case
// letters, digits and hyphens, at most 63 of them.
type (
	EnvironmentName string
	ServiceName     string
	ArtifactName    string
	PipelineName    string
	PolicyName      string
	HoldName        string
	KeyName         string
	ClusterName     string
)

// Kind is the kind of a file, as its `kind:` line says it.
type Kind string

// The kinds, one for each folder of a deployment repository. A Key is no YAML,
// and says no kind.
const (
	KindEnvironment Kind = "Environment"
	KindService     Kind = "Service"
	KindPipeline    Kind = "Pipeline"
	KindPolicy      Kind = "Policy"
	KindHold        Kind = "Hold"
	KindKey         Kind = "Key"
)

// Tree is the files of one commit. Besides reading them, one can ask for the
// identity of a file's or a folder's content without reading it.
//
// A Tree holds no links: a symbolic link or a submodule is an entry whose
// mode says so and that can't be opened.
type Tree interface {
	fs.FS
	// ID returns the git object id (40 hexadecimal digits) of the file or
	// folder; an error that wraps fs.ErrNotExist says that there is none, any
	// other error that one could not look.
	ID(name string) (string, error)
}

// Position is a place in a file of the deployment repository. Line and Column
// count from 1, the column in characters; a Line of 0 stands for the whole
// file.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// Environment is a place where services run: a cluster and a namespace, with
// the pins that say which version of each artifact runs there.
type Environment struct {
	Name      EnvironmentName
	File      string
	Cluster   ClusterName // "default" if the file names none
	Namespace string
	// ServiceAccount is in whose name all requests are made; "": the daemon's.
	ServiceAccount string
	// Parameters are handed to the manifests. The values are what JSON knows:
	// nil, bool, int64, float64, string, []any, map[string]any.
	Parameters map[string]any
	Pins       map[ArtifactName]Pin
	Drift      Drift
	Ignore     []Ignore // of all services here
	Suspend    *Suspension
	Notify     []Notify // who is told the news, besides those whom the configuration has told all
	// Manifests says, for a service, from which commit (40 hexadecimal
	// digits) its manifests are read; absent, from the commit itself.
	Manifests map[ServiceName]string
	// ManifestsAt is where the file says so.
	ManifestsAt map[ServiceName]Position
}

// Pin is the exact version of one artifact in one environment.
type Pin struct {
	Artifact ArtifactName
	Image    Image
	Position Position // of the reference
}

// Image is a reference to a container image, taken apart.
type Image struct {
	Reference  string `json:"image"`             // as it is written
	Repository string `json:"repository"`        // "ghcr.io/acme/web", as it is written: no default registry is added
	Version    string `json:"version,omitempty"` // the tag; empty if there is only a digest
	Digest     string `json:"digest,omitempty"`  // "sha256:…"; empty if the reference has none
}

// Service is manifests and the artifacts that they need: the unit that is
// deployed and promoted.
type Service struct {
	Name      ServiceName
	File      string
	Artifacts []ArtifactName // the service's own name if the file says nothing; may be empty if it says []
	// Folder is where the manifests lie, relative to the root of the tree,
	// with "{environment}" not yet expanded.
	Folder    string
	DependsOn []ServiceName
	Rollout   Rollout
	Conflicts Conflicts // what to do when another manager owns a field that the manifests set
	Replace   Replace   // what to do when a field can't be changed
	Ignore    []Ignore
	Suspend   *Suspension
	Health    []HealthRule
	Plaintext Plaintext // what to do with Secrets that are not encrypted
	Deploy    *Deploy   // by whom it is deployed, instead of from manifests; nil: by Pinion
}

// FolderIn returns the folder of the manifests in an environment.
func (s *Service) FolderIn(env EnvironmentName) string {
	return strings.ReplaceAll(s.Folder, "{environment}", string(env))
}

// Conflicts is what happens when an object of a service has a field that
// another manager owns and that the manifests set.
type Conflicts string

const (
	ConflictsReport Conflicts = "report" // the service is not applied, and the conflict is reported; the default
	ConflictsTake   Conflicts = "take"   // the field is taken, and that is reported
)

// Replace is what happens when a field of an object has changed that Kubernetes
// lets nobody change.
type Replace string

const (
	ReplaceReport Replace = "report" // the service is not applied, and that is reported; the default
	ReplaceAllow  Replace = "allow"  // the object is deleted and made anew
)

// Plaintext is what happens when a service has a Secret whose values stand in
// the repository in the clear.
type Plaintext string

const (
	PlaintextRefuse Plaintext = "refuse" // the service is not rendered, and that is reported; the default
	PlaintextAllow  Plaintext = "allow"
)

// Rollout is what a service says about the way it is rolled out.
type Rollout struct {
	Timeout time.Duration // 10 minutes if the file says nothing
}
