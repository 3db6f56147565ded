package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/render"
)

// ConflictError says that other managers hold fields that we would set.
type ConflictError struct {
	Op       string
	Ref      render.Ref
	Managers []string // sorted
	Fields   []string // as the API server writes paths: ".spec.replicas"
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s %s: %s held by %s; remove the fields from the manifests, or take them over",
		e.Op, e.Ref, strings.Join(e.Fields, ", "), quoted(e.Managers))
}

// InvalidError says that the API server or an admission check refuses the object.
type InvalidError struct {
	Op      string
	Ref     render.Ref
	Message string
	Fields  []string // paths, where the API server names them
}

func (e *InvalidError) Error() string { return fmt.Sprintf("%s %s: %s", e.Op, e.Ref, e.Message) }

// ImmutableError says that a field can't be changed once the object exists, and
// that nothing else is wrong with it.
type ImmutableError struct {
	Op      string
	Ref     render.Ref
	Message string
	Fields  []string
}

func (e *ImmutableError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Op, e.Ref, e.Message)
}

// TooLargeError says that an object is larger than a cluster can keep.
type TooLargeError struct {
	Op    string
	Ref   render.Ref
	Size  int // bytes; 0: only the API server knows
	Limit int // bytes; 0: only the API server knows
}

func (e *TooLargeError) Error() string {
	s := fmt.Sprintf("%s %s: ", e.Op, e.Ref)
	if e.Size > 0 {
		s += fmt.Sprintf("it has %d KiB, and a cluster keeps no object of more than %d KiB", (e.Size+1023)>>10, e.Limit>>10)
	} else {
		s += "it is larger than the cluster keeps"
	}
	return s + "; split it, or keep what is large elsewhere"
}

// UnavailableError says that the API server can't reach what it needs in order
// to answer: an admission webhook, or the server behind an APIService. That
// passes when whoever is behind it comes up. It is in a RetryableError.
type UnavailableError struct {
	Webhook string // its name; empty for an APIService
	Group   string // of the APIService
	// Namespace and Service are those that are asked, where that is known.
	Namespace, Service string
	Why                string
}

func (e *UnavailableError) Error() string {
	s := fmt.Sprintf("the API server can't reach the admission webhook %q", e.Webhook)
	if e.Webhook == "" {
		s = fmt.Sprintf("the API server can't reach what serves %s", e.Group)
	}
	if e.Service != "" {
		s += fmt.Sprintf(" (Service %s/%s)", e.Namespace, e.Service)
	}
	return s + ": " + e.Why
}

// ForbiddenError says that our account lacks a permission.
type ForbiddenError struct {
	Op        string
	Ref       render.Ref // zero for a list or a watch
	User      string
	Verb      string // empty if our credentials are not accepted at all
	Resource  string // "deployments.apps"
	Namespace string // empty for the whole cluster
}

func (e *ForbiddenError) Error() string {
	what := e.Op
	if e.Ref.Kind != "" {
		what += " " + e.Ref.String()
	}
	if e.Verb == "" {
		return what + ": the API server does not accept our credentials; look at the kubeconfig or the service account"
	}
	where, role := "in the whole cluster", "ClusterRole"
	if e.Namespace != "" {
		where, role = "in namespace "+e.Namespace, "Role"
	}
	return fmt.Sprintf("%s: %s may not %s %s %s; give it a %s with the verb %s on %s", what, e.User, e.Verb, e.Resource, where, role, e.Verb, e.Resource)
}

// UnknownKindError says that the API server does not serve a kind.
type UnknownKindError struct {
	Op         string
	Ref        render.Ref
	Group      string
	Version    string
	Kind       string
	Suggestion string // in words; may be empty
}

func (e *UnknownKindError) Error() string {
	kind := e.Version
	if e.Group != "" {
		kind = e.Group + "/" + e.Version
	}
	s := e.Op
	if e.Ref.Name != "" {
		s += " " + e.Ref.String()
	}
	s += fmt.Sprintf(": the API server has no kind %s in %s", e.Kind, kind)
	if e.Suggestion != "" {
		return s + "; " + e.Suggestion
	}
	return s + "; is its CustomResourceDefinition installed?"
}

