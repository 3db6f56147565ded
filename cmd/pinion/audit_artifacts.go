package main

import (
	"context"
	"errors"
	"fmt"
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

// shelf is what a commit of the branch of artifacts knew; nil: the branch does
// not have it.
func (r *auditReader) shelf(commit string) (*artifact.Shelf, error) {
	if r.stock == nil {
		if clone := r.ledgers.clone; clone != nil && !clone.Fetches(artifact.Branch) {
			if url, err := clone.RemoteURL(); err != nil || url != "" {
				return nil, errors.Join(err, fmt.Errorf("%s is not in this clone, and `git fetch` does not bring it\n"+
					"run `git config --add remote.origin.fetch '+refs/heads/pinion/*:refs/remotes/origin/pinion/*'` and `git fetch origin`", artifact.Branch))
			}
		}
		return nil, nil
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
