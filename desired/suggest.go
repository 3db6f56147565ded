package desired

import "unicode/utf8"

// nearest returns the candidate that a misspelt name most probably means, or
// "" if none is near. Of several it takes the first.
func nearest(name string, candidates []string) string {
	limit := max(1, utf8.RuneCountInString(name)/3)
	best := ""
	for _, c := range candidates {
		if d := distance(name, c, limit); d <= limit && c != name {
			best, limit = c, d-1
			if limit <= 0 {
				break
			}
		}
	}
	return best
}

// distance is the number of characters to insert, remove, replace or swap with
// the next one (the optimal string alignment distance), or limit+1 if it is more.
func distance(a, b string, limit int) int {
	x, y := []rune(a), []rune(b)
	if max(len(x)-len(y), len(y)-len(x)) > limit || len(x) > 64 || len(y) > 64 {
		return limit + 1
	}
	var rows [3][65]int
	before, last, this := &rows[0], &rows[1], &rows[2]
	for j := range y {
		last[j+1] = j + 1
	}
	for i := range x {
		this[0] = i + 1
		least := this[0]
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			d := min(last[j]+cost, last[j+1]+1, this[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				d = min(d, before[j-1]+1)
			}
			this[j+1] = d
			least = min(least, d)
		}
		if least > limit {
			return limit + 1
		}
		before, last, this = last, this, before
	}
	return min(last[len(y)], limit+1)
}
