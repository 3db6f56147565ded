package notify

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// The version of CDEvents (cdevents.dev) that is written, that of its events
// of services, and that of ours, which it calls custom.
const (
	cdeventsVersion = "0.4.1"
	serviceVersion  = "0.2.0"
	customVersion   = "0.1.0"
)

// cdevent is an event as CDEvents has them.
type cdevent struct {
	Context struct {
		Version   string    `json:"version"`
		ID        string    `json:"id"`
		Source    string    `json:"source"`
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
	} `json:"context"`
	Subject struct {
		ID      string         `json:"id"`
		Source  string         `json:"source"`
		Type    string         `json:"type"`
		Content map[string]any `json:"content"`
	} `json:"subject"`
	CustomData  Notification `json:"customData"`
	ContentType string       `json:"customDataContentType"`
}

// cdeventOf returns news as an event, and the headers of a CloudEvent in HTTP's
// binary mode.
//
// That a service runs in another version, or not any more, is an event of
// CDEvents' own, if it has the artifact that the event must name; for the rest it
// has none. customData is the news in full.
func cdeventOf(n Notification) (cdevent, map[string]string) {
	var e cdevent
	e.Context.Version, e.Context.ID, e.Context.Timestamp = cdeventsVersion, n.ID, n.Time
	e.Context.Source = "/" + path.Join("pinion", string(n.Environment))
	e.Subject.Source = e.Context.Source
	e.CustomData, e.ContentType = n, "application/json"
	e.Subject.ID, e.Subject.Content = string(n.Service), map[string]any{}
	if n.Environment != "" {
		e.Subject.Content["environment"] = map[string]string{"id": string(n.Environment), "source": e.Context.Source}
	}
	switch predicate := predicateOf(n); {
	case predicate != "":
		e.Subject.Type = "service"
		e.Context.Type = fmt.Sprintf("dev.cdevents.service.%s.%s", predicate, serviceVersion)
		if n.Event != desired.NewsRetired {
			e.Subject.Content["artifactId"] = purl(n.Pins[0].Image)
		}
	default:
		e.Subject.Type = "pinion-deployment"
		if n.Hold != nil {
			e.Subject.Type, e.Subject.ID = "pinion-hold", string(n.Hold.Name)
		} else {
			e.Subject.ID = cmp.Or(n.Deployment, string(n.Service), "pinion")
		}
		e.Context.Type = fmt.Sprintf("dev.cdeventsx.%s.%s.%s", e.Subject.Type, strings.ToLower(string(n.Event)), customVersion) // its readers take no others
		e.Subject.Content["summary"] = n.Summary
	}
	return e, map[string]string{
		"Content-Type":   "application/json",
		"Ce-Specversion": "1.0",
		"Ce-Id":          e.Context.ID,
		"Ce-Source":      e.Context.Source,
		"Ce-Type":        e.Context.Type,
		"Ce-Subject":     e.Subject.ID,
		"Ce-Time":        n.Time.Format(time.RFC3339),
	}
}

// predicateOf is what CDEvents calls what has become of a service; "": nothing
// that it has a word for, or a service without the artifact that it asks for.
func predicateOf(n Notification) string {
	switch {
	case n.Event == desired.NewsRetired:
		return "removed"
	case n.Event != desired.NewsCompleted, len(n.Pins) == 0:
		return ""
	case n.Cause == ledger.CauseRollback, n.Cause == ledger.CauseRevert:
		return "rolledback"
	case n.Before == "":
		return "deployed"
	}
	return "upgraded"
}

// purl writes an image as a package URL of the type oci.
func purl(image string) string {
	name, digest, _ := strings.Cut(image, "@")
	tag := ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	p := "pkg:oci/" + url.PathEscape(strings.ToLower(path.Base(name)))
	if digest != "" {
		p += "@" + url.QueryEscape(digest)
	}
	q := url.Values{"repository_url": {name}}
	if tag != "" {
		q.Set("tag", tag)
	}
	return p + "?" + q.Encode()
}
