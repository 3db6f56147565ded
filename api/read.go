package api

import (
	"maps"
	"slices"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
)

// The parameters that several operations have.
var (
	inEnvironment = Parameter{Name: "environment", Summary: "The name of an environment.", Form: formName}
	ofService     = Parameter{Name: "service", Summary: "The name of a service.", Form: formName}
	since         = Parameter{Name: "since", Summary: "Nothing from before this moment.", Form: formTime}
	until         = Parameter{Name: "until", Summary: "Nothing from after this moment.", Form: formTime}
)

func inPath(p Parameter) Parameter {
	p.Path = true
	return p
}

func required(p Parameter) Parameter {
	p.Required = true
	return p
}

func withPaging(all ...Parameter) []Parameter { return append(all, paging...) }

// Operations are all that this package answers.
func Operations() []Operation {
	return slices.Concat(reads(), streams(), writes(), changes())
}

func reads() []Operation {
	return []Operation{
		Lasting(Operation{Path: "/api/v1/environments", ID: "listEnvironments", Summary: "The environments, by name.",
			Parameters: withPaging(), Problems: []Code{}}, listEnvironments),
		Lasting(Operation{Path: "/api/v1/environments/{environment}", ID: "getEnvironment", Summary: "One environment, with its pins.",
			Parameters: []Parameter{inPath(inEnvironment)}, Problems: []Code{UnknownEnvironment, Broken}}, getEnvironment),
		Lasting(Operation{Path: "/api/v1/services", ID: "listServices", Summary: "The services, by name.",
			Parameters: withPaging()}, listServices),
		Lasting(Operation{Path: "/api/v1/services/{service}", ID: "getService", Summary: "One service.",
			Parameters: []Parameter{inPath(ofService)}, Problems: []Code{UnknownService, Broken}}, getService),
		Lasting(Operation{Path: "/api/v1/pipelines", ID: "listPipelines", Summary: "The pipelines, by name.",
			Parameters: withPaging()}, listPipelines),
		Lasting(Operation{Path: "/api/v1/pipelines/{pipeline}", ID: "getPipeline", Summary: "One pipeline, with its stages.",
			Parameters: []Parameter{{Name: "pipeline", Summary: "The name of a pipeline.", Form: formName, Path: true}}, Problems: []Code{UnknownPipeline, Broken}}, getPipeline),
		Lasting(Operation{Path: "/api/v1/policies", ID: "listPolicies", Summary: "The policies, by name.",
			Parameters: withPaging()}, listPolicies),
		Lasting(Operation{Path: "/api/v1/policies/{policy}", ID: "getPolicy", Summary: "One policy.",
			Parameters: []Parameter{{Name: "policy", Summary: "The name of a policy.", Form: formName, Path: true}}, Problems: []Code{UnknownPolicy, Broken}}, getPolicy),
		Lasting(Operation{Path: ArtifactsPath, ID: "listArtifacts", Summary: "The versions of artifacts that are known, by their references.",
			Parameters: withPaging()}, listArtifacts),
		Reading(Operation{Path: "/api/v1/registries", ID: "listRegistries", Summary: "The repositories of registries that are watched, and how that goes.",
			Parameters: withPaging()}, listRegistries),
		Reading(Operation{Path: "/api/v1/holds", ID: "listHolds", Summary: "The holds, by name; those that have come to their end, too.",
			Parameters: withPaging()}, listHolds),
		Reading(Operation{Path: "/api/v1/holds/{hold}", ID: "getHold", Summary: "One hold.",
			Parameters: []Parameter{{Name: "hold", Summary: "The name of a hold.", Form: formName, Path: true}}, Problems: []Code{UnknownHold, Broken}}, getHold),
		Lasting(Operation{Path: "/api/v1/matrix", ID: "getMatrix", Summary: "Where services stand in all environments; a page is so many services.",
			Parameters: withPaging(ofService, inEnvironment), Problems: []Code{UnknownEnvironment, UnknownService, Broken}}, getMatrix),
		Reading(Operation{Path: "/api/v1/why", ID: "explain", Summary: "Why a version is, or is not, in an environment: each gate with its value.",
			Parameters: []Parameter{required(inEnvironment), required(ofService)}, Problems: []Code{UnknownEnvironment, UnknownService, Broken}}, explain),
		Lasting(Operation{Path: "/api/v1/where", ID: "locate", Summary: "Where an artifact, or a version of it, runs, ran, waits or is refused.",
			Parameters: []Parameter{
				{Name: "artifact", Summary: "The name of an artifact.", Form: formName, Required: true},
				{Name: "version", Summary: "A tag, a digest or the beginning of one, or the whole image.", Form: formText},
				{Name: "all", Summary: "Look through the whole history, not only through the newest 20 deployments of each service.", Form: formYes},
			}, Problems: []Code{UnknownArtifact}}, locate),
		Joining[history.Page[*history.Deployment]](Operation{Path: "/api/v1/deployments", ID: "listDeployments", Summary: "The deployments, those that were pinned last first.",
			Parameters: withPaging(inEnvironment, ofService,
				Parameter{Name: "id", Summary: "The id of a deployment; several environments may have it.", Form: formDeploy},
				Parameter{Name: "version", Summary: "A tag, a digest or the beginning of one, the whole image, or 7 or more digits of the commit on main.", Form: formText},
				Parameter{Name: "state", Summary: "The state.", Form: enumForm(ledger.StatePinned, ledger.StateStarted, ledger.StateCompleted, ledger.StateVerified, ledger.StateFailed, ledger.StateSuperseded)},
				since, until), Problems: []Code{UnknownEnvironment}}, listDeployments),
		Joining[*history.Deployment](Operation{Path: "/api/v1/environments/{environment}/deployments/{deployment}", ID: "getDeployment", Summary: "One deployment.",
			Parameters: []Parameter{inPath(inEnvironment), {Name: "deployment", Summary: "The id of a deployment.", Form: formDeploy, Path: true}},
			Problems:   []Code{UnknownEnvironment, UnknownDeployment}}, getDeployment),
		Lasting(Operation{Path: "/api/v1/flows", ID: "listFlows", Summary: "The ways of a service's versions through its pipeline, with the stages that are ahead.",
			Parameters: withPaging(required(ofService), Parameter{Name: "version", Summary: "Only this version.", Form: formText}),
			Problems:   []Code{UnknownService}}, listFlows),
		Joining[history.Page[history.Entry]](Operation{Path: "/api/v1/environments/{environment}/entries", ID: "listEntries", Summary: "The entries of an environment's ledger, newest first.",
			Parameters: withPaging(inPath(inEnvironment), ofService,
				Parameter{Name: "deployment", Summary: "The id of a deployment.", Form: formDeploy},
				Parameter{Name: "event", Summary: "What happened.", Form: enumForm(Events...)},
				since, until), Problems: []Code{UnknownEnvironment}}, listEntries),
		Joining[history.Entry](Operation{Path: "/api/v1/environments/{environment}/entries/{entry}", ID: "getEntry", Summary: "One entry of a ledger.",
			Parameters: []Parameter{inPath(inEnvironment), {Name: "entry", Summary: "The commit on the ledger's branch.", Form: formCommit, Path: true}},
			Problems:   []Code{UnknownEnvironment, UnknownEntry}}, getEntry),
	}
}

