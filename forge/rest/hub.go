package rest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/forge"
)

// hub is what the APIs of GitHub and Gitea have in common.
type hub struct {
	*transport
	path string // of the repository
}

type hubUser struct {
	Login string `json:"login"`
}

type hubPull struct {
	Number int     `json:"number"`
	Title  string  `json:"title"`
	Body   string  `json:"body"`
	State  string  `json:"state"`
	Merged bool    `json:"merged"`
	At     string  `json:"merged_at"`
	Draft  bool    `json:"draft"`
	URL    string  `json:"html_url"`
	User   hubUser `json:"user"`
	Head   hubEnd  `json:"head"`
	Base   hubEnd  `json:"base"`
	// Created and Updated are when it was opened, and last touched.
	Created time.Time `json:"created_at"`
	Updated time.Time `json:"updated_at"`
	// Mergeable is null as long as GitHub computes it, and false with Gitea.
	Mergeable *bool `json:"mergeable"`
}

type hubEnd struct {
	Ref   string `json:"ref"`
	Label string `json:"label"` // the branch with Gitea, OWNER:BRANCH with GitHub
	SHA   string `json:"sha"`
	Repo  *struct {
		FullName string `json:"full_name"`
	} `json:"repo"`
}

func (p hubPull) pull() forge.Pull {
	out := forge.Pull{Number: p.Number, Title: p.Title, Body: p.Body, State: forge.Open, Author: p.User.Login,
		Head: p.Head.SHA, Branch: p.Head.Ref, Base: p.Base.Ref, Draft: p.Draft, URL: p.URL}
	// Gitea gives the reference of the pull request once the branch is gone.
	if p.Head.Ref == hubHeadRef(p.Number) && p.Head.Label != "" {
		out.Branch = p.Head.Label
	}
	// The repository of a fork that was deleted is null.
	out.Fork = p.Head.Repo == nil || p.Base.Repo == nil || !strings.EqualFold(p.Head.Repo.FullName, p.Base.Repo.FullName)
	switch {
	case p.Merged || p.At != "":
		out.State = forge.Merged
	case p.State != "open":
		out.State = forge.Closed
	}
	if p.Mergeable != nil {
		out.Mergeable = forge.No
		if *p.Mergeable {
			out.Mergeable = forge.Yes
		}
	}
	out.Fits = out.Mergeable
	return out
}

func (h *hub) Whoami(ctx context.Context) (string, error) {
	var u hubUser
	err := h.do(ctx, http.MethodGet, "/user", nil, &u)
	return u.Login, err
}

type hubStatus struct {
	State       string    `json:"state,omitempty"`
	Status      string    `json:"status,omitempty"` // Gitea's name for it, in answers
	Context     string    `json:"context"`
	Description string    `json:"description"`
	TargetURL   string    `json:"target_url,omitempty"`
	CreatedAt   time.Time `json:"created_at,omitzero"`
	ID          int64     `json:"id,omitempty"`
}

func (h *hub) setStatus(ctx context.Context, commit string, s forge.Status, neutral string) error {
	state := string(s.State)
	if s.State == forge.Neutral {
		state = neutral
	}
	return h.do(ctx, http.MethodPost, h.path+"/statuses/"+commit,
		hubStatus{State: state, Context: s.Context, Description: forge.Short(s.Description), TargetURL: s.URL}, nil)
}

func (h *hub) statuses(ctx context.Context, commit, size, neutral string) (map[string]forge.Status, error) {
	list, err := pages[hubStatus](ctx, h.transport, h.path+"/commits/"+commit+"/statuses", size)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b hubStatus) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	all := map[string]forge.Status{}
	for _, s := range list {
		state := forge.State(cmp.Or(s.Status, s.State))
		if string(state) == neutral {
			state = forge.Neutral
		}
		all[s.Context] = forge.Status{Context: s.Context, State: state, Description: s.Description, URL: s.TargetURL}
	}
	return all, nil
}

func (h *hub) pulls(ctx context.Context, query, size string) ([]forge.Pull, error) {
	list, err := pages[hubPull](ctx, h.transport, h.path+"/pulls?state=open"+query, size)
	if err != nil {
		return nil, err
	}
	all := pullsOf(list)
	slices.SortFunc(all, func(a, b forge.Pull) int { return a.Number - b.Number })
	return all, nil
}

