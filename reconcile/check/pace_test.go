package check

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

func TestPauses(t *testing.T) {
	r := New(nil, Options{})
	q := Request{Environment: &desired.Environment{Name: "dev"}, Service: "web", Policy: &desired.Policy{Name: "smoke"}, Deployment: "web-1"}
	a, b := r.pace(q), r.pace(q)
	q.Deployment = "web-2"
	other := r.pace(q)
	differs := false
	for i, want := range []time.Duration{2, 4, 8, 16, 30, 30, 30} {
		want *= time.Second
		got := a.next()
		if got < want*9/10 || got > want*11/10 {
			t.Errorf("pause %d is %s, want about %s", i, got, want)
		}
		if again := b.next(); again != got {
			t.Errorf("pause %d is %s, and then %s for the same check", i, got, again)
		}
		differs = differs || other.next() != got
	}
	if !differs {
		t.Error("two checks keep step")
	}
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := Request{Policy: &desired.Policy{}}
		for _, test := range []struct {
			name      string
			deadline  time.Duration
			timeout   time.Duration
			otherwise time.Duration
			want      time.Duration // 0: never
			words     string
		}{
			{"the policy's timeout", time.Hour, 2 * time.Hour, time.Minute, time.Hour, "its timeout of 2h"},
			{"a deadline", time.Hour, 0, time.Minute, time.Hour, "its time, until 2000-01-01T01:00:00Z"},
			{"no timeout", 0, 0, 5 * time.Minute, 5 * time.Minute, "5m (the policy has no timeout)"},
			{"a Job without one", 0, 0, 0, 0, ""},
		} {
			q.Deadline, q.Policy.Timeout = time.Time{}, test.timeout
			if test.deadline > 0 {
				q.Deadline = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(test.deadline)
			}
			ctx, within, cancel := q.bounded(t.Context(), test.otherwise)
			end, ok := ctx.Deadline()
			if ok != (test.want > 0) || ok && time.Until(end) != test.want || within != test.words {
				t.Errorf("%s: %s %v, %q", test.name, time.Until(end), ok, within)
			}
			cancel()
			if wait(ctx, time.Hour) {
				t.Errorf("%s: waited after its end", test.name)
			}
		}
	})
}

func TestDurationsInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		2 * time.Hour: "2h", 90 * time.Minute: "1h30m", 5 * time.Minute: "5m", 10 * time.Second: "10s",
		time.Hour + time.Second: "1h0m1s", 0: "0s", 300 * time.Millisecond: "300ms", 100 * time.Hour: "100h",
	} {
		if got := words(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}
