package reconcile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile"
)

func TestParseShard(t *testing.T) {
	for _, c := range []struct{ text, host, want, fault string }{
		{"0/3", "", "0/3", ""},
		{"2/3", "pinion-0", "2/3", ""},
		{"auto/3", "pinion-1", "1/3", ""},
		{"auto/12", "a-10", "10/12", ""},
		{"3/3", "", "", "there is no number 3; of 3 shards the first is 0 and the last 2"},
		{"auto/3", "pinion-3", "", "there is no number 3"},
		{"auto/3", "laptop", "", `the host's name is "laptop"`},
		{"-1/3", "", "", "there is no number -1"},
		{"1", "", "", "write NUMBER/COUNT"},
		{"1/0", "", "", "write NUMBER/COUNT"},
		{"", "", "", "write NUMBER/COUNT"},
	} {
		got, err := reconcile.ParseShard(c.text, c.host)
		switch {
		case c.fault == "" && (err != nil || got.String() != c.want):
			t.Errorf("%q on %q: %v, %v; want %s", c.text, c.host, got, err, c.want)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%q on %q: %v; want an error that says %q", c.text, c.host, err, c.fault)
		}
	}
}

// Each environment is part of exactly one shard; with one shard more, only what
// the new one gets moves; and none is left with nothing among a hundred.
func TestShardsPartTheEnvironments(t *testing.T) {
	var envs []desired.EnvironmentName
	for i := range 300 {
		envs = append(envs, desired.EnvironmentName(fmt.Sprintf("env-%d", i)))
	}
	for count := 1; count <= 8; count++ {
		sizes := make([]int, count)
		for _, env := range envs {
			owners := 0
			for i := range count {
				if (reconcile.Shard{Index: i, Count: count}).Wants(env) {
					owners++
				}
			}
			if owners != 1 {
				t.Errorf("%s is part of %d of %d shards", env, owners, count)
			}
			now := reconcile.ShardOf(env, count)
			sizes[now]++
			if next := reconcile.ShardOf(env, count+1); next != now && next != count {
				t.Errorf("%s moves from shard %d to %d when shard %d comes", env, now, next, count)
			}
		}
		for i, n := range sizes {
			if n < len(envs)/count/2 {
				t.Errorf("shard %d of %d has %d of %d environments", i, count, n, len(envs))
			}
		}
	}
	if !(reconcile.Shard{}).Wants("any") {
		t.Error("without shards an environment is nobody's")
	}
}
