package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/policy"
)

// prometheus asks a query until its value has been as expected for long enough.
//
// With For, the query is evaluated at fixed moments, and none is left out: what
// the server could not be asked at its moment it is asked for that moment when
// it answers again. So a break of the connection neither hides a bad value nor
// begins the time anew.
func (r *Runner) prometheus(ctx context.Context, q Request, say func(string)) (Result, error) {
	p := q.Policy.Prometheus
	target, err := address(p.URL, q)
	if err != nil {
		return failed("%v", err), nil
	}
	expect, err := policy.CompilePrometheus(p.Expect)
	if err != nil {
		return failed("%s: expect: %v", q.Policy.Expression, err), nil
	}
	query := desired.Expand(p.Query, q.Environment, q.Service)
	limited, within, cancel := q.bounded(ctx, p.For+boundPrometheus)
	defer cancel()
	decided := func(result Result) (Result, error) {
		result.URL = outbound.Show(target)
		return result, nil
	}
	pace := r.pace(q)
	span := span{length: p.For, step: min(max(p.For/10, r.interval/2), pace.most()), next: time.Now()}
	last := ""
	for {
		v, err := r.query(limited, target, query, span.next)
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		var wrong *queryError
		pause := pace.next()
		switch {
		case errors.As(err, &wrong), outbound.Forbidden(err) != nil:
			return decided(failed("Prometheus at %s: %v", outbound.Show(target), err))
		case err != nil && limited.Err() != nil:
			if last == "" { // else it was cut short
				last = "no answer"
			}
		case err != nil:
			last = err.Error()
			span.missed(time.Now())
		default:
			good := false
			good, last = judge(expect, p.Expect, v)
			if span.saw(good) {
				if p.For > 0 {
					last += " for " + words(p.For)
				}
				return decided(passed("%s", last))
			}
			if good {
				last += fmt.Sprintf(" for %s of %s", words(span.held().Round(time.Second)), words(p.For))
			}
			if p.For > 0 {
				pace.n = 0
				pause = time.Until(span.next)
			}
		}
		say(fmt.Sprintf("Prometheus at %s: %s", outbound.Show(target), last))
		if !wait(limited, pause) {
			break
		}
		if p.For == 0 {
			span.next = time.Now()
		}
	}
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	return decided(failed("%s; not as expected within %s", last, within))
}

// span tells whether something held for some time without a break, from what
// was seen at moments that follow each other.
type span struct {
	length, step time.Duration
	next         time.Time // the moment to look at
	since        time.Time // it has held since then; zero: it did not at the last moment
	last         time.Time
}

// saw takes in how it was at the next moment, and tells whether it has held for
// long enough.
func (s *span) saw(good bool) bool {
	s.last = s.next
	s.next = s.last.Add(s.step)
	switch {
	case !good:
		s.since = time.Time{}
		return false
	case s.since.IsZero():
		s.since = s.last
	}
	if end := s.since.Add(s.length); s.next.After(end) {
		s.next = end
	}
	return s.held() >= s.length
}

// held is for how long it has held.
func (s *span) held() time.Duration {
	if s.since.IsZero() {
		return 0
	}
	return s.last.Sub(s.since)
}

// missed takes in that nothing was seen until now. What is further back than
// the length is of no use any more.
func (s *span) missed(now time.Time) {
	if first := now.Add(-s.length); s.next.Before(first) {
		s.next, s.since = first, time.Time{}
	}
}

// sample is what a query gave at a moment.
type sample struct {
	value float64
	none  string // why there is no value
}

// judge tells whether a sample is as expected, in words.
func judge(expect *policy.Expression, source string, v sample) (bool, string) {
	if v.none == "" && math.IsNaN(v.value) {
		// Some comparisons with it are true: value != 0.0.
		v.none = "the value is NaN, as of a division of nothing by nothing"
	}
	if v.none != "" {
		return false, fmt.Sprintf("%s, wanted %s", v.none, source)
	}
	number := strconv.FormatFloat(v.value, 'g', 6, 64)
	good, err := expect.Eval(policy.PrometheusVariables(v.value))
	switch {
	case err != nil:
		return false, fmt.Sprintf("the value is %s, wanted %s (%v)", number, source, err)
	case !good:
		return false, fmt.Sprintf("the value is %s, wanted %s", number, source)
	}
	return true, fmt.Sprintf("the value is %s, as expected: %s", number, source)
}

// queryError is a query that will never give a value.
type queryError struct{ message string }

func (e *queryError) Error() string { return e.message }

// query evaluates a query at a moment (Prometheus' HTTP API, "Instant queries").
// An error that is no queryError says that nothing could be found out.
func (r *Runner) query(ctx context.Context, target *url.URL, query string, at time.Time) (sample, error) {
	u := target.JoinPath("api", "v1", "query")
	values := u.Query()
	values.Set("query", query)
	values.Set("time", strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64))
	u.RawQuery = values.Encode()
	a, err := r.fetch(ctx, u)
	if err != nil {
		return sample{}, err
	}
	if a.cut {
		return sample{}, fmt.Errorf("the answer is larger than %d MiB; aggregate the query", maxBody>>20)
	}
	return readSample(a)
}

func readSample(a *answer) (sample, error) {
	var reply struct {
		Status, ErrorType, Error string
		Data                     struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.Unmarshal(a.body, &reply); err != nil || reply.Status == "" {
		return sample{}, fmt.Errorf("it answers %d and not as Prometheus does; is the url right?", a.status)
	}
	if reply.Status != "success" {
		switch {
		case reply.ErrorType == "bad_data":
			return sample{}, &queryError{reply.Error}
		case a.status == http.StatusUnprocessableEntity: // at this moment the query can't be evaluated
			return sample{none: "the query fails: " + reply.Error}, nil
		}
		return sample{}, fmt.Errorf("it answers %d: %s", a.status, reply.Error)
	}
	strange := func() (sample, error) {
		return sample{}, fmt.Errorf("its answer of type %q can't be read", reply.Data.ResultType)
	}
	var point []any
	switch reply.Data.ResultType {
	case "scalar":
		if json.Unmarshal(reply.Data.Result, &point) != nil {
			return strange()
		}
	case "vector":
		var series []struct{ Value, Histogram []any }
		if json.Unmarshal(reply.Data.Result, &series) != nil {
			return strange()
		}
		switch {
		case len(series) == 0:
			return sample{none: "no data"}, nil
		case len(series) > 1:
			return sample{none: fmt.Sprintf("the query gives %d series; aggregate it, as with sum(…)", len(series))}, nil
		case series[0].Histogram != nil:
			return sample{none: "the query gives a histogram; take a number from it, as with histogram_quantile(…)"}, nil
		}
		point = series[0].Value
	case "matrix":
		return sample{}, &queryError{"the query gives a range of values; make one of them, as with avg_over_time(…)"}
	case "string":
		return sample{}, &queryError{"the query gives a string, not a number"}
	default:
		return strange()
	}
	if len(point) == 2 {
		if text, ok := point[1].(string); ok {
			if v, err := strconv.ParseFloat(text, 64); err == nil {
				return sample{value: v}, nil
			}
		}
	}
	return strange()
}