// NotEstablishedError says that the API server does not take up a definition.
type NotEstablishedError struct {
	Ref     render.Ref
	Message string // the API server's
}

func (e *NotEstablishedError) Error() string {
	return fmt.Sprintf("%s is not established: %s; give it names that no other definition of its group has, or remove the other", e.Ref, e.Message)
}

// NamespaceError says that a namespace is not there, or is going away.
type NamespaceError struct {
	Op          string
	Ref         render.Ref
	Namespace   string
	Terminating bool
	Why         string // since when it terminates, and what it waits for; may be empty
}

func (e *NamespaceError) Error() string {
	s := e.Op
	if e.Ref.Name != "" {
		s += " " + e.Ref.String()
	}
	if e.Terminating {
		s += fmt.Sprintf(": namespace %s is being deleted", e.Namespace)
		if e.Why != "" {
			s += " " + e.Why
		}
		return s
	}
	return s + fmt.Sprintf(": namespace %s does not exist", e.Namespace)
}

// RetryableError says that nobody has to do anything: the same request may
// succeed later. Whether the one that failed was carried out is not known.
type RetryableError struct {
	Op    string
	Ref   render.Ref
	After time.Duration // as the API server asks; 0 means as the caller likes
	Err   error
}

func (e *RetryableError) Error() string {
	if e.Ref.Name != "" {
		return fmt.Sprintf("%s %s: %v", e.Op, e.Ref, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Op, e.Err)
}

func (e *RetryableError) Unwrap() error { return e.Err }

// NotOursError says that an object is no longer what was to be deleted.
type NotOursError struct {
	Ref render.Ref
	Why string
}

func (e *NotOursError) Error() string { return fmt.Sprintf("delete %s: not done: %s", e.Ref, e.Why) }

// Retry tells whether an error may pass by itself, and when the API server
// wants to be asked again at the earliest. Of joined errors each must.
func Retry(err error) (after time.Duration, retry bool) {
	if err == nil {
		return 0, false
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		retry = true
		for _, e := range joined.Unwrap() {
			a, r := Retry(e)
			after, retry = max(after, a), retry && r
		}
		return after, retry
	}
	switch e := err.(type) {
	case *RetryableError:
		return e.After, true
	case *NamespaceError:
		return 0, true // it may be made, or be gone for good and then be made
	}
	return Retry(errors.Unwrap(err))
}

// failure is what was tried when an error came.
type failure struct {
	op   string
	ref  render.Ref
	body []byte // of the request; its Secret values are cut from messages
	// unread: the object has such values, and they are not known here.
	unread bool
	// For a failure of which the API server does not say more.
	group, version, kind string
}

var (
	rbacMessage     = regexp.MustCompile(`User "([^"]*)" cannot (\S+) resource "([^"]*)" in API group "([^"]*)"(?: in the namespace "([^"]*)")?`)
	conflictMessage = regexp.MustCompile(`conflict with "([^"]*)"`)
	immutable       = regexp.MustCompile(`(?i)\bimmutable\b|may not be changed|may not change once set|updates to \S+ (?:spec for fields other than|are forbidden)|pod updates may not change fields other than|cannot change roleRef`)
	// A value that validation repeats: a dump of an object, or a long text.
	dumpedValue = regexp.MustCompile(`Invalid value: (?:[\w.*]*[{\[].*[}\]]|"(?:[^"\\]|\\.){80,}"): `)
	anyValue    = regexp.MustCompile(`(?:Invalid|Unsupported|Duplicate) value: .*?: `)
	// Who refuses a request, before what they say of it.
	denial = regexp.MustCompile(`(?s)^(.*?(?:admission webhook "[^"]*" denied the request|denied request)): .*`)
	// What is wrong with the object, though the API server takes the blame.
	unreadable = regexp.MustCompile(`^failed to (?:create typed patch object|convert new object|create typed live object)`)
)

// classify turns an error of a request into one that says who must act. The
// end of the caller's own context stays what it is.
func classify(f failure, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", f.what(), context.Canceled)
	}
	if lost, ok := isLost(err); ok {
		return &RetryableError{Op: f.op, Ref: f.ref, Err: lost}
	}
	var stranger *IdentityError
	if errors.As(err, &stranger) {
		return fmt.Errorf("%s: %w", f.what(), stranger)
	}
	var unreadable unreadableError
	if errors.As(err, &unreadable) {
		return &RetryableError{Op: f.op, Ref: f.ref, Err: unreadable.error}
	}
	var missing *AccountError
	if errors.As(err, &missing) {
		return &AccountError{Op: f.what(), Cluster: missing.Cluster, Account: missing.Account}
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return f.fromStatus(status.Status(), err)
	}
	retry := &RetryableError{Op: f.op, Ref: f.ref}
	var timeout net.Error
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		retry.Err = errors.New("the API server did not answer in time")
	case errors.As(err, &errno):
		retry.Err = fmt.Errorf("can't reach the API server: %w", errno)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		retry.Err = errors.New("the connection to the API server broke off")
	default:
		retry.Err = errors.New(f.clean(err.Error()))
	}
	return retry
}

