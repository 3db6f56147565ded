package desired

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// APIVersion is the version of the formats that this package reads.
const APIVersion = "pinion.dev/v1"

// The types below are the files as they are written. Their tags drive the
// decoder and the schemas:
//
//	yaml:"key,required"  the key, and whether it must be there
//	form:"label"         what its text must look like: a name in forms
//	enum:"a,b"           the values that it may have
//	default:"x"          what holds if the key is absent (for the schema)
//	example:"x"          for the schema
//	isolate:"true"       a fault in it does not break the file: of a table, it breaks the entry
//	oneof:"true"         exactly one of the fields with this tag must be there
//	atLeastOne:"true"    the list must not be empty
//	doc:"…"              the description
//
// word, list, number, flag, object and table carry the place where they stand.
type (
	word struct {
		Text     string
		Position Position
		Set      bool
		Bad      bool // it is there, and at fault
		style    yaml.Style
	}
	list struct {
		Items    []word
		Position Position
		Set      bool
	}
	number struct {
		Value    int64
		Position Position
		Set      bool
	}
	flag struct {
		Value    bool
		Position Position
		Set      bool
	}
	object struct {
		Value    map[string]any
		Position Position
		Set      bool
	}
	table[V any] struct {
		Entries  []entry[V]
		Position Position
		Set      bool
	}
	entry[V any] struct {
		Key      word
		Value    V
		Problems []Problem // errors of this entry
	}
)

// tabular is a table, whatever its values are.
type tabular interface {
	grow(key word) (value any)
	fail(i int, problems ...Problem)
	open(at Position)
	sample() any // of a value, for the schema
}

func (t *table[V]) grow(key word) any {
	t.Entries = append(t.Entries, entry[V]{Key: key})
	return &t.Entries[len(t.Entries)-1].Value
}

func (t *table[V]) fail(i int, problems ...Problem) {
	t.Entries[i].Problems = append(t.Entries[i].Problems, problems...)
}

func (t *table[V]) open(at Position) { t.Position, t.Set = at, true }
func (t *table[V]) sample() any      { return new(V) }

type header struct {
	APIVersion word `yaml:"apiVersion,required" enum:"pinion.dev/v1" doc:"The version of this format."`
	Kind       word `yaml:"kind,required" doc:"What this file is. The folder that it lies in must agree; the name is the stem of the file's name."`
}

type environmentFile struct {
	header
	Cluster    word           `yaml:"cluster" form:"label" default:"default" doc:"The cluster, by its name in the daemon's configuration."`
	Namespace  word           `yaml:"namespace,required" form:"label" example:"shop-staging" doc:"The namespace that the services run in."`
	Account    word           `yaml:"serviceAccount" form:"account" example:"deployer" doc:"The service account of the namespace in whose name everything here is read and written. Absent: the daemon's own account."`
	Parameters object         `yaml:"parameters" doc:"Values that are handed to the manifests of every service. They are never promoted: they are what makes this environment differ."`
	Pins       table[pinFile] `yaml:"pins" isolate:"true" doc:"The exact version of each artifact, by the artifact's name. A service runs here if its artifacts are pinned here."`
	Drift      word           `yaml:"drift" enum:"correct,report" default:"correct" doc:"What to do when somebody else changes or deletes what was applied: take it back, or write nothing and report it."`
	Ignore     []ignoreFile   `yaml:"ignore" doc:"Fields that are left to others, of the objects of all services here."`
	Suspend    *suspendFile   `yaml:"suspend" doc:"Nothing is applied, pruned, corrected or promoted here, until this is removed."`
	Notify     []notifyFile   `yaml:"notify" isolate:"true" doc:"Sinks of the daemon's configuration that are told the news of this environment."`
	Manifests  table[word]    `yaml:"manifests" form:"commit" isolate:"true" doc:"For a service, the commit of this repository that its manifests are read from: all 40 digits. Absent: the commit itself. Promotions write it."`
}

type pinFile struct {
	Image word `yaml:"image,required" form:"image" example:"ghcr.io/acme/web:1.4.2" doc:"The container image with its tag, its digest, or both."`
}

