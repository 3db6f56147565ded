package main

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/audit"
)

// replayArtifacts verifies what is known of artifacts.
func (r *auditReader) replayArtifacts(ctx context.Context) error {
	if r.ledgers.Artifacts == "" {
		return nil
	}
	stock := audit.NewStock()
	mine := map[committer][]committed{}
	checked := 0
	err := r.forward(ctx, r.ledgers.Artifacts, func(c audit.Commit, files audit.Files) error {
		found, err := stock.Next(c, files)
		if err != nil {
			return err
		}
		r.tell(found...)
		by := committer{Person: c.Committer, branch: artifact.Branch}
		mine[by] = append(mine[by], committed{c.ID, c.Time.Unix()})
		if r.signers == nil {
			return nil
		}
		checked++
		return r.signature(ctx, artifact.Branch, "", "", c)
	})
	if err != nil {
		return fmt.Errorf("read %s: %w; `git fsck` tells what is missing", artifact.Branch, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stock = stock
	r.checked += checked
	maps.Copy(r.committed, mine)
	return nil
}

// fetched says that it is no wonder that nothing is known: it is not fetched.
func (r *auditReader) fetched() error {
	clone := r.ledgers.clone
	if r.stock != nil || clone == nil || clone.Fetches(artifact.Branch) {
		return nil
	}
	if url, err := clone.RemoteURL(); err != nil || url == "" {
		return err
	}
	return fmt.Errorf("%s is not in this clone, and `git fetch` does not bring it\n"+
		"run `git config --add remote.origin.fetch '+refs/heads/pinion/*:refs/remotes/origin/pinion/*'` and `git fetch origin`", artifact.Branch)
}

// shelf is what a commit of the branch of artifacts knew; nil: the branch does
// not have it.
func (r *auditReader) shelf(commit string) (*artifact.Shelf, error) {
	if r.stock == nil {
		return nil, r.fetched()
	}
	shelf := r.stock.Shelf(commit, r.known)
	if shelf != nil {
		r.known = shelf
	}
	return shelf, nil
}

// later is what was known at a time, if that is more than what a commit knew.
func (r *auditReader) later(commit string, at time.Time) *artifact.Shelf {
	last := r.stock.Later(commit, at)
	if last == "" {
		return nil
	}
	return r.stock.Shelf(last, r.known)
}

// around are what may have been known at a time, the most probable first.
func (r *auditReader) around(at time.Time) iter.Seq[*artifact.Shelf] {
	return func(yield func(*artifact.Shelf) bool) {
		if r.stock == nil {
			yield(&artifact.Shelf{})
			return
		}
		for _, commit := range r.stock.Around(at) {
			shelf := &artifact.Shelf{}
			if commit != "" {
				shelf, _ = r.shelf(commit)
			}
			if !yield(shelf) {
				return
			}
		}
	}
}