// knows makes sure that there is an environment, if one is named.
func knows(c *Call, env desired.EnvironmentName) error {
	if env == "" {
		return nil
	}
	return c.Backend.Present.KnowsEnvironment(c, c.Now, env)
}

// MatrixRow is one service of the matrix.
type MatrixRow struct {
	Service   desired.ServiceName `json:"service"`
	Standings []history.Standing  `json:"standings"` // in the order of the environments
}

// Matrix is a part of the matrix.
type Matrix struct {
	Environments []desired.EnvironmentName `json:"environments"` // in the order of the pipelines
	Items        []MatrixRow               `json:"items"`
	Next         string                    `json:"next,omitempty"`
	Problems     []string                  `json:"problems,omitempty"` // what can't be read, and so is not among the items
}

// told are errors in words.
func told(errs []error) []string {
	var all []string
	for _, err := range errs {
		all = append(all, err.Error())
	}
	return all
}

func getMatrix(c *Call) (Matrix, error) {
	var m *history.Matrix
	if err := knows(c, c.environment()); err != nil {
		return Matrix{}, err
	}
	err := c.look(func(v *history.View) (err error) {
		m, err = v.Matrix(c)
		return err
	})
	if err != nil {
		return Matrix{}, err
	}
	out := Matrix{Environments: m.Environments, Problems: told(m.Failures)}
	c.fleeting = len(out.Problems) > 0
	services := m.Services
	if svc := c.service(); svc != "" {
		if _, ok := m.Standings[svc]; !ok {
			return out, history.Unknown("service", string(svc), m.Services, "there are")
		}
		services = []desired.ServiceName{svc}
	}
	if env := c.environment(); env != "" {
		out.Environments = []desired.EnvironmentName{env}
		services = slices.DeleteFunc(slices.Clone(services), func(svc desired.ServiceName) bool {
			return !slices.ContainsFunc(m.Standings[svc], func(s history.Standing) bool { return s.Environment == env })
		})
	}
	p, err := pageOf(c, services, func(svc desired.ServiceName) (MatrixRow, error) {
		row := MatrixRow{svc, m.Standings[svc]}
		if env := c.environment(); env != "" {
			row.Standings = slices.DeleteFunc(slices.Clone(row.Standings), func(s history.Standing) bool { return s.Environment != env })
		}
		return row, nil
	})
	out.Items, out.Next = p.Items, p.Next
	return out, err
}

