package desired

import (
	"slices"
	"strings"
)

// cycle is a set of nodes of which each is reached from each other.
type cycle struct {
	members []string // sorted
	path    []string // a shortest way round, from the first member; its end is its beginning and is left out
}

func (c cycle) String() string {
	const most = 12
	path := c.path
	if len(path) > most {
		path = append(slices.Clone(path[:most]), "…")
	}
	return strings.Join(append(slices.Clone(path), c.path[0]), " → ")
}

// cycles returns the cycles of a graph, by Tarjan's algorithm for strongly
// connected components: linear in nodes and edges. It keeps a stack of its
// own, for a chain may be as long as a file has room for.
func cycles(nodes []string, edges map[string][]string) []cycle {
	type frame struct {
		node string
		next int
	}
	index := make(map[string]int, len(nodes))
	low := make(map[string]int, len(nodes))
	onStack := make(map[string]bool)
	var stack []string
	var found []cycle
	for _, root := range nodes {
		if index[root] > 0 {
			continue
		}
		work := []frame{{node: root}}
		for len(work) > 0 {
			f := &work[len(work)-1]
			n := f.node
			if f.next == 0 {
				index[n] = len(index) + 1
				low[n] = index[n]
				stack = append(stack, n)
				onStack[n] = true
			}
			if f.next < len(edges[n]) {
				m := edges[n][f.next]
				f.next++
				if index[m] == 0 {
					work = append(work, frame{node: m})
				} else if onStack[m] {
					low[n] = min(low[n], index[m])
				}
				continue
			}
			work = work[:len(work)-1]
			if len(work) > 0 {
				parent := work[len(work)-1].node
				low[parent] = min(low[parent], low[n])
			}
			if low[n] != index[n] {
				continue
			}
			i := len(stack) - 1 // it is near the top
			for stack[i] != n {
				i--
			}
			members := slices.Clone(stack[i:])
			stack = stack[:i]
			for _, m := range members {
				onStack[m] = false
			}
			if len(members) > 1 || slices.Contains(edges[n], n) {
				slices.Sort(members)
				found = append(found, cycle{members, wayRound(members, edges)})
			}
		}
	}
	slices.SortFunc(found, func(a, b cycle) int { return strings.Compare(a.members[0], b.members[0]) })
	return found
}

// wayRound returns a shortest way from the first member back to itself.
func wayRound(members []string, edges map[string][]string) []string {
	start := members[0]
	in := make(map[string]bool, len(members))
	for _, m := range members {
		in[m] = true
	}
	from := make(map[string]string, len(members))
	queue := []string{start}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, m := range edges[n] {
			if m == start {
				path := []string{n}
				for n != start {
					n = from[n]
					path = append(path, n)
				}
				slices.Reverse(path)
				return path
			}
			if _, seen := from[m]; in[m] && !seen {
				from[m] = n
				queue = append(queue, m)
			}
		}
	}
	return members
}