func (f failure) what() string {
	if f.ref.Name == "" {
		return f.op
	}
	return f.op + " " + f.ref.String()
}

func (f failure) fromStatus(s metav1.Status, err error) error {
	var fields, mistakes []string
	var causes []metav1.StatusCause
	if s.Details != nil {
		causes = s.Details.Causes
	}
	for _, c := range causes {
		if c.Field != "" && !slices.Contains(fields, c.Field) {
			fields = append(fields, c.Field)
		}
		mistakes = append(mistakes, f.clean(strings.TrimPrefix(c.Field+": "+c.Message, ": ")))
	}
	message := f.clean(s.Message)
	if s.Reason == metav1.StatusReasonInvalid && len(mistakes) > 0 {
		message = strings.Join(mistakes, "; ") // one by one they can be cleaned
	}
	passing := func(message string) error {
		r := &RetryableError{Op: f.op, Ref: f.ref, Err: errors.New(message)}
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			r.After = time.Duration(seconds) * time.Second
		}
		return r
	}
	switch {
	case tooLarge.MatchString(s.Message) || s.Code == 413:
		return &TooLargeError{Op: f.op, Ref: f.ref}
	case s.Code >= 500 && webhookMessage.MatchString(s.Message):
		return &RetryableError{Op: f.op, Ref: f.ref, Err: webhookDown(s.Message)}
	case s.Code == 503 && strings.Contains(f.group, ".") && !strings.HasSuffix(f.group, ".k8s.io"):
		return &RetryableError{Op: f.op, Ref: f.ref, Err: &UnavailableError{Group: f.group, Why: message}}
	case s.Code == 500 && unreadable.MatchString(s.Message):
		return &InvalidError{Op: f.op, Ref: f.ref, Message: message, Fields: fields}
	case s.Code == 429 || s.Code >= 500 || s.Reason == metav1.StatusReasonTimeout || s.Reason == metav1.StatusReasonExpired:
		return passing(message)
	case s.Code == 401:
		return &ForbiddenError{Op: f.op, Ref: f.ref}
	case apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict):
		e := &ConflictError{Op: f.op, Ref: f.ref, Fields: fields}
		for _, c := range causes {
			if m := conflictMessage.FindStringSubmatch(c.Message); m != nil && !slices.Contains(e.Managers, m[1]) {
				e.Managers = append(e.Managers, m[1])
			}
		}
		slices.Sort(e.Managers)
		return e
	case apierrors.HasStatusCause(err, "NamespaceTerminating"):
		return &NamespaceError{Op: f.op, Ref: f.ref, Namespace: f.ref.Namespace, Terminating: true}
	case s.Code == 409:
		return &RetryableError{Op: f.op, Ref: f.ref, Err: modifiedError(message)}
	case s.Code == 404:
		if s.Details != nil && s.Details.Kind == "namespaces" && f.ref.Kind != "Namespace" {
			return &NamespaceError{Op: f.op, Ref: f.ref, Namespace: s.Details.Name}
		}
		return &UnknownKindError{Op: f.op, Ref: f.ref, Group: f.group, Version: f.version, Kind: f.kind}
	case s.Code == 403:
		if m := rbacMessage.FindStringSubmatch(s.Message); m != nil {
			resource := m[3]
			if m[4] != "" {
				resource += "." + m[4]
			}
			return &ForbiddenError{Op: f.op, Ref: f.ref, User: m[1], Verb: m[2], Resource: resource, Namespace: m[5]}
		}
		if strings.Contains(s.Message, "custom resource definition is terminating") {
			return passing(message)
		}
		return &InvalidError{Op: f.op, Ref: f.ref, Message: message, Fields: fields}
	case s.Code == 422 || s.Code == 400 || s.Code == 413 || s.Code == 415:
		if isImmutable(causes) {
			return &ImmutableError{Op: f.op, Ref: f.ref, Message: message, Fields: fields}
		}
		return &InvalidError{Op: f.op, Ref: f.ref, Message: message, Fields: fields}
	}
	return passing(message)
}

