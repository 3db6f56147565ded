package cluster

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

// Announcement is something that has happened, for who looks at a namespace
// with the tools of Kubernetes.
type Announcement struct {
	Namespace string
	// Name is the event's: the same announcement is made once.
	Name        string
	Environment desired.EnvironmentName
	Time        time.Time
	Reason      string // one word in camel case
	Warning     bool
	Note        string
}

// maxNote is what the API server takes, in bytes.
const maxNote = 1024

// Announce makes an Event. It is about the ConfigMap of the environment's
// inventory, which is there as long as the environment is: an Event in a
// namespace has to be about something in it. That there is one already, or that
// the namespace is not there, is no error.
func (c *Cluster) Announce(ctx context.Context, a Announcement) error {
	e := eventsv1.Event{
		TypeMeta:            metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta:          metav1.ObjectMeta{Namespace: a.Namespace, Name: a.Name},
		EventTime:           metav1.NewMicroTime(a.Time),
		ReportingController: "pinion.dev/pinion",
		ReportingInstance:   "pinion",
		Action:              "Deploy",
		Reason:              a.Reason,
		Type:                corev1.EventTypeNormal,
		Note:                firstBytes(a.Note, maxNote),
		Regarding: corev1.ObjectReference{
			APIVersion: "v1", Kind: "ConfigMap", Namespace: a.Namespace,
			Name: inventoryPrefix + string(a.Environment),
		},
	}
	if a.Warning {
		e.Type = corev1.EventTypeWarning
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	err = c.send(ctx, func(ctx context.Context) error {
		return c.client.Post().AbsPath("apis", "events.k8s.io", "v1", "namespaces", a.Namespace, "events").
			SetHeader("Content-Type", "application/json").SetHeader("Accept", acceptMetadata).
			MaxRetries(0).Body(body).Do(ctx).Error()
	})
	if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return classify(failure{op: "create", ref: render.Ref{Group: "events.k8s.io", Kind: "Event", Namespace: a.Namespace, Name: a.Name}, version: "v1", kind: "Event"}, err)
}

// firstBytes cuts a text at the boundary of a character.
func firstBytes(s string, most int) string {
	if len(s) <= most {
		return s
	}
	most -= len("…")
	for most > 0 && s[most]&0xc0 == 0x80 {
		most--
	}
	return s[:most] + "…"
}
