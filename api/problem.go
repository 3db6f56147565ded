package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

// Problem is why the daemon did not do what it was asked, as RFC 9457 has it.
type Problem struct {
	Type   string `json:"type"` // about:blank: the status and the code say it all
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"` // for people, with the way to mend it
	Code   Code   `json:"code,omitempty"`   // for machines
	// Gates are how it is with each gate, of what is refused.
	Gates []policy.Verdict `json:"gates,omitempty"`
}

func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return strings.TrimSpace(fmt.Sprintf("the server answered %d %s", p.Status, p.Title))
}

// Code tells problems apart.
type Code string

// The codes.
const (
	Invalid            Code = "invalid"
	Unauthenticated    Code = "unauthenticated"
	Denied             Code = "denied"
	NotAReporter       Code = "not-a-reporter"
	NotInGroup         Code = "not-in-group"
	OwnRelease         Code = "own-release"
	UnknownEnvironment Code = "unknown-environment"
	UnknownService     Code = "unknown-service"
	UnknownPipeline    Code = "unknown-pipeline"
	UnknownPolicy      Code = "unknown-policy"
	UnknownHold        Code = "unknown-hold"
	UnknownArtifact    Code = "unknown-artifact"
	UnknownDeployment  Code = "unknown-deployment"
	UnknownEntry       Code = "unknown-entry"
	UnknownForge       Code = "unknown-forge"
	NotFound           Code = "not-found"
	TooLarge           Code = "too-large"
	MethodNotAllowed   Code = "method-not-allowed"
	NotCurrent         Code = "not-current" // recorded, and moves nothing
	Decided            Code = "decided"     // another result is there
	Refused            Code = "refused"     // by a policy, a hold or a guard
	Conflict           Code = "conflict"    // with what is there
	Broken             Code = "broken"      // a file of the repository
	PolicyNotUsed      Code = "policy-not-used"
	TooMany            Code = "too-many"
	NotAPublisher      Code = "not-a-publisher"
	NotTracked         Code = "not-tracked" // no rule can choose the version
	MovedTag           Code = "moved-tag"   // the version is bound to another digest
	NotReady           Code = "not-ready"
	NotOurs            Code = "not-ours" // another replica has the environment
	Internal           Code = "internal"
)

// statuses are the HTTP statuses of the codes.
var statuses = map[Code]int{
	Invalid:            http.StatusBadRequest,
	Unauthenticated:    http.StatusUnauthorized,
	Denied:             http.StatusForbidden,
	NotAReporter:       http.StatusForbidden,
	NotInGroup:         http.StatusForbidden,
	OwnRelease:         http.StatusForbidden,
	UnknownEnvironment: http.StatusNotFound,
	UnknownService:     http.StatusNotFound,
	UnknownPipeline:    http.StatusNotFound,
	UnknownPolicy:      http.StatusNotFound,
	UnknownHold:        http.StatusNotFound,
	UnknownArtifact:    http.StatusNotFound,
	UnknownDeployment:  http.StatusNotFound,
	UnknownEntry:       http.StatusNotFound,
	UnknownForge:       http.StatusNotFound,
	NotFound:           http.StatusNotFound,
	TooLarge:           http.StatusRequestEntityTooLarge,
	MethodNotAllowed:   http.StatusMethodNotAllowed,
	NotCurrent:         http.StatusConflict,
	Decided:            http.StatusConflict,
	Refused:            http.StatusConflict,
	Conflict:           http.StatusConflict,
	Broken:             http.StatusConflict,
	NotAPublisher:      http.StatusForbidden,
	NotTracked:         http.StatusUnprocessableEntity,
	MovedTag:           http.StatusConflict,
	PolicyNotUsed:      http.StatusUnprocessableEntity,
	TooMany:            http.StatusTooManyRequests,
	NotReady:           http.StatusServiceUnavailable,
	NotOurs:            http.StatusServiceUnavailable,
	Internal:           http.StatusInternalServerError,
}

// Refusal returns a problem of a code.
func Refusal(code Code, format string, args ...any) *Problem {
	status := statuses[code]
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// invalid is the problem of a request that can't be understood.
func invalid(format string, args ...any) *Problem { return Refusal(Invalid, format, args...) }

// problemOf tells an error as a problem.
func problemOf(err error) *Problem {
	var p *Problem
	var unknown *history.UnknownError
	var rejection *reconcile.Rejection
	var broken desired.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &rejection):
		if _, ok := statuses[Code(rejection.Code)]; ok {
			return Refusal(Code(rejection.Code), "%s", rejection.Message)
		}
	case errors.As(err, &unknown):
		if code := Code("unknown-" + unknown.Kind); statuses[code] != 0 {
			return Refusal(code, "%v", err)
		}
	case errors.Is(err, history.ErrPosition):
		return invalid("%v; begin again without one", err)
	case errors.Is(err, history.ErrCursor):
		return invalid("%v; begin again without one", err)
	case errors.As(err, &broken):
		return Refusal(Broken, "%v", broken)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Refusal(NotReady, "it could not be answered in time; ask again")
	}
	return Refusal(Internal, "%v", err)
}

// Write answers with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	data, err := json.Marshal(p)
	if err != nil {
		data = []byte("{}") // a struct of texts can be written
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="pinion"`)
	}
	w.WriteHeader(p.Status)
	w.Write(append(data, '\n'))
}
