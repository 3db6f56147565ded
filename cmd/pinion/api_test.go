package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// serviceAccountsRead has a world's service accounts read the API.
const serviceAccountsRead = `api:
  kubernetes: {audiences: [pinion]}
  grants: [{groups: ["system:serviceaccounts"], scopes: [read]}]
  limits: {requestsPerSecond: 10000}
`

// serviceAccount is asked by a pod: with a token of its account that is for
// pinion, and with one that is for somebody else.
func (d *daemon) serviceAccount() {
	d.Helper()
	token := func(audience string) string {
		x, err := d.kube.CoreV1().ServiceAccounts(d.namespace).CreateToken(d.Context(), "default",
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}, metav1.CreateOptions{})
		d.must(err)
		return x.Status.Token
	}
	c := d.contract("")
	c.Token = token("pinion")
	if status, answer := c.Ask("listEnvironments", nil, nil); status != http.StatusOK {
		d.Errorf("a service account reads: %d %v", status, answer)
	}
	if status, answer := c.Ask("approve", nil, map[string]any{"environment": "dev", "service": "web", "version": "1.0.0"}); status != http.StatusForbidden || answer["code"] != "denied" {
		d.Errorf("a service account approves: %d %v", status, answer)
	}
	for _, other := range []string{token("vault"), c.Token + "x"} {
		if c.Token = other; c.Token != "" {
			if status, _ := c.Ask("listEnvironments", nil, nil); status != http.StatusUnauthorized {
				d.Errorf("a token that is not for pinion: %d", status)
			}
		}
	}
}

// contract is the daemon's API, asked as a principal.
func (d *daemon) contract(principal string) *devtest.Contract {
	d.Helper()
	c := devtest.NewContract(d, "http://"+d.address, "/api/v1/openapi.json")
	c.Token = principal + "-token"
	return c
}

// field returns a field of each item of an answer.
func field(answer map[string]any, name string) []string {
	var all []string
	items, _ := answer["items"].([]any)
	for _, x := range items {
		m, _ := x.(map[string]any)
		all = append(all, fmt.Sprint(m[name]))
	}
	return all
}

