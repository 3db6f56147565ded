package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/policy"
)

const maxBody = 1 << 20

// answer is what an address answered.
type answer struct {
	status    int
	headers   map[string]string // by names in lower case
	body      []byte
	cut       bool   // the body was longer
	elsewhere string // the other host that it redirects to
}

// fetch asks an address once.
func (r *Runner) fetch(ctx context.Context, target *url.URL) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, errors.New("the address can't be used")
	}
	request.Header.Set("User-Agent", "pinion")
	request.Header.Set("Accept", "application/json, */*;q=0.5")
	response, err := r.client.Do(request)
	if err != nil {
		return nil, outbound.Cause(err)
	}
	defer response.Body.Close()
	a := &answer{status: response.StatusCode, headers: make(map[string]string, len(response.Header))}
	for name, values := range response.Header {
		a.headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	if to, err := response.Location(); err == nil && response.StatusCode/100 == 3 {
		a.elsewhere = outbound.Show(to)
	}
	a.body, err = io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, outbound.Cause(err)
	}
	if len(a.body) > maxBody {
		a.body, a.cut = a.body[:maxBody], true
	}
	return a, nil
}

// address parses an address of a policy.
func address(text string, q Request) (*url.URL, error) {
	u, err := url.Parse(desired.Expand(text, q.Environment, q.Service))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fmt.Errorf("%s: the url is not http://HOST/PATH or https://HOST/PATH", q.Policy.File)
	}
	return u, nil
}

// http asks an address until it answers as expected.
func (r *Runner) http(ctx context.Context, q Request, say func(string)) (Result, error) {
	target, err := address(q.Policy.HTTP.URL, q)
	if err != nil {
		return failed("%v", err), nil
	}
	expect, err := policy.CompileHTTP(q.Policy.HTTP.Expect)
	if err != nil {
		return failed("%s: expect: %v", q.Policy.Expression, err), nil
	}
	where := "GET " + outbound.Show(target)
	limited, within, cancel := q.bounded(ctx, boundHTTP)
	defer cancel()
	pace := r.pace(q)
	last := ""
	for {
		a, err := r.fetch(limited, target)
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		forbidden := outbound.Forbidden(err)
		switch {
		case forbidden != nil:
			result := failed("%s: %v", where, forbidden)
			result.URL = outbound.Show(target)
			return result, nil
		case err != nil && limited.Err() != nil:
			if last == "" { // else it was cut short
				last = "no answer"
			}
		case err != nil:
			last = err.Error()
		default:
			met, err := expect.Eval(policy.HTTPVariables(a.status, a.headers, a.body))
			if met && err == nil {
				result := passed("%s: %d, as expected: %s", where, a.status, q.Policy.HTTP.Expect)
				result.URL = outbound.Show(target)
				return result, nil
			}
			last = fmt.Sprintf("%d, wanted %s", a.status, q.Policy.HTTP.Expect)
			if err != nil {
				last += fmt.Sprintf(" (%v)", err)
			}
			if a.cut {
				last += fmt.Sprintf("; of the body only the first %d MiB were read", maxBody>>20)
			}
			if a.elsewhere != "" {
				last += "; it redirects to " + a.elsewhere + ", and another host is not followed"
			}
		}
		say(where + ": " + last)
		if !wait(limited, pace.next()) {
			break
		}
	}
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	result := failed("%s: %s; not as expected within %s", where, last, within)
	result.URL = outbound.Show(target)
	return result, nil
}
