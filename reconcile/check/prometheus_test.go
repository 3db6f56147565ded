package check

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
)

func querying(url, query, expect string, held time.Duration) Request {
	q := asking("", "")
	q.Policy.Check, q.Policy.HTTP = desired.CheckPrometheus, nil
	q.Policy.Prometheus = &desired.Prometheus{URL: url, Query: query, Expect: expect, For: held}
	return q
}

func TestPrometheus(t *testing.T) {
	t.Parallel()
	p := devtest.Prometheus(t)
	p.Set("errors", map[string]string{"service": "web", "pod": "a"}, 0.002)
	p.Set("errors", map[string]string{"service": "web", "pod": "b"}, 0.004)
	for _, test := range []struct {
		name, query, expect string
		held                time.Duration
		want                ledger.Result
		words               []string
	}{
		{"a vector", `sum(errors{service="{service}"})`, "value < 0.01", 0, ledger.Success, []string{"the value is 0.006, as expected: value < 0.01"}},
		{"a scalar", `scalar(max(errors))`, "value == 0.004", 0, ledger.Success, []string{"0.004"}},
		{"for some time", `max(errors)`, "value < 0.01", 500 * time.Millisecond, ledger.Success, []string{"as expected: value < 0.01 for 500ms"}},
		{"too high", `max(errors)`, "value < 0.001", 0, ledger.Failure, []string{"the value is 0.004, wanted value < 0.001; not as expected within "}},
		{"too high for some time", `max(errors)`, "value < 0.001", time.Millisecond, ledger.Failure, []string{"the value is 0.004, wanted value < 0.001"}},
		{"several series", `errors`, "value < 0.01", 0, ledger.Failure, []string{"the query gives 2 series; aggregate it"}},
		{"no data", `nothing_of_the_kind`, "value < 0.01", 0, ledger.Failure, []string{"no data, wanted value < 0.01"}},
		{"NaN", `vector(0) / 0`, "value < 0.01", 0, ledger.Failure, []string{"the value is NaN"}},
		{"NaN that is not unequal", `vector(0) / 0`, "value != 0.0", 0, ledger.Failure, []string{"the value is NaN"}},
		{"infinite", `vector(1) / 0`, "value > 1.0", 0, ledger.Success, []string{"the value is +Inf"}},
		{"many to many", `errors / on() errors`, "value > 1.0", 0, ledger.Failure, []string{"the query fails: ", "wanted value > 1.0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := querying(p.URL, test.query, test.expect, test.held)
			if test.want == ledger.Failure {
				failing(t, quick(), q, test.words...)
				return
			}
			result, _ := run(t, quick(), q)
			expect(t, result, test.want, test.words...)
			if result.URL != p.URL {
				t.Errorf("the URL is %s", result.URL)
			}
		})
	}
	for _, test := range []struct{ name, query, expect, words string }{
		{"a query that is none", `sum(errors`, "value < 0.01", "Prometheus at " + p.URL + ": invalid parameter \"query\""},
		{"a range", `errors[5m]`, "value < 0.01", "the query gives a range of values"},
		{"a string", `"errors"`, "value < 0.01", "the query gives a string"},
		{"an expression that does not compile", `errors`, "valeu < 0.01", "policies/smoke.yaml:3:8: expect: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, said := run(t, quick(), querying(p.URL, test.query, test.expect, time.Hour))
			expect(t, result, ledger.Failure, test.words)
			if len(said) != 0 {
				t.Errorf("it waited for %q", said)
			}
		})
	}
}

// A break begins the time anew.
func TestPrometheusBreak(t *testing.T) {
	t.Parallel()
	p := devtest.Prometheus(t)
	p.Set("errors", nil, 0)
	const held = 3 * time.Second
	s := &stand{T: t}
	a := s.start(quick(), querying(p.URL, "errors", "value < 0.01", held))
	a.until("as expected: value < 0.01 for ")
	p.Set("errors", nil, 1)
	a.until("the value is 1, wanted value < 0.01")
	p.Remove("errors", nil)
	a.until("no data")
	good := time.Now()
	p.Set("errors", nil, 0)
	expect(t, a.end(), ledger.Success, "the value is 0, as expected: value < 0.01 for 3s")
	if took := time.Since(good); took < held {
		t.Errorf("it held for %s only", took)
	}
}

