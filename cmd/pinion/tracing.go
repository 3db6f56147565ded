package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	about "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/trace"
)

// tracer sends the spans of deployments to a collector.
type tracer struct {
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
	events   chan reconcile.Event
	closed   chan struct{}
	done     chan struct{}
}

// waitingEvents is how many events may wait to be traced. Tracing never holds
// up the daemon: more are left out.
const waitingEvents = 4096

// newTracer returns a tracer if the OTEL_* variables of the environment name a
// collector, else nil.
func newTracer(ctx context.Context, repository string) (*tracer, error) {
	if !tracingWanted(os.Getenv) {
		return nil, nil
	}
	if p := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") + os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"); strings.Contains(p, "grpc") {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %s; traces are sent as http/protobuf only: set that, and the collector's port for it (4318 as a rule)", p)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("send traces: %w; see the OTEL_EXPORTER_OTLP_* variables", err)
	}
	us, err := about.New(ctx, about.WithAttributes(semconv.ServiceName("pinion"), semconv.ServiceVersion(version)),
		about.WithTelemetrySDK(), about.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("send traces: %w; see OTEL_RESOURCE_ATTRIBUTES", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(us), sdktrace.WithIDGenerator(givenIDs{}))
	t := &tracer{provider: provider, tracer: provider.Tracer("github.com/pinion-cd/pinion"), events: make(chan reconcile.Event, waitingEvents), closed: make(chan struct{}), done: make(chan struct{})}
	go t.run(trace.NewFollower(repository))
	return t, nil
}

func (t *tracer) run(f *trace.Follower) {
	defer close(t.done)
	closed := t.closed
	for {
		select {
		case ev := <-t.events:
			for _, s := range f.Take(ev) {
				t.send(s)
			}
			continue
		case <-closed:
			closed = nil // what waits is taken first
		}
		if len(t.events) == 0 {
			return
		}
	}
}

// tracingWanted reads the variables of the OpenTelemetry specification that say
// whether there are traces at all.
func tracingWanted(env func(string) string) bool {
	switch {
	case strings.EqualFold(env("OTEL_SDK_DISABLED"), "true"):
		return false
	case env("OTEL_TRACES_EXPORTER") != "":
		return env("OTEL_TRACES_EXPORTER") == "otlp"
	}
	return env("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// take takes in an event; it never waits.
func (t *tracer) take(ev reconcile.Event) {
	if t == nil {
		return
	}
	select {
	case t.events <- ev:
	default:
	}
}

// close sends what waits, for as long as ctx allows.
func (t *tracer) close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	close(t.closed)
	<-t.done
	return t.provider.Shutdown(ctx)
}

// send hands a span that is over to the exporter.
func (t *tracer) send(s trace.Span) {
	ctx := context.WithValue(context.Background(), idsKey{}, s)
	if s.Parent != [8]byte{} {
		ctx = oteltrace.ContextWithSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
			TraceID: s.Trace, SpanID: s.Parent, TraceFlags: oteltrace.FlagsSampled,
		}))
	}
	_, span := t.tracer.Start(ctx, s.Name, oteltrace.WithTimestamp(s.Start))
	for _, a := range s.Attributes {
		span.SetAttributes(attribute.String(a.Name, a.Value))
	}
	if s.Failure != "" {
		span.SetStatus(codes.Error, s.Failure)
	}
	span.End(oteltrace.WithTimestamp(s.End))
}

// givenIDs has each span get the ids that it has already.
type givenIDs struct{}

type idsKey struct{}

// NewIDs implements sdktrace.IDGenerator.
func (givenIDs) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	s := ctx.Value(idsKey{}).(trace.Span)
	return s.Trace, s.ID
}

// NewSpanID implements sdktrace.IDGenerator.
func (givenIDs) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	return ctx.Value(idsKey{}).(trace.Span).ID
}