type serviceFile struct {
	header
	Artifacts list         `yaml:"artifacts" form:"label" doc:"The artifacts that the service needs. Absent: one, of the service's own name. []: none; the service then runs in every environment of its pipeline."`
	Manifests word         `yaml:"manifests" form:"folder" default:"." example:"overlays/{environment}" doc:"The folder of the manifests, relative to this file. {environment} is replaced by the environment's name."`
	DependsOn list         `yaml:"dependsOn" form:"label" doc:"Services that are rolled out before this one, within an environment."`
	Rollout   *rolloutFile `yaml:"rollout" doc:"How the service is rolled out."`
	Conflicts word         `yaml:"conflicts" enum:"report,take" default:"report" doc:"What to do when another manager owns a field that the manifests set: report it and apply nothing, or take the field."`
	Replace   word         `yaml:"replace" enum:"report,allow" default:"report" doc:"What to do when a field has changed that can't be changed once the object exists: report it and apply nothing, or allow that the object is deleted and made anew."`
	Ignore    []ignoreFile `yaml:"ignore" doc:"Fields of the service's objects that are left to others."`
	Suspend   *suspendFile `yaml:"suspend" doc:"Nothing of the service is applied, pruned, corrected or promoted, until this is removed."`
	Health    []healthFile `yaml:"health" doc:"How the service's objects of a kind are told to be healthy. It goes before what Pinion knows of the kind."`
	Deploy    *deployFile  `yaml:"deploy" doc:"The service is deployed by somebody else's tool, instead of from manifests."`
	Secrets   *secretsFile `yaml:"secrets" doc:"What is said about the service's Secrets."`
}

type secretsFile struct {
	Plaintext word `yaml:"plaintext" enum:"refuse,allow" default:"refuse" doc:"What to do with a Secret whose values stand in the repository in the clear: refuse the service, or allow it."`
}

type ignoreFile struct {
	Kind     word `yaml:"kind,required" form:"kind" example:"Deployment" doc:"The kind of the objects."`
	Group    word `yaml:"group" form:"group" example:"apps" doc:"The API group of the kind. Absent: any."`
	Name     word `yaml:"name" form:"pattern" example:"web-*" doc:"The name of the object; * stands for any text. Absent: all."`
	Pointers list `yaml:"pointers,required" form:"pointer" atLeastOne:"true" doc:"JSON pointers (RFC 6901) to the fields, as in the rendered object: /spec/replicas."`
}

type suspendFile struct {
	Reason word `yaml:"reason,required" form:"line" example:"the database is being moved" doc:"Why, for who wonders that nothing happens."`
}

type healthFile struct {
	APIVersion word `yaml:"apiVersion,required" form:"version" example:"example.com/v1" doc:"The API group and version of the kind, as in a manifest. The expressions see the object in this version."`
	Kind       word `yaml:"kind,required" form:"kind" example:"Database" doc:"The kind of the objects."`
	Current    word `yaml:"current,required" form:"text" example:"object.status.phase == 'Ready'" doc:"An expression (CEL) over object that is true when it is healthy. An error, as of a field that is not there yet, means: not yet."`
	InProgress word `yaml:"inProgress" form:"text" example:"object.metadata.generation != object.status.observedGeneration" doc:"True while it is on its way, whatever current says."`
	Failed     word `yaml:"failed" form:"text" example:"object.status.phase == 'Failed'" doc:"True when nothing will come of it any more, so that the rollout has failed. Nothing failed is ever current."`
}

type rolloutFile struct {
	Timeout word `yaml:"timeout" form:"duration" default:"10m" doc:"How long a rollout may take before it counts as failed."`
}

type pipelineFile struct {
	header
	Services list        `yaml:"services,required" form:"claim" atLeastOne:"true" doc:"The services that move through this pipeline. \"*\" is every service that no other pipeline names."`
	Stages   []stageFile `yaml:"stages,required" atLeastOne:"true" doc:"The environments, in the order in which versions move through them."`
}

type stageFile struct {
	Position    Position
	Environment word        `yaml:"environment,required" form:"label" doc:"The environment of the stage."`
	After       list        `yaml:"after" form:"label" doc:"The stages that come right before this one, by their environments. Absent: the stage written before it. []: none."`
	Verify      list        `yaml:"verify" form:"label" doc:"Policies that must hold for a deployment here to count as verified, besides its rollout."`
	Admit       list        `yaml:"admit" form:"label" doc:"Policies that must hold for a version to enter this stage."`
	OnFailure   word        `yaml:"onFailure" enum:"stop,rollback,rollbackAll" default:"stop" doc:"What happens when a deployment fails here: nothing moves until a person acts, the service goes back to its last verified version here, or it does so in every environment of the pipeline that runs the failed version."`
	By          word        `yaml:"by" enum:"commit,pullRequest" default:"commit" doc:"How a version enters this stage: by a commit of the daemon, or by a pull request that it opens and keeps up to date."`
	Merge       word        `yaml:"merge" enum:"people,auto" default:"people" doc:"Of by: pullRequest: who merges it. auto: the daemon, when the stage may be entered and the forge allows it."`
	Track       []trackFile `yaml:"track" atLeastOne:"true" doc:"New versions of artifacts enter this stage by themselves, by commits of Pinion. It must be a first stage."`
	Manifests   word        `yaml:"manifests" enum:"head" doc:"head: the manifests are always those of the newest commit here. Absent: they move like versions, as they were verified in the stage before."`
}

func (s *stageFile) place(at Position) { s.Position = at }

