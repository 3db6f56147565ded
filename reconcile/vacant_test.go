package reconcile

import (
	"testing"
	"time"

	"github.com/pinion-cd/pinion/reconcile/cluster"
)

func TestVacant(t *testing.T) {
	began := func(agos ...time.Duration) map[*unit]time.Time {
		m := map[*unit]time.Time{}
		for _, ago := range agos {
			m[new(unit)] = noon.Add(-ago)
		}
		return m
	}
	const long = time.Minute
	for _, test := range []struct {
		name    string
		running map[*unit]time.Time
		room    int
		again   time.Duration // from noon; 0: when one ends
	}{
		{"none runs", began(), 2, 0},
		{"there is room", began(0), 1, 0},
		{"full", began(0, time.Second), 0, cluster.Slow - time.Second},
		{"one takes long", began(long, 0), 1, 0},
		{"all take long", began(long, long, cluster.Slow), 2, 0},
		{"too many take long", began(long, long, long, long, long, long, long, 0), 0, 0},
	} {
		room, again := vacant(noon, test.running, 2)
		want := time.Time{}
		if test.again > 0 {
			want = noon.Add(test.again)
		}
		if room != test.room || !again.Equal(want) {
			t.Errorf("%s: room %d, again %s; want %d, %s", test.name, room, again, test.room, want)
		}
	}
}