// apiTellsTheStory asks for all that can be read about a finished TestStory, and
// holds each answer to the document.
func (d *daemon) apiTellsTheStory() {
	d.Helper()
	c := d.contract("mallory")
	type values = map[string]string
	ask := func(id string, v values) map[string]any {
		d.Helper()
		status, answer := c.Ask(id, v, nil)
		if status != http.StatusOK {
			d.Errorf("%s %v: %d %v", id, v, status, answer)
		}
		return answer
	}
	is := func(what string, got any, want string) {
		d.Helper()
		if fmt.Sprint(got) != want {
			d.Errorf("%s: got %v, want %s", what, got, want)
		}
	}
	is("environments", field(ask("listEnvironments", nil), "name"), "[dev production staging]")
	is("staging's pins", ask("getEnvironment", values{"environment": "staging"})["pins"], "[map[artifact:web image:registry.example/web:1.1.0]]")
	is("services", field(ask("listServices", nil), "name"), "[web]")
	is("web's pipeline", ask("getService", values{"service": "web"})["pipeline"], "default")
	is("pipelines", field(ask("listPipelines", nil), "name"), "[default]")
	ask("getPipeline", values{"pipeline": "default"})
	is("policies", field(ask("listPolicies", nil), "check"), "[report approval job soak]")
	is("release's groups", ask("getPolicy", values{"policy": "release"})["groups"], "[release-managers]")
	is("holds", field(ask("listHolds", nil), "name"), "[]")
	matrix := ask("getMatrix", nil)
	is("the matrix's environments", matrix["environments"], "[dev staging production]")
	is("the matrix's services", field(matrix, "service"), "[web]")
	why := ask("explain", values{"environment": "production", "service": "web"})
	if answer := fmt.Sprint(why["answer"]); !strings.HasPrefix(answer, "production runs web 1.1.0, verified") {
		d.Errorf("why: %s", answer)
	}
	is("where 1.2.0 is", field(ask("locate", values{"artifact": "web", "version": "1.2.0", "all": "true"}), "presence"), "[refused ran]")

	// The same page by page, and all at once.
	all := ask("listDeployments", nil)
	is("the deployments", field(all, "version"), "[1.1.0 1.2.0 1.1.0 1.1.0 1.1.0 1.0.0 1.0.0 1.0.0]")
	var paged []string
	for next := ""; ; {
		v := values{"limit": "3"}
		if next != "" {
			v["cursor"] = next
		}
		p := ask("listDeployments", v)
		paged = append(paged, field(p, "entry")...)
		if next, _ = p["next"].(string); next == "" {
			break
		}
	}
	if want := field(all, "entry"); !slices.Equal(paged, want) {
		d.Errorf("page by page: %v, want %v", paged, want)
	}
	failed := ask("listDeployments", values{"environment": "dev", "state": "failed", "service": "web", "version": "1.2.0", "since": "2020-01-01T00:00:00Z"})
	is("what failed", field(failed, "state"), "[failed]")
	id := field(failed, "id")[0]
	one := ask("getDeployment", values{"environment": "dev", "deployment": id})
	if reason := fmt.Sprint(one["reason"]); !strings.Contains(reason, "smoke") {
		d.Errorf("why it failed: %s", reason)
	}
	entries := ask("listEntries", values{"environment": "dev", "deployment": id})
	is("its entries", field(entries, "event"), "[failed check completed started pinned]")
	ask("getEntry", values{"environment": "dev", "entry": field(entries, "entry")[0]})
	flows := ask("listFlows", values{"service": "web"})
	is("the flows", field(flows, "version"), "[1.2.0 1.1.0 1.0.0]")
	flow := flows["items"].([]any)[0].(map[string]any)
	is("the way of 1.2.0", field(map[string]any{"items": flow["stages"]}, "progress"), "[refused ahead ahead]")

	// What is asked wrongly.
	for _, x := range []struct {
		id     string
		values values
		status int
		code   string
	}{
		{"getEnvironment", values{"environment": "Staging!"}, 400, "invalid"},
		{"getEnvironment", values{"environment": "stagin"}, 404, "unknown-environment"},
		{"getService", values{"service": "wob"}, 404, "unknown-service"},
		{"getPipeline", values{"pipeline": "other"}, 404, "unknown-pipeline"},
		{"getPolicy", values{"policy": "other"}, 404, "unknown-policy"},
		{"getHold", values{"hold": "other"}, 404, "unknown-hold"},
		{"getDeployment", values{"environment": "dev", "deployment": "web-1"}, 400, "invalid"},
		{"getDeployment", values{"environment": "dev", "deployment": "web-000000000000"}, 404, "unknown-deployment"},
		{"getEntry", values{"environment": "dev", "entry": "1"}, 400, "invalid"},
		{"getEntry", values{"environment": "dev", "entry": strings.Repeat("0", 40)}, 404, "unknown-entry"},
		{"getEntry", values{"environment": "staging", "entry": field(entries, "entry")[0]}, 404, "unknown-entry"},
		{"listDeployments", values{"limit": "0"}, 400, "invalid"},
		{"listDeployments", values{"limit": "501"}, 400, "invalid"},
		{"listDeployments", values{"cursor": "dev@" + strings.Repeat("0", 40)}, 400, "invalid"},
		{"listDeployments", values{"cursor": "x"}, 400, "invalid"},
		{"listDeployments", values{"stat": "failed"}, 400, "invalid"},
		{"listDeployments", values{"state": "broken"}, 400, "invalid"},
		{"listDeployments", values{"since": "yesterday"}, 400, "invalid"},
		{"listDeployments", values{"environment": "nowhere"}, 404, "unknown-environment"},
		{"listFlows", nil, 400, "invalid"},
		{"listFlows", values{"service": "wob"}, 404, "unknown-service"},
		{"locate", values{"artifact": "wob"}, 404, "unknown-artifact"},
		{"explain", values{"environment": "dev", "service": "wob"}, 404, "unknown-service"},
		{"getMatrix", values{"service": "wob"}, 404, "unknown-service"},
	} {
		status, answer := c.Ask(x.id, x.values, nil)
		if status != x.status || answer["code"] != x.code {
			d.Errorf("%s %v: %d %v, want %d %s", x.id, x.values, status, answer, x.status, x.code)
		}
	}
	c.Token = "dana-token" // who may not report
	c.Fuzz(1, 1500, []string{"web", "dev", "staging", "production", "default", "smoke", "e2e", "release", "1.1.0", "1.2.0", id,
		field(entries, "entry")[0], "dev@" + field(all, "entry")[0], "success", "https://ci.example/5"})
	d.apiWrites(c)
	for _, op := range c.Operations() {
		if c.Answered(op, http.StatusOK) == 0 && !slices.Contains([]string{"approve", "report", "publish"}, op) { // tests of their own do these
			d.Errorf("%s was never answered well", op)
		}
	}
	d.serviceAccount()
	c.Token = "nobody"
	if status, answer := c.Ask("listEnvironments", nil, nil); status != http.StatusUnauthorized || answer["code"] != "unauthenticated" {
		d.Errorf("nobody's token: %d %v", status, answer)
	}
	for path, want := range map[string]string{"/api/v1/nothing": "404 not-found", "/api/v2": "404 not-found", "/api/v1/reports": "405 method-not-allowed"} {
		status, answer := d.answer(path, nil)
		if got := fmt.Sprint(status, " ", answer["code"]); got != want {
			d.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	d.apiTellsWhatComes(field(entries, "entry"))
	// What has not changed is not sent again.
	header := http.Header{"Authorization": {"Bearer ci-token"}}
	resp := d.request("GET", "/api/v1/deployments", header)
	header.Set("If-None-Match", resp.Header.Get("ETag"))
	if again := d.request("GET", "/api/v1/deployments", header); again.StatusCode != http.StatusNotModified {
		d.Errorf("the same list once more: %s", again.Status)
	}
}

// request sends a request without a body; the answer's body is left alone.
func (d *daemon) request(method, path string, header http.Header) *http.Response {
	d.Helper()
	req, err := http.NewRequest(method, "http://"+d.address+path, nil)
	d.must(err)
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	d.must(err)
	d.Cleanup(func() { resp.Body.Close() })
	return resp
}

// answer reads a JSON answer.
func (d *daemon) answer(path string, header http.Header) (status int, answer map[string]any) {
	d.Helper()
	resp := d.request("GET", path, header)
	d.must(json.NewDecoder(resp.Body).Decode(&answer))
	return resp.StatusCode, answer
}

// told is a server-sent event.
type told struct{ event, id, data string }

// follow follows the events, as the principal mallory.
func (d *daemon) follow(path, after string) (next func() told) {
	d.Helper()
	header := http.Header{"Authorization": {"Bearer mallory-token"}}
	if after != "" {
		header.Set("Last-Event-ID", after)
	}
	resp := d.request("GET", path, header)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		d.Fatalf("%s: %s", path, resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	return func() (x told) {
		d.Helper()
		defer time.AfterFunc(patience, func() { resp.Body.Close() }).Stop()
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "event":
				x.event = value
			case "id":
				x.id = value
			case "data":
				x.data = value
			case "":
				if x.event != "" {
					return x
				}
			}
		}
		d.Fatalf("the events end: %v", lines.Err())
		return x
	}
}

// apiTellsWhatComes follows the events from one in the past on, and on to what
// happens now. The entries are of one deployment in dev, newest first.
func (d *daemon) apiTellsWhatComes(entries []string) {
	d.Helper()
	oldest := entries[len(entries)-1]
	next := d.follow("/api/v1/events?environment=dev&service=web", "dev:"+oldest[:16])
	if begin := next(); begin.event != "begin" || begin.id != "dev:"+oldest[:16] || strings.Contains(begin.data, "lost") {
		d.Errorf("it begins with %+v", begin)
	}
	for _, want := range slices.Backward(entries[:len(entries)-1]) {
		if got := next(); got.id != "dev:"+want[:16] || !strings.Contains(got.data, `"entry":"`+want+`"`) {
			d.Errorf("got %+v, want %s", got, want)
		}
	}
	next = d.follow("/api/v1/events?environment=staging", "")
	begin := next()
	late := map[string]any{"environment": "staging", "service": "web", "policy": "e2e", "status": "success", "version": "1.0.0"}
	if status, answer := d.contract("ci").Ask("report", nil, late); status != http.StatusConflict || answer["code"] != "not-current" {
		d.Errorf("a late report: %d %v", status, answer)
	}
	if got := next(); got.event != "check" || !strings.Contains(got.data, `"late":true`) {
		d.Errorf("after %+v comes %+v", begin, got)
	}
	next = d.follow("/api/v1/events?environment=dev", "dev:0000000000000000")
	if first, second := next(), next(); !strings.Contains(second.data, `"lost":true`) {
		d.Errorf("after an entry that there never was: %+v, %+v", first, second)
	}
	if status, answer := d.answer("/api/v1/events?after=now", http.Header{"Authorization": {"Bearer mallory-token"}}); status != http.StatusBadRequest {
		d.Errorf("after no position: %d %v", status, answer)
	}
}

func TestAccessThatMeansNothing(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0", 64)
	for want, text := range map[string]string{
		"api.anonymous is \"write\"":                              "api: {anonymous: write}",
		"unknown key \"anonymus\"; the keys here are anonymous":   "api: {anonymus: read}",
		"api.oidc[0].issuer is not an https URL":                  "api: {oidc: [{issuer: \"http://sso.example\", audience: pinion}]}",
		"api.oidc[0].audience is missing":                         "api: {oidc: [{issuer: \"https://sso.example\"}]}",
		"api.grants[0] names nobody":                              "api: {kubernetes: {}, grants: [{scopes: [read]}]}",
		"api.grants[0] grants nothing":                            "api: {kubernetes: {}, grants: [{groups: [a]}]}",
		"there is no scope \"aprove\"; did you mean \"approve\"?": "tokens: [{principal: a, sha256: " + hash + ", scopes: [aprove]}]",
		"api.grants is for tokens of":                             "api: {grants: [{groups: [a], scopes: [read]}]}",
		"certFile and keyFile belong together":                    "api: {tls: {certFile: a}}",
		"api.limits is negative":                                  "api: {limits: {burst: -1}}",
	} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte("apiVersion: pinion.dev/v1\nkind: Config\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (&globals{config: file}).readConfig(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// apiWrites has commits made by the API, each by whom it is for and where she may.
func (d *daemon) apiWrites(c *devtest.Contract) {
	d.Helper()
	type body = map[string]any
	none := map[string]string{}
	ask := func(who, id string, values map[string]string, b body, want string) map[string]any {
		d.Helper()
		c.Token = who + "-token"
		status, answer := c.Ask(id, values, b)
		got := fmt.Sprint(status)
		if code, ok := answer["code"]; ok {
			got += fmt.Sprint(" ", code)
		}
		if got != want {
			d.Errorf("%s asks for %s %v: got %s %v, want %s", who, id, b, got, answer, want)
		}
		return answer
	}
	inc := map[string]string{"hold": "inc-1"}
	ask("ci", "pin", none, body{"environment": "dev", "artifact": "web", "version": "1.3.0"}, "403 denied")
	ask("devs", "pin", none, body{"environment": "staging", "artifact": "web", "version": "1.3.0"}, "403 denied")
	ask("devs", "pin", none, body{"environment": "dev", "artifact": "wob", "version": "1.3.0"}, "404 unknown-artifact")
	ask("devs", "pin", none, body{"environment": "dev", "artifact": "web"}, "400 invalid")
	ask("devs", "pin", none, body{"environment": "dev", "artifact": "web", "version": "no version"}, "400 invalid")
	ask("devs", "pin", none, body{"environment": "staging!", "artifact": "web", "version": "1.3.0"}, "400 invalid")
	if x := ask("devs", "pin", none, body{"environment": "dev", "artifact": "web", "version": "1.1.0"}, "200"); x["nothing"] == nil {
		d.Errorf("a pin that is there: %v", x)
	}
	if x := ask("devs", "pin", none, body{"environment": "dev", "artifact": "web", "version": "1.3.0", "dryRun": true}, "200"); x["commit"] != nil || x["subject"] != "pin(dev): web 1.1.0 → 1.3.0" {
		d.Errorf("a dry run: %v", x)
	}
	ask("devs", "hold", none, body{"name": "all", "reason": "x"}, "403 denied")
	ask("kim", "hold", none, body{"name": "inc-1"}, "400 invalid")
	ask("kim", "hold", none, body{"name": "inc-1", "environments": []string{"prod"}, "reason": "x"}, "404 unknown-environment")
	held := ask("kim", "hold", none, body{"name": "inc-1", "environments": []string{"production"}, "reason": "INC-1, checkout errors", "until": "2099-01-01T00:00:00Z"}, "200")
	d.git("fetch", "-q", "origin")
	if said := d.git("show", fmt.Sprint(held["commit"])); !strings.Contains(said, "Requested-By: kim <kim@shop.example>") || !strings.Contains(said, "+owner: kim@shop.example") {
		d.Errorf("the hold:\n%s", said)
	}
	ask("kim", "hold", none, body{"name": "inc-1", "reason": "x"}, "409 conflict")
	ask("devs", "hold", none, body{"name": "inc-1", "environments": []string{"dev"}, "reason": "x", "replace": true}, "403 denied")
	ask("devs", "release", inc, body{}, "403 denied")
	c.Token = "mallory-token"
	d.until("the hold is read", func(context.Context) string {
		if status, answer := c.Ask("getHold", inc, nil); status != http.StatusOK {
			return fmt.Sprint(answer)
		}
		return ""
	})
	if x := ask("kim", "promote", none, body{"service": "web", "to": "production"}, "200"); x["nothing"] == nil {
		d.Errorf("a promotion of what is there: %v", x)
	}
	ask("kim", "promote", none, body{"service": "web", "to": "production", "version": "9.9.9"}, "409 refused")
	ask("kim", "rollBack", none, body{"environment": "production", "service": "web", "to": "9.9.9"}, "409 refused")
	back := ask("kim", "rollBack", none, body{"environment": "production", "service": "web", "reason": "checkout errors"}, "200")
	if back["subject"] != "rollback(production): web 1.1.0 → 1.0.0" {
		d.Errorf("the way back: %v", back)
	}
	d.recorded("production", "pinned(production): web 1.1.0 → 1.0.0", "started", "completed", "verified")
	if said := d.git("log", "-4", "--format=%B", "origin/ledger/production"); !strings.Contains(said, "Pinion-Author: kim <kim@shop.example>") || !strings.Contains(said, "Pinion-Cause: rollback") {
		d.Errorf("the ledger does not say who went back:\n%s", said)
	}
	ask("kim", "release", inc, body{"reason": "mended"}, "200")
	ask("kim", "release", inc, body{}, "404 unknown-hold")
	mark := d.mark()
	tip := ask("kim", "reconcile", none, body{"environment": "dev"}, "200")
	d.git("fetch", "-q", "origin")
	if want := d.git("rev-parse", "origin/main"); tip["main"] != want {
		d.Errorf("main is at %v, want %s", tip["main"], want)
	}
	d.line(mark, "objects compared with the cluster")
	d.line(mark, "a look at the repository was asked for\" principal=kim operation=reconcile environment=dev")
	d.line(0, "a request was refused\" principal=devs operation=pin environment=staging artifact=web code=denied")
	mark = d.mark()
	if stdout, stderr, code := d.as("kim", "reconcile", "dev"); code != 0 || stdout != fmt.Sprintf("main is at %s; dev: compared with the cluster now\n", tip["main"]) {
		d.Errorf("pinion reconcile: %d\n%s%s", code, stdout, stderr)
	}
	d.line(mark, "objects compared with the cluster")
	c.Fuzz(2, 300, []string{"web", "dev", "1.1.0", "1.0.0", "inc-2", "x"})
}
