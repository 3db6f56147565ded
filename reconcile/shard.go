package reconcile

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// Shard is one of several parts of the environments; the zero Shard is all of
// them. It says which environments a replica wants, not which it has: that is
// for the leases to say, so that two replicas that count differently while
// their number changes never have the same one.
type Shard struct {
	Index, Count int
}

// mostShards bounds how many there can be.
const mostShards = 1000

var ordinal = regexp.MustCompile(`-([0-9]+)$`)

// ParseShard reads "1/3"; of "auto/3" the number is the one at the end of the
// host's name, as a StatefulSet numbers its pods.
func ParseShard(s, host string) (Shard, error) {
	index, count, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 1 || n > mostShards {
		return Shard{}, fmt.Errorf("shard %q: write NUMBER/COUNT, such as 0/3 for the first of three, or auto/3 in a StatefulSet", s)
	}
	if index == "auto" {
		m := ordinal.FindStringSubmatch(host)
		if m == nil {
			return Shard{}, fmt.Errorf("shard %q: the host's name is %q, which does not end with a number as in pinion-0; run it in a StatefulSet, or write the number", s, host)
		}
		index = m[1]
	}
	i, err := strconv.Atoi(index)
	if err != nil || i < 0 || i >= n {
		return Shard{}, fmt.Errorf("shard %q: there is no number %s; of %d shards the first is 0 and the last %d", s, index, n, n-1)
	}
	return Shard{i, n}, nil
}

// String writes a shard as ParseShard reads it.
func (s Shard) String() string { return fmt.Sprintf("%d/%d", s.Index, s.Count) }

// Wants tells whether an environment is part of the shard.
func (s Shard) Wants(env desired.EnvironmentName) bool {
	return s.Count == 0 || ShardOf(env, s.Count) == s.Index
}

// ShardOf returns the shard that an environment is part of: the one whose
// number together with the name has the highest hash. So with one shard more,
// only those environments move that the new one gets.
func ShardOf(env desired.EnvironmentName, count int) int {
	best, highest := 0, []byte(nil)
	for i := range count {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", i, env))
		if bytes.Compare(sum[:], highest) > 0 {
			best, highest = i, sum[:]
		}
	}
	return best
}
