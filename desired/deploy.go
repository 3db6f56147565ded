package desired

import "time"

// Deploy says that a service is deployed by somebody else's tool, which is
// asked by a webhook and reports when it is done.
type Deploy struct {
	Webhook string   // the address, with words in braces; see Expand
	By      []string // principals and groups who may report
	Timeout time.Duration
	// Position is that of the address.
	Position Position
}

type deployFile struct {
	Webhook word `yaml:"webhook,required" form:"url" example:"https://deploy.example/hooks/{service}" doc:"The address that is asked, by a signed POST request with the pins. {environment}, {namespace} and {service} are replaced."`
	By      list `yaml:"by,required" form:"token" atLeastOne:"true" doc:"Who may report that it is deployed, or has failed."`
	Timeout word `yaml:"timeout" form:"duration" default:"30m" doc:"How long it may take before it counts as failed."`
}

func (d *decoder) deploy(raw *serviceFile) *Deploy {
	if raw.Deploy == nil {
		return nil
	}
	if raw.Manifests.Set {
		d.failAt(raw.Manifests.Position, "manifests: and deploy: are both there", "a service is applied from manifests, or deployed by a webhook: remove one")
	}
	return &Deploy{raw.Deploy.Webhook.Text, namesOf[string](raw.Deploy.By), raw.Deploy.Timeout.duration(30 * time.Minute), raw.Deploy.Webhook.Position}
}