func pullsOf(list []hubPull) []forge.Pull {
	var all []forge.Pull
	for _, p := range list {
		all = append(all, p.pull())
	}
	return all
}

func (h *hub) Pull(ctx context.Context, number int) (forge.Pull, error) {
	var p hubPull
	err := h.do(ctx, http.MethodGet, fmt.Sprintf("%s/pulls/%d", h.path, number), nil, &p)
	return p.pull(), err
}

func (h *hub) OpenPull(ctx context.Context, p forge.Pull) (forge.Pull, error) {
	var opened hubPull
	err := h.do(ctx, http.MethodPost, h.path+"/pulls", map[string]string{"title": p.Title, "body": p.Body, "head": p.Branch, "base": p.Base}, &opened)
	if statusOf(err) == http.StatusUnprocessableEntity && strings.Contains(err.Error(), "already exists") {
		err = errors.Join(err, ErrConflict)
	}
	return opened.pull(), err
}

func (h *hub) EditPull(ctx context.Context, number int, title, body string) error {
	return h.do(ctx, http.MethodPatch, fmt.Sprintf("%s/pulls/%d", h.path, number), map[string]string{"title": title, "body": body}, nil)
}

func (h *hub) ClosePull(ctx context.Context, number int) error {
	return h.do(ctx, http.MethodPatch, fmt.Sprintf("%s/pulls/%d", h.path, number), map[string]string{"state": "closed"}, nil)
}

type hubReview struct {
	User      hubUser   `json:"user"`
	State     string    `json:"state"`
	CommitID  string    `json:"commit_id"`
	Dismissed bool      `json:"dismissed"`
	Stale     bool      `json:"stale"`
	At        time.Time `json:"submitted_at"`
}

// reviews returns the last word of each reviewer. A comment is none.
func (h *hub) reviews(ctx context.Context, number int, size string) ([]forge.Review, error) {
	list, err := pages[hubReview](ctx, h.transport, fmt.Sprintf("%s/pulls/%d/reviews", h.path, number), size)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b hubReview) int { return a.At.Compare(b.At) })
	last := map[string]forge.Review{}
	for _, r := range list {
		v := forge.Review{User: r.User.Login, Commit: r.CommitID, Time: r.At}
		switch {
		case r.User.Login == "":
			continue
		case r.Dismissed || r.Stale || r.State == "DISMISSED":
		case r.State == "APPROVED":
			v.Approved = true
		case r.State == "CHANGES_REQUESTED" || r.State == "REQUEST_CHANGES":
		default:
			continue
		}
		last[r.User.Login] = v
	}
	return sortedReviews(last), nil
}

func sortedReviews(last map[string]forge.Review) []forge.Review {
	var all []forge.Review
	for _, v := range last {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b forge.Review) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.User, b.User)) })
	return all
}

type hubComment struct {
	ID   int64   `json:"id"`
	Body string  `json:"body"`
	User hubUser `json:"user"`
}

func commentsOf(list []hubComment) []forge.Comment {
	var all []forge.Comment
	for _, c := range list {
		all = append(all, forge.Comment{ID: c.ID, User: c.User.Login, Body: c.Body})
	}
	return all
}

func (h *hub) AddComment(ctx context.Context, number int, body string) error {
	return h.do(ctx, http.MethodPost, fmt.Sprintf("%s/issues/%d/comments", h.path, number), map[string]string{"body": body}, nil)
}

func (h *hub) EditComment(ctx context.Context, _ int, id int64, body string) error {
	return h.do(ctx, http.MethodPatch, fmt.Sprintf("%s/issues/comments/%d", h.path, id), map[string]string{"body": body}, nil)
}

func (h *hub) HeadRef(number int) string { return hubHeadRef(number) }

func hubHeadRef(number int) string { return fmt.Sprintf("refs/pull/%d/head", number) }

// github is GitHub's API, version 2022-11-28:
// https://docs.github.com/en/rest?apiVersion=2022-11-28
type github struct{ hub }

func (g *github) SetStatus(ctx context.Context, commit string, s forge.Status) error {
	return g.setStatus(ctx, commit, s, "error")
}

func (g *github) Statuses(ctx context.Context, commit string) (map[string]forge.Status, error) {
	return g.statuses(ctx, commit, "per_page", "error")
}

func (g *github) Pulls(ctx context.Context, base string) ([]forge.Pull, error) {
	return g.pulls(ctx, "&base="+url.QueryEscape(base), "per_page")
}