var (
	tooLarge       = regexp.MustCompile(`etcdserver: request is too large|code = ResourceExhausted desc = trying to send message larger than max|Request entity too large`)
	webhookMessage = regexp.MustCompile(`failed calling webhook "([^"]*)": (?:failed to call webhook: )?(.*)`)
	webhookPost    = regexp.MustCompile(`^Post "?https://([^/"]*)/?[^"]*"?: (.*)`)
	webhookService = regexp.MustCompile(`^([^.]+)\.([^.]+)\.svc(?::\d+)?$`)
)

// webhookDown says which admission webhook can't be reached.
func webhookDown(message string) *UnavailableError {
	m := webhookMessage.FindStringSubmatch(message)
	e := &UnavailableError{Webhook: m[1], Why: m[2]}
	if post := webhookPost.FindStringSubmatch(m[2]); post != nil {
		if at := webhookService.FindStringSubmatch(post[1]); at != nil {
			e.Service, e.Namespace = at[1], at[2]
		}
		e.Why = post[2]
	}
	return e
}

// isImmutable tells whether all that is wrong is that fields can't be changed.
// If something else is wrong besides, making the object anew would not help.
func isImmutable(causes []metav1.StatusCause) bool {
	for _, c := range causes {
		if !immutable.MatchString(c.Message) {
			return false
		}
	}
	return len(causes) > 0
}

// clean makes a message fit for a reader: without the dumps of Go values that
// validation puts into it, and without anything that a Secret holds.
func (f failure) clean(message string) string {
	message = dumpedValue.ReplaceAllString(message, "")
	if f.unread {
		message = denial.ReplaceAllString(message, "$1; why is left out, for it may quote what the object holds, and kubectl delete shows it")
	}
	if f.ref.Kind == "Secret" && f.ref.Group == "" {
		message = anyValue.ReplaceAllString(message, "")
		for _, v := range secretValues(f.body) {
			message = strings.ReplaceAll(message, v, "***")
		}
	}
	if f.ref.Kind != "" {
		// "Deployment.apps "web" is invalid: " says again what f.ref says.
		message = strings.TrimPrefix(message, fmt.Sprintf("%s %q is invalid: ", Kind{Group: f.ref.Group, Kind: f.ref.Kind}, f.ref.Name))
	}
	const most = 1000
	if len(message) > most {
		message = strings.ToValidUTF8(message[:most], "") + "…"
	}
	return message
}

func quoted(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(q, ", ")
}
