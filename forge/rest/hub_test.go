package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/forge"
)

// A branch's pull request is found behind whatever was touched since.
func TestGiteaNewestPullOfABranch(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	type pull struct {
		branch           string
		created, touched int // in minutes
	}
	others := func(n, from int) (all []pull) {
		for i := range n {
			all = append(all, pull{"other", from + i, from + i})
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		pulls []pull // in the order of their numbers
		want  int
		asked int // pages
	}{
		{"there is none", nil, 0, 1},
		{"a full page has none", others(50, 0), 0, 2},
		{"the last of many", append([]pull{{"mine", 0, 0}}, others(120, 1)...), 1, 3},
		{"an older one was touched since", append([]pull{{"mine", 0, 500}, {"mine", 1, 1}}, others(120, 2)...), 2, 3},
		{"what is older than it is not read", append(others(200, 0), pull{"mine", 200, 201}), 201, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				all := []map[string]any{}
				order := map[int]int{}
				for i, p := range tt.pulls {
					order[i+1] = p.touched
					repo := map[string]any{"full_name": "shop/deploy"}
					all = append(all, map[string]any{"number": i + 1, "state": "closed",
						"created_at": start.Add(time.Duration(p.created) * time.Minute), "updated_at": start.Add(time.Duration(p.touched) * time.Minute),
						"head": map[string]any{"ref": p.branch, "repo": repo}, "base": map[string]any{"ref": "main", "repo": repo}})
				}
				slices.SortFunc(all, func(a, b map[string]any) int { return order[b["number"].(int)] - order[a["number"].(int)] })
				n, _ := strconv.Atoi(r.URL.Query().Get("page"))
				from := min(len(all), (n-1)*pageSize)
				json.NewEncoder(w).Encode(all[from:min(len(all), from+pageSize)])
			}))
			t.Cleanup(server.Close)
			c, err := New(Options{Kind: forge.Gitea, URL: server.URL, Repository: "shop/deploy"})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.PullOf(t.Context(), "main", "mine")
			if err != nil {
				t.Fatal(err)
			}
			if number := numberOf(got); number != tt.want || asked != tt.asked {
				t.Errorf("#%d after %d pages, want #%d after %d", number, asked, tt.want, tt.asked)
			}
		})
	}
}

// Gitea does not name the branch of a pull request that is gone where it names one
// that is there; whoever closes it with the branch has closed it all the same.
func TestGiteaPullWhoseBranchIsGone(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `[
			{"number": 9, "state": "closed", "head": {"ref": "refs/pull/9/head", "label": "", "sha": "c", "repo": {"full_name": "shop/deploy"}}, "base": {"ref": "main", "repo": {"full_name": "shop/deploy"}}},
			{"number": 8, "state": "closed", "head": {"ref": "refs/pull/8/head", "label": "mine", "sha": "b", "repo": {"full_name": "alice/deploy"}}, "base": {"ref": "main", "repo": {"full_name": "shop/deploy"}}},
			{"number": 7, "state": "closed", "head": {"ref": "refs/pull/7/head", "label": "mine", "sha": "a", "repo": {"full_name": "shop/deploy"}}, "base": {"ref": "main", "repo": {"full_name": "shop/deploy"}}}]`)
	}))
	t.Cleanup(server.Close)
	c, err := New(Options{Kind: forge.Gitea, URL: server.URL, Repository: "shop/deploy"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.PullOf(t.Context(), "main", "mine")
	if err != nil || numberOf(got) != 7 || got.Head != "a" || got.State != forge.Closed || got.Branch != "mine" {
		t.Errorf("it is %+v, %v, want #7", got, err)
	}
}

func numberOf(p *forge.Pull) int {
	if p == nil {
		return 0
	}
	return p.Number
}

// Where the end is not reached, nothing is said.
func TestGiteaTooManyPulls(t *testing.T) {
	t.Parallel()
	page := "[" + strings.TrimSuffix(strings.Repeat(`{"number": 1, "state": "closed"},`, pageSize), ",") + "]"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, page) }))
	defer server.Close()
	c, err := New(Options{Kind: forge.Gitea, URL: server.URL, Repository: "shop/deploy"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.PullOf(t.Context(), "main", "mine"); err == nil {
		t.Errorf("it is #%d", numberOf(got))
	}
}