// What Prometheus could not be asked is asked when it answers again.
func TestPrometheusOutage(t *testing.T) {
	t.Parallel()
	p := devtest.Prometheus(t)
	p.Set("errors", nil, 0)
	target, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	var down atomic.Int64 // until then
	var mu sync.Mutex
	var moments []time.Time // guarded by mu; that were answered
	before := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if time.Now().UnixNano() < down.Load() {
			http.Error(w, "no backend", http.StatusBadGateway)
			return
		}
		seconds, err := strconv.ParseFloat(r.URL.Query().Get("time"), 64)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		moments = append(moments, time.UnixMilli(int64(seconds*1000)))
		mu.Unlock()
		before.ServeHTTP(w, r)
	})
	const held = 2 * time.Second // a look each 200 ms
	s := &stand{T: t}
	a := s.start(quick(), querying(at, "errors", "value < 0.01", held))
	a.until("as expected: value < 0.01 for ")
	down.Store(time.Now().Add(held / 2).UnixNano())
	a.until("it answers 502 and not as Prometheus does")
	expect(t, a.end(), ledger.Success)
	mu.Lock()
	defer mu.Unlock()
	if span := moments[len(moments)-1].Sub(moments[0]); span > held+held/2 {
		t.Errorf("the time began anew: it took %s", span)
	}
	for i := 1; i < len(moments); i++ {
		if gap := moments[i].Sub(moments[i-1]); gap > held/10+2*time.Millisecond {
			t.Errorf("between %s and %s nothing was asked", moments[i-1], moments[i])
		}
	}
}

func TestSpan(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const step = 10 * time.Second
	for _, test := range []struct {
		name   string
		length time.Duration
		seen   string // + as expected, - not; 1…9 minutes of silence
		moment []time.Duration
		done   bool
	}{
		{"once", 0, "+", []time.Duration{0}, true},
		{"not at all", 0, "--", []time.Duration{0, 10}, false},
		{"held", 30 * time.Second, "++++", []time.Duration{0, 10, 20, 30}, true},
		{"not yet", 30 * time.Second, "+++", []time.Duration{0, 10, 20}, false},
		{"no multiple of the step", 25 * time.Second, "++++", []time.Duration{0, 10, 20, 25}, true},
		{"a break", 20 * time.Second, "++-++", []time.Duration{0, 10, 20, 30, 40}, false},
		{"after a break", 20 * time.Second, "-+-+++", []time.Duration{0, 10, 20, 30, 40, 50}, true},
		{"a short silence", 2 * time.Minute, "++1+", []time.Duration{0, 10, 20}, false},
		{"a silence that is too long", 2 * time.Minute, "++9++", []time.Duration{0, 10, 10 + 540 - 120, 10 + 540 - 110}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := span{length: test.length, step: step, next: start}
			now, done := start, false
			var moments []time.Duration
			for _, c := range test.seen {
				if c != '+' && c != '-' {
					now = now.Add(time.Duration(c-'0') * time.Minute)
					s.missed(now)
					continue
				}
				if done {
					t.Fatal("it has held long before")
				}
				now = s.next
				moments = append(moments, now.Sub(start)/time.Second)
				done = s.saw(c == '+')
			}
			if done != test.done || !slices.Equal(moments, test.moment) {
				t.Errorf("done %v at %v, want %v at %v", done, moments, test.done, test.moment)
			}
		})
	}
}

func TestAnswersOfPrometheus(t *testing.T) {
	for _, test := range []struct {
		status     int
		body       string
		value      float64
		none, fail string
	}{
		{200, `{"status":"success","data":{"resultType":"scalar","result":[1,"2.5"]}}`, 2.5, "", ""},
		{200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.5,"-Inf"]}]}}`, 0, "", ""},
		{200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"1"}]}]}}`, 0, "the query gives a histogram", ""},
		{200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}`, 0, "", `of type "vector" can't be read`},
		{200, `{"status":"success","data":{"resultType":"vector","result":[{"value":[1,2]}]}}`, 0, "", `of type "vector" can't be read`},
		{200, `{"status":"success","data":{"resultType":"scalar","result":{}}}`, 0, "", `of type "scalar" can't be read`},
		{200, `{"status":"success","data":{"resultType":"dream","result":[]}}`, 0, "", `of type "dream" can't be read`},
		{200, `{"status":"success"}`, 0, "", `can't be read`},
		{200, `<html>`, 0, "", "it answers 200 and not as Prometheus does; is the url right?"},
		{404, `{}`, 0, "", "it answers 404 and not as Prometheus does"},
		{503, `{"status":"error","errorType":"timeout","error":"query timed out"}`, 0, "", "it answers 503: query timed out"},
		{422, `{"status":"error","errorType":"execution","error":"too many samples"}`, 0, "the query fails: too many samples", ""},
	} {
		s, err := readSample(&answer{status: test.status, body: []byte(test.body)})
		fail := ""
		if err != nil {
			fail = err.Error()
		}
		if !strings.HasPrefix(s.none, test.none) || test.none == "" && s.none != "" || !strings.Contains(fail, test.fail) || test.fail == "" && fail != "" || test.value != 0 && s.value != test.value {
			t.Errorf("%s: %+v, %q", test.body, s, fail)
		}
	}
}
