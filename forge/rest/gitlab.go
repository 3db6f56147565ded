package rest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/forge"
)

// gitlab is GitLab's API, version 4: https://docs.gitlab.com/api/rest
type gitlab struct {
	*transport
	path string // of the project
}

type gitlabUser struct {
	Username string `json:"username"`
}

type gitlabMerge struct {
	IID         int        `json:"iid"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	State       string     `json:"state"`
	Author      gitlabUser `json:"author"`
	SHA         string     `json:"sha"`
	Source      string     `json:"source_branch"`
	Target      string     `json:"target_branch"`
	SourceID    int64      `json:"source_project_id"`
	TargetID    int64      `json:"target_project_id"`
	Draft       bool       `json:"draft"`
	Status      string     `json:"detailed_merge_status"`
	Conflicts   bool       `json:"has_conflicts"`
	URL         string     `json:"web_url"`
}

func (m gitlabMerge) pull() forge.Pull {
	p := forge.Pull{Number: m.IID, Title: m.Title, Body: m.Description, State: forge.Open, Author: m.Author.Username,
		Head: m.SHA, Branch: m.Source, Base: m.Target, Fork: m.SourceID != m.TargetID, Draft: m.Draft, URL: m.URL}
	switch m.State {
	case "merged":
		p.State = forge.Merged
	case "closed":
		p.State = forge.Closed
	}
	switch m.Status {
	case "mergeable":
		p.Mergeable, p.Fits = forge.Yes, forge.Yes
	case "", "checking", "unchecked", "preparing", "approvals_syncing":
	case "conflict", "need_rebase":
		p.Mergeable, p.Fits = forge.No, forge.No
	default: // approvals, pipelines, discussions
		p.Mergeable, p.Fits = forge.No, forge.Yes
	}
	if m.Conflicts {
		p.Fits = forge.No
	}
	return p
}

func (g *gitlab) Whoami(ctx context.Context) (string, error) {
	var u gitlabUser
	err := g.do(ctx, http.MethodGet, "/user", nil, &u)
	return u.Username, err
}

// gitlabStates are the words of GitLab.
var gitlabStates = map[forge.State]string{forge.Pending: "pending", forge.Success: "success", forge.Failure: "failed", forge.Neutral: "canceled"}

func (g *gitlab) SetStatus(ctx context.Context, commit string, s forge.Status) error {
	body := map[string]string{"state": gitlabStates[s.State], "name": s.Context, "description": forge.Short(s.Description)}
	if s.URL != "" {
		body["target_url"] = s.URL
	}
	err := g.do(ctx, http.MethodPost, g.path+"/statuses/"+commit, body, nil)
	if statusOf(err) == http.StatusBadRequest && strings.Contains(err.Error(), "Cannot transition status") {
		return nil // it has that state already, and GitLab keeps the words of before
	}
	return err
}

func (g *gitlab) Statuses(ctx context.Context, commit string) (map[string]forge.Status, error) {
	type status struct {
		ID          int64  `json:"id"`
		Status      string `json:"status"`
		Name        string `json:"name"`
		Description string `json:"description"`
		TargetURL   string `json:"target_url"`
	}
	list, err := pages[status](ctx, g.transport, g.path+"/repository/commits/"+commit+"/statuses", "per_page")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b status) int { return cmp.Compare(a.ID, b.ID) })
	all := map[string]forge.Status{}
	for _, s := range list {
		state := forge.State(s.Status)
		for ours, word := range gitlabStates {
			if word == s.Status {
				state = ours
			}
		}
		all[s.Name] = forge.Status{Context: s.Name, State: state, Description: s.Description, URL: s.TargetURL}
	}
	return all, nil
}

func (g *gitlab) Pulls(ctx context.Context, base string) ([]forge.Pull, error) {
	list, err := pages[gitlabMerge](ctx, g.transport, g.path+"/merge_requests?state=opened&target_branch="+url.QueryEscape(base), "per_page")
	if err != nil {
		return nil, err
	}
	var all []forge.Pull
	for _, m := range list {
		all = append(all, m.pull())
	}
	slices.SortFunc(all, func(a, b forge.Pull) int { return a.Number - b.Number })
	return all, nil
}

func (g *gitlab) PullOf(ctx context.Context, base, branch string) (*forge.Pull, error) {
	var list []gitlabMerge
	err := g.do(ctx, http.MethodGet, g.path+"/merge_requests?source_branch="+url.QueryEscape(branch)+"&target_branch="+url.QueryEscape(base)+"&per_page=20", nil, &list)
	if err != nil {
		return nil, err
	}
	var all []forge.Pull
	for _, m := range list {
		all = append(all, m.pull())
	}
	return newest(all, base, branch), nil
}

func (g *gitlab) one(number int) string { return fmt.Sprintf("%s/merge_requests/%d", g.path, number) }

func (g *gitlab) Pull(ctx context.Context, number int) (forge.Pull, error) {
	var m gitlabMerge
	err := g.do(ctx, http.MethodGet, g.one(number), nil, &m)
	return m.pull(), err
}

func (g *gitlab) OpenPull(ctx context.Context, p forge.Pull) (forge.Pull, error) {
	var opened gitlabMerge
	err := g.do(ctx, http.MethodPost, g.path+"/merge_requests", map[string]string{
		"title": p.Title, "description": p.Body, "source_branch": p.Branch, "target_branch": p.Base}, &opened)
	return opened.pull(), err
}

func (g *gitlab) EditPull(ctx context.Context, number int, title, body string) error {
	return g.do(ctx, http.MethodPut, g.one(number), map[string]string{"title": title, "description": body}, nil)
}

func (g *gitlab) ClosePull(ctx context.Context, number int) error {
	return g.do(ctx, http.MethodPut, g.one(number), map[string]string{"state_event": "close"}, nil)
}

// MergePull merges as the project is set up to, but for squashing: that one can
// be asked for.
func (g *gitlab) MergePull(ctx context.Context, number int, m Merge) error {
	body := map[string]any{"sha": m.Head, "squash": m.Method == MethodSquash}
	message := strings.TrimSpace(m.Subject + "\n\n" + m.Message)
	switch m.Method {
	case MethodSquash:
		body["squash_commit_message"] = message
	case MethodMerge:
		body["merge_commit_message"] = message
	}
	return g.do(ctx, http.MethodPut, g.one(number)+"/merge", body, nil)
}

// Reviews are the approvals that were given since the head was pushed: GitLab
// does not say to which commit one belongs.
func (g *gitlab) Reviews(ctx context.Context, p forge.Pull) ([]forge.Review, error) {
	var approvals struct {
		By []struct {
			User gitlabUser `json:"user"`
			At   time.Time  `json:"approved_at"`
		} `json:"approved_by"`
	}
	if err := g.do(ctx, http.MethodGet, g.one(p.Number)+"/approvals", nil, &approvals); err != nil || len(approvals.By) == 0 {
		return nil, err
	}
	type version struct {
		Head string    `json:"head_commit_sha"`
		At   time.Time `json:"created_at"`
	}
	versions, err := pages[version](ctx, g.transport, g.one(p.Number)+"/versions", "per_page")
	if err != nil {
		return nil, err
	}
	var pushed time.Time
	for _, v := range versions {
		if v.Head == p.Head && v.At.After(pushed) {
			pushed = v.At
		}
	}
	last := map[string]forge.Review{}
	for _, a := range approvals.By {
		r := forge.Review{User: a.User.Username, Time: a.At}
		if !pushed.IsZero() && !a.At.IsZero() && !a.At.Before(pushed) {
			r.Approved, r.Commit = true, p.Head
		}
		last[r.User] = r
	}
	return sortedReviews(last), nil
}

func (g *gitlab) Comments(ctx context.Context, number int) ([]forge.Comment, error) {
	type note struct {
		ID     int64      `json:"id"`
		Body   string     `json:"body"`
		Author gitlabUser `json:"author"`
		System bool       `json:"system"`
	}
	list, err := pages[note](ctx, g.transport, g.one(number)+"/notes?sort=asc", "per_page")
	if err != nil {
		return nil, err
	}
	var all []forge.Comment
	for _, n := range list {
		if !n.System {
			all = append(all, forge.Comment{ID: n.ID, User: n.Author.Username, Body: n.Body})
		}
	}
	return all, nil
}

func (g *gitlab) AddComment(ctx context.Context, number int, body string) error {
	return g.do(ctx, http.MethodPost, g.one(number)+"/notes", map[string]string{"body": body}, nil)
}

func (g *gitlab) EditComment(ctx context.Context, number int, id int64, body string) error {
	return g.do(ctx, http.MethodPut, fmt.Sprintf("%s/notes/%d", g.one(number), id), map[string]string{"body": body}, nil)
}

func (g *gitlab) HeadRef(number int) string {
	return fmt.Sprintf("refs/merge-requests/%d/head", number)
}