type policyFile struct {
	header
	Report     *reportFile     `yaml:"report" oneof:"true" doc:"An outside system reports success or failure."`
	Soak       word            `yaml:"soak" form:"duration" oneof:"true" example:"30m" doc:"Healthy and unchanged for this long."`
	Job        *jobFile        `yaml:"job" oneof:"true" doc:"A Kubernetes Job, run in the environment with its pins."`
	HTTP       *httpFile       `yaml:"http" oneof:"true" doc:"A request that must be answered as expected."`
	Prometheus *prometheusFile `yaml:"prometheus" oneof:"true" doc:"A query whose value must be as expected."`
	Approval   *approvalFile   `yaml:"approval" oneof:"true" doc:"People who must agree."`
	Window     *windowFile     `yaml:"window" oneof:"true" doc:"The time in which it may happen."`
	CEL        word            `yaml:"cel" form:"text" oneof:"true" example:"deployment.pins.web.version.startsWith('1.')" doc:"An expression in the Common Expression Language that must be true."`
	Timeout    word            `yaml:"timeout" form:"duration" example:"2h" doc:"Not passed by then: failed. Absent: it may take any time."`

	expression written // the CEL expression, if there is one
}

type reportFile struct {
	By list `yaml:"by,required" form:"token" atLeastOne:"true" doc:"Who may report."`
}

type jobFile struct {
	Manifest word `yaml:"manifest,required" form:"path" example:"smoke-job.yaml" doc:"The file of the Job, relative to this file."`
}

type httpFile struct {
	URL    word `yaml:"url,required" form:"url" doc:"The address. {environment}, {namespace} and {service} are replaced."`
	Expect word `yaml:"expect" form:"text" default:"status == 200" doc:"An expression (CEL) over status and body that must be true."`
}

type prometheusFile struct {
	URL    word `yaml:"url,required" form:"url" doc:"The address of the Prometheus server. {environment}, {namespace} and {service} are replaced."`
	Query  word `yaml:"query,required" form:"text" doc:"The query (PromQL). {environment}, {namespace} and {service} are replaced."`
	Expect word `yaml:"expect,required" form:"text" example:"value < 0.01" doc:"An expression (CEL) over value that must be true."`
	For    word `yaml:"for" form:"duration" doc:"For how long the expression must be true without a break. Absent: once."`
}

type approvalFile struct {
	Groups      list   `yaml:"groups,required" form:"token" atLeastOne:"true" doc:"The groups whose members may approve."`
	Count       number `yaml:"count" default:"1" doc:"How many people must approve."`
	AllowAuthor flag   `yaml:"allowAuthor" default:"false" doc:"Whether the approval of somebody who chose the version counts."`
}

type windowFile struct {
	Allow    word `yaml:"allow,required" form:"window" example:"Mon-Thu 09:00-16:00" doc:"Days and hours, several separated by commas."`
	Timezone word `yaml:"timezone" form:"timezone" default:"UTC" example:"Europe/Prague" doc:"The IANA time zone of the hours."`
}

type holdFile struct {
	header
	Environments list `yaml:"environments" form:"label" doc:"The environments that are frozen. Absent or []: all."`
	Services     list `yaml:"services" form:"label" doc:"The services that are frozen. Absent or []: all."`
	Reason       word `yaml:"reason,required" form:"text" isolate:"true" doc:"Why, for who is stopped by it."`
	Owner        word `yaml:"owner,required" form:"line" isolate:"true" example:"on-call@example.com" doc:"Whom to ask."`
	Until        word `yaml:"until" form:"time" isolate:"true" example:"2026-12-01T09:00:00Z" doc:"When it ends. Absent: when the file is removed."`
}

// newFile returns an empty file of a kind.
func newFile(kind Kind) any {
	switch kind {
	case KindEnvironment:
		return new(environmentFile)
	case KindService:
		return new(serviceFile)
	case KindPipeline:
		return new(pipelineFile)
	case KindPolicy:
		return new(policyFile)
	case KindHold:
		return new(holdFile)
	}
	return nil
}

// folders are the kinds in the order in which they are read.
var folders = []struct {
	kind Kind
	name string
}{
	{KindEnvironment, "environments"},
	{KindService, "services"},
	{KindPipeline, "pipelines"},
	{KindPolicy, "policies"},
	{KindHold, "holds"},
	{KindKey, "keys"},
}

// Reads tells whether a path lies in a folder that [Read] reads. What manifests
// are rendered from may lie anywhere.
func Reads(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	for _, f := range folders {
		if f.name == top {
			return true
		}
	}
	return false
}

func folderOf(kind Kind) string {
	for _, f := range folders {
		if f.kind == kind {
			return f.name
		}
	}
	return ""
}

func wordAt(file string, n *yaml.Node) word {
	return word{Text: n.Value, Position: Position{file, n.Line, n.Column}, Set: true, style: n.Style}
}
