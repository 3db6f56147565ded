package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spans is a collector of traces, over OTLP/HTTP.
type spans struct {
	url string

	mu  sync.Mutex
	all []*otlp.Span
}

func collectSpans(t *testing.T) *spans {
	c := &spans{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var q collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &q) != nil {
			t.Errorf("%s %s is no export of traces", r.Method, r.URL)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, rs := range q.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				c.all = append(c.all, ss.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
		w.Write(answer)
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// parts returns the names of the spans of a deployment's trace, sorted.
func (c *spans) parts(t *testing.T, environment, version string, failed bool) []string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var whole *otlp.Span
	for _, s := range c.all {
		values := map[string]string{}
		for _, a := range s.Attributes {
			values[a.Key] = a.Value.GetStringValue()
		}
		if len(s.ParentSpanId) == 0 && values["pinion.environment"] == environment && values["pinion.version"] == version &&
			(s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR) == failed {
			whole = s
		}
	}
	if whole == nil {
		t.Errorf("there is no trace of %s in %s", version, environment)
		return nil
	}
	var names []string
	for _, s := range c.all {
		if string(s.TraceId) != string(whole.TraceId) {
			continue
		}
		names = append(names, s.Name)
		if s != whole && string(s.ParentSpanId) != string(whole.SpanId) {
			t.Errorf("%s hangs on another span than the whole", s.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestTracingIsWanted(t *testing.T) {
	for env, want := range map[string]bool{
		"": false,
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318":                                true,
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:4318/v1/traces":               true,
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318 OTEL_SDK_DISABLED=true":         false,
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318 OTEL_TRACES_EXPORTER=none":      false,
		"OTEL_TRACES_EXPORTER=otlp":                                                true,
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://c OTEL_SERVICE_NAME=pinion-eu": false,
	} {
		values := map[string]string{}
		for pair := range strings.FieldsSeq(env) {
			k, v, _ := strings.Cut(pair, "=")
			values[k] = v
		}
		if got := tracingWanted(func(k string) string { return values[k] }); got != want {
			t.Errorf("%q: %v", env, got)
		}
	}
}