func (g *github) PullOf(ctx context.Context, base, branch string) (*forge.Pull, error) {
	owner, _, _ := strings.Cut(strings.TrimPrefix(g.path, "/repos/"), "/")
	var list []hubPull
	if err := g.do(ctx, http.MethodGet, g.path+"/pulls?state=all&head="+url.QueryEscape(owner+":"+branch)+"&per_page=20", nil, &list); err != nil {
		return nil, err
	}
	return newest(pullsOf(list), base, branch), nil
}

func (g *github) Reviews(ctx context.Context, p forge.Pull) ([]forge.Review, error) {
	return g.reviews(ctx, p.Number, "per_page")
}

func (g *github) Comments(ctx context.Context, number int) ([]forge.Comment, error) {
	list, err := pages[hubComment](ctx, g.transport, fmt.Sprintf("%s/issues/%d/comments", g.path, number), "per_page")
	return commentsOf(list), err
}

func (g *github) MergePull(ctx context.Context, number int, m Merge) error {
	body := map[string]string{"sha": m.Head, "merge_method": string(m.Method)}
	if m.Method != MethodRebase {
		body["commit_title"], body["commit_message"] = m.Subject, m.Message
	}
	return g.do(ctx, http.MethodPut, fmt.Sprintf("%s/pulls/%d/merge", g.path, number), body, nil)
}

// gitea is the API of Gitea and Forgejo, version 1:
// https://docs.gitea.com/api
type gitea struct{ hub }

func (g *gitea) SetStatus(ctx context.Context, commit string, s forge.Status) error {
	return g.setStatus(ctx, commit, s, "warning")
}

func (g *gitea) Statuses(ctx context.Context, commit string) (map[string]forge.Status, error) {
	return g.statuses(ctx, commit, "limit", "warning")
}

func (g *gitea) Pulls(ctx context.Context, base string) ([]forge.Pull, error) {
	all, err := g.pulls(ctx, "", "limit")
	return slices.DeleteFunc(all, func(p forge.Pull) bool { return p.Base != base }), err
}

// Pull can't tell "no" from "not known yet".
func (g *gitea) Pull(ctx context.Context, number int) (forge.Pull, error) {
	p, err := g.hub.Pull(ctx, number)
	if p.Mergeable == forge.No {
		p.Mergeable, p.Fits = forge.Undecided, forge.Undecided
	}
	return p, err
}

// PullOf looks through all of them, those that were touched last first, for
// Gitea can't be asked for a branch. Once there is one of the branch, what was
// last touched before that was opened is older.
func (g *gitea) PullOf(ctx context.Context, base, branch string) (*forge.Pull, error) {
	var all []hubPull
	for n := 1; n <= mostPagesBack; n++ {
		var page []hubPull
		if err := g.do(ctx, http.MethodGet, fmt.Sprintf("%s/pulls?state=all&sort=recentupdate&limit=%d&page=%d", g.path, pageSize, n), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page...)
		last := newest(pullsOf(all), base, branch)
		if len(page) < pageSize {
			return last, nil
		}
		touched := page[len(page)-1].Updated
		if last != nil && slices.ContainsFunc(all, func(p hubPull) bool { return p.Number == last.Number && touched.Before(p.Created) }) {
			return last, nil
		}
	}
	return nil, fmt.Errorf("look for the newest pull request of %s: it is not among the %d that were touched last", branch, mostPagesBack*pageSize)
}

func (g *gitea) Reviews(ctx context.Context, p forge.Pull) ([]forge.Review, error) {
	return g.reviews(ctx, p.Number, "limit")
}

// Comments are all at once: Gitea has no pages of them.
func (g *gitea) Comments(ctx context.Context, number int) ([]forge.Comment, error) {
	var list []hubComment
	err := g.do(ctx, http.MethodGet, fmt.Sprintf("%s/issues/%d/comments", g.path, number), nil, &list)
	return commentsOf(list), err
}

func (g *gitea) MergePull(ctx context.Context, number int, m Merge) error {
	body := map[string]string{"Do": string(m.Method), "head_commit_id": m.Head}
	if m.Method != MethodRebase {
		body["MergeTitleField"], body["MergeMessageField"] = m.Subject, m.Message
	}
	return g.do(ctx, http.MethodPost, fmt.Sprintf("%s/pulls/%d/merge", g.path, number), body, nil)
}
