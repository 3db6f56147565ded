package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// The bounds of a request.
const (
	maxBody = 64 << 10
	// answerTime is less than what the server gives a request as a whole.
	answerTime = 25 * time.Second
)

// token is a token of the configuration: its hash, and whose it is.
type token struct {
	hash      [sha256.Size]byte
	principal reconcile.Principal
}

func tokensOf(configs []tokenConfig) []token {
	var all []token
	for _, c := range configs {
		t := token{principal: reconcile.Principal{Name: c.Principal, Email: c.Email, Groups: c.Groups}}
		hex.Decode(t.hash[:], []byte(c.SHA256)) // its form was checked
		all = append(all, t)
	}
	return all
}

// principal returns who sends a request. All tokens are compared, each in
// constant time.
func (s *server) principal(r *http.Request) (reconcile.Principal, bool) {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || text == "" {
		return reconcile.Principal{}, false
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(text)))
	found := -1
	for i, t := range s.tokens {
		if subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return reconcile.Principal{}, false
	}
	return s.tokens[found].principal, true
}

// statuses are the HTTP statuses of the codes.
var statuses = map[problemCode]int{
	codeInvalid:            http.StatusBadRequest,
	codeUnauthenticated:    http.StatusUnauthorized,
	codeNotAReporter:       http.StatusForbidden,
	codeNotInGroup:         http.StatusForbidden,
	codeOwnRelease:         http.StatusForbidden,
	codeUnknownEnvironment: http.StatusNotFound,
	codeUnknownService:     http.StatusNotFound,
	codeUnknownPolicy:      http.StatusNotFound,
	codeUnknownForge:       http.StatusNotFound,
	codeTooLarge:           http.StatusRequestEntityTooLarge,
	codeNotCurrent:         http.StatusConflict,
	codeDecided:            http.StatusConflict,
	codePolicyNotUsed:      http.StatusUnprocessableEntity,
	codeNotReady:           http.StatusServiceUnavailable,
	codeNotOurs:            http.StatusServiceUnavailable,
}

// report takes in the result of a check that an outside system has made.
func (s *server) report(w http.ResponseWriter, r *http.Request) {
	var body reportRequest
	s.take(w, r, &body, func(ctx context.Context, c *reconcile.Clerk, who reconcile.Principal) (reconcile.Receipt, error) {
		q := reconcile.ReportRequest{
			Principal:   who,
			Environment: body.Environment,
			Service:     body.Service,
			Policy:      body.Policy,
			Version:     body.Version,
			Description: body.Description,
			URL:         body.URL,
			Rerun:       body.Rerun,
		}
		if !body.Rerun || body.Status != "" {
			result, ok := resultOf(string(body.Status))
			if !ok {
				return reconcile.Receipt{}, invalid("status is %q; write success or failure", body.Status)
			}
			q.Result = result
		}
		if body.URL != "" {
			u, err := url.Parse(body.URL)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return reconcile.Receipt{}, invalid("url is not an http or https URL")
			}
			u.User = nil
			q.URL = u.String()
		}
		if err := need("environment", body.Environment, "service", body.Service, "policy", body.Policy, "version", body.Version); err != nil {
			return reconcile.Receipt{}, err
		}
		return c.Report(ctx, q)
	})
}

// resultOf reads a result in the words of the systems that report one.
func resultOf(status string) (ledger.Result, bool) {
	switch strings.ToLower(status) {
	case "success", "passed":
		return ledger.Success, true
	case "failure", "failed":
		return ledger.Failure, true
	}
	return "", false
}

// approve takes in a person's consent.
func (s *server) approve(w http.ResponseWriter, r *http.Request) {
	var body approvalRequest
	s.take(w, r, &body, func(ctx context.Context, c *reconcile.Clerk, who reconcile.Principal) (reconcile.Receipt, error) {
		if err := need("environment", body.Environment, "service", body.Service, "version", body.Version); err != nil {
			return reconcile.Receipt{}, err
		}
		return c.Approve(ctx, reconcile.ApprovalRequest{
			Principal:   who,
			Environment: body.Environment,
			Service:     body.Service,
			Policy:      body.Policy,
			Version:     body.Version,
			Comment:     body.Comment,
		})
	})
}

// need makes sure that none of the values, each behind its name, is empty.
func need(pairs ...any) error {
	for i := 0; i < len(pairs); i += 2 {
		if fmt.Sprint(pairs[i+1]) == "" {
			return invalid("%s is missing", pairs[i])
		}
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &reconcile.Rejection{Code: reconcile.Invalid, Message: fmt.Sprintf(format, args...)}
}

// question is a request's body.
type question interface {
	about() desired.EnvironmentName
}

func (r *reportRequest) about() desired.EnvironmentName   { return r.Environment }
func (r *approvalRequest) about() desired.EnvironmentName { return r.Environment }

// take answers a request that writes.
func (s *server) take(w http.ResponseWriter, r *http.Request, body question, do func(context.Context, *reconcile.Clerk, reconcile.Principal) (reconcile.Receipt, error)) {
	who, ok := s.principal(r)
	if !ok {
		w.Header().Set("WWW-Authenticate", `Bearer realm="pinion"`)
		refuse(w, problem{Code: codeUnauthenticated, Detail: "send a token of the daemon's configuration, as Authorization: Bearer …"})
		return
	}
	clerk := s.clerk.Load()
	if clerk == nil {
		refuse(w, problem{Code: codeNotReady, Detail: "the repository has not been read yet; ask again"})
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err == nil {
		err = dec.Decode(body)
	}
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one JSON value")
		}
	}
	if err != nil {
		refuse(w, problem{Code: codeInvalid, Detail: "the body can't be read: " + err.Error()})
		return
	}
	if env := body.about(); env != "" && s.replica.Load().forward(w, r, env, data) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	receipt, err := do(ctx, clerk, who)
	if rejection, ok := errors.AsType[*reconcile.Rejection](err); ok {
		p := problem{Code: problemCode(rejection.Code), Detail: rejection.Message}
		refuse(w, p)
		return
	}
	if err != nil {
		refuse(w, problem{Code: codeNotReady, Detail: fmt.Sprintf("it could not be pushed within %s; whether it was recorded is not known: ask again, nothing is recorded twice", answerTime)})
		return
	}
	write(w, http.StatusOK, "application/json", receiptOf(receipt))
}

func refuse(w http.ResponseWriter, p problem) {
	p.Type, p.Status = "about:blank", statuses[p.Code]
	p.Title = http.StatusText(p.Status)
	write(w, p.Status, "application/problem+json", p)
}

func write(w http.ResponseWriter, status int, kind string, v any) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func receiptOf(r reconcile.Receipt) receipt {
	return receipt{Recorded: r.Commit, Branch: r.Branch, Late: r.Late, State: r.State, Message: r.Message}
}
