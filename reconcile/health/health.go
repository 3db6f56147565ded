package health

import (
	"strings"
	"unicode/utf8"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Status says how an object does, in kstatus' words.
type Status string

// The statuses. The zero Status is none of them, and not healthy.
const (
	Current     Status = "Current"
	InProgress  Status = "InProgress"
	Failed      Status = "Failed"
	Terminating Status = "Terminating"
	NotFound    Status = "NotFound"
	Unknown     Status = "Unknown"
)

// Health says how an object does.
type Health struct {
	Status  Status `json:"status"`
	Message string `json:"message,omitempty"`
	// Reason says what is wrong with the pods below the object, if anything is.
	Reason string `json:"reason,omitempty"`
}

// Fact is what an object does not tell itself.
type Fact struct {
	// Binding is how the storage class of a claim binds, see [ClassOf]:
	// "Immediate" or "WaitForFirstConsumer"; "" if that is not known.
	Binding string
	// Unread says why it is not known.
	Unread string
}

// maxMessage bounds what is kept of a message, in bytes.
const maxMessage = 500

// Of judges an object. rule is its service's, nil if there is none for its
// kind. The object is not changed.
func Of(content map[string]any, rule *Rule, fact Fact) Health {
	h := judge(object(content), rule, fact)
	h.Message = shorten(strings.TrimSpace(h.Message))
	return h
}

func judge(o object, rule *Rule, fact Fact) Health {
	if o.text("metadata", "deletionTimestamp") != "" {
		return Health{Status: Terminating, Message: "it is being deleted"}
	}
	if rule != nil {
		return rule.judge(o)
	}
	if o.kind() == "PersistentVolumeClaim" {
		return claim(o, fact)
	}
	if known := table[o.kind()]; known != nil {
		if h, decided := known(o); decided {
			return h
		}
	}
	for _, style := range styles {
		if h, decided := style(o); decided {
			return h
		}
	}
	result, err := status.Compute(&unstructured.Unstructured{Object: o})
	if err != nil {
		return Health{Status: Unknown, Message: "its status can't be read: " + err.Error()}
	}
	return Health{Status: Status(result.Status), Message: result.Message}
}

func current() (Health, bool) { return Health{Status: Current}, true }

func progressing(message string) (Health, bool) {
	return Health{Status: InProgress, Message: message}, true
}

func failed(message string) (Health, bool) {
	return Health{Status: Failed, Message: message}, true
}

// undecided leaves an object to the general rules.
func undecided() (Health, bool) { return Health{}, false }

func shorten(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
