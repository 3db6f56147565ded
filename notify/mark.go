package notify

import (
	"fmt"
	"strings"
	"time"
)

// Mark names a place in what is to be told of the main branch: behind a commit,
// and behind the ends of its holds up to a time. The zero time: behind none.
func Mark(commit string, ended time.Time) string {
	if ended.IsZero() {
		return commit
	}
	return commit + "@" + ended.UTC().Format(time.RFC3339Nano)
}

// ParseMark takes a mark apart.
func ParseMark(s string) (commit string, ended time.Time, err error) {
	commit, at, is := strings.Cut(s, "@")
	if is {
		ended, err = time.Parse(time.RFC3339Nano, at)
	}
	if err != nil || commit != "" && !isCommit(commit) || is && commit == "" {
		return "", time.Time{}, fmt.Errorf("%.80q is not a place in a branch", s)
	}
	return commit, ended, nil
}