func explain(c *Call) (x *history.Explanation, err error) {
	err = c.look(func(v *history.View) error {
		if err := v.KnowsEnvironment(c, c.environment()); err != nil {
			return err
		}
		if x, err = v.Explain(c, c.environment(), c.service()); err != nil {
			return err
		}
		all, err := v.WatchedFor(c, c.environment(), c.service())
		x.Hear(c.readings(all))
		return err
	})
	return x, err
}

// readings adds how the looks at registries go.
func (c *Call) readings(all []history.Registry) []history.Registry {
	for i := range all {
		all[i].Elsewhere = c.Backend.Reading == nil || !c.Backend.Reading(&all[i])
	}
	return all
}

func listRegistries(c *Call) (p history.Page[history.Registry], err error) {
	err = c.look(func(v *history.View) error {
		all, err := v.Watched(c)
		if err != nil {
			return err
		}
		byName := map[string]history.Registry{}
		for _, r := range c.readings(all) {
			byName[r.Repository] = r
		}
		p, err = pageOf(c, slices.Sorted(maps.Keys(byName)), func(name string) (history.Registry, error) { return byName[name], nil })
		return err
	})
	return p, err
}

// Located is where an artifact is.
type Located struct {
	Items    []history.Presence `json:"items"`
	Problems []string           `json:"problems,omitempty"` // what can't be read, in which there may be more
}

func locate(c *Call) (x Located, err error) {
	sought := history.Sought{Artifact: desired.ArtifactName(c.text("artifact")), Version: c.text("version")}
	find := func(v *history.View) error {
		found, err := v.Where(c, sought, c.text("all") == "true")
		x = Located{found.Presences, told(found.Failures)}
		c.fleeting = len(x.Problems) > 0
		return err
	}
	if c.text("all") != "true" {
		err = c.look(find)
		return x, err
	}
	v, err := c.Backend.Present.Aside(c, c.Now) // the whole history may take long
	if err == nil {
		err = find(v)
	}
	return x, err
}

func listDeployments(c *Call) (joined, error) {
	if err := knows(c, c.environment()); err != nil {
		return joined{}, err
	}
	p, err := c.Backend.Index.Deployments(c, history.DeploymentQuery{
		ID: c.text("id"), Environment: c.environment(), Service: c.service(), Version: c.text("version"),
		State: ledger.State(c.text("state")), Since: c.moment("since"), Until: c.moment("until"),
	}, c.text("cursor"), c.limit())
	if err != nil {
		return joined{}, err
	}
	parts := make([][]byte, len(p.Items))
	for i, d := range p.Items {
		if parts[i], err = c.deployments.text(d); err != nil {
			return joined{}, err
		}
	}
	return joined{parts: parts, page: true, next: p.Next, truncated: p.Truncated}, nil
}

func getDeployment(c *Call) (joined, error) {
	if err := knows(c, c.environment()); err != nil {
		return joined{}, err
	}
	d, err := c.Backend.Index.Deployment(c, c.environment(), c.text("deployment"))
	if err != nil {
		return joined{}, err
	}
	if d == nil {
		return joined{}, Refusal(UnknownDeployment, "the ledger of %s has no deployment %s", c.environment(), c.text("deployment"))
	}
	text, err := c.deployments.text(d)
	return joined{parts: [][]byte{text}}, err
}

func listFlows(c *Call) (p history.Page[history.Flow], err error) {
	flows, err := c.Backend.Index.Flows(c, c.service(), c.text("version"), c.text("cursor"), c.limit())
	if err != nil {
		return p, err
	}
	err = c.look(func(v *history.View) error {
		if len(flows.Items) == 0 {
			if err := v.KnowsService(c, c.service()); err != nil {
				return err
			}
		}
		p, err = v.Flows(c, flows)
		return err
	})
	return p, err
}

func listEntries(c *Call) (joined, error) {
	if err := knows(c, c.environment()); err != nil {
		return joined{}, err
	}
	p, err := c.Backend.Index.Entries(c, history.EntryQuery{
		Environment: c.environment(), Service: c.service(), Deployment: c.text("deployment"),
		Event: ledger.Event(c.text("event")), Since: c.moment("since"), Until: c.moment("until"),
	}, c.text("cursor"), c.limit())
	parts := make([][]byte, len(p.Items))
	for i, text := range p.Items {
		parts[i] = text
	}
	return joined{parts: parts, page: true, next: p.Next, truncated: p.Truncated}, err
}

func getEntry(c *Call) (joined, error) {
	if err := knows(c, c.environment()); err != nil {
		return joined{}, err
	}
	text, ok, err := c.Backend.Index.Entry(c, c.environment(), c.text("entry"))
	if err == nil && !ok {
		return joined{}, Refusal(UnknownEntry, "the ledger of %s has no entry %s", c.environment(), c.text("entry"))
	}
	return joined{parts: [][]byte{text}}, err
}
