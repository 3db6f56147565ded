package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/audit"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// A place where a branch was, as somebody has kept it.
type keptTip struct {
	branch, tip string
	count       int
	from        string // who says so
}

// compare looks whether what was known of the branches is still in them.
func (a *auditor) compare(ctx context.Context) error {
	var kept []keptTip
	var from []string
	if a.flags.sinceTips != "" {
		tips, err := readTips(a.flags.sinceTips)
		if err != nil {
			return err
		}
		kept, from = append(kept, tips...), append(from, a.flags.sinceTips)
	}
	for _, rev := range a.flags.baseline {
		id, err := a.ledgers.archive.Resolve(ctx, rev)
		if err != nil {
			return fmt.Errorf("--baseline %s: %w", rev, err)
		}
		info, err := a.ledgers.archive.Info(ctx, id)
		if err != nil {
			return fmt.Errorf("--baseline %s: %w", rev, err)
		}
		branch := a.mainBranch()
		if e, err := ledger.ParseMessage(info.Message, info.Committer.Time); err == nil {
			branch = ledger.Branch(e.Environment)
		} else if artifact.IsMessage(info.Message) {
			branch = artifact.Branch
		}
		kept, from = append(kept, keptTip{branch: branch, tip: id, from: rev}), append(from, rev)
	}
	logs, err := a.reflogs(ctx)
	if err != nil {
		return err
	}
	if len(logs) > 0 {
		kept, from = append(kept, logs...), append(from, "the clone's reflogs")
	}
	a.known = auditKnown{len(kept), strings.Join(from, ", ")}
	lost := map[string]int{}
	for _, k := range kept {
		there, err := a.inBranch(ctx, k)
		if err != nil {
			return err
		}
		env, isLedger := strings.CutPrefix(k.branch, ledger.Branch(""))
		if isLedger && a.only != "" && string(a.only) != env {
			continue
		}
		if there {
			if k.count > 0 {
				a.since[k.branch] = k.count
			}
			continue
		}
		key := k.branch + " " + k.from
		if lost[key]++; lost[key] > 1 {
			continue // the newest says it
		}
		a.rewritten = true
		f := audit.Finding{Severity: audit.Error, Rule: audit.RuleRewritten, Branch: k.branch, Commit: k.tip,
			Message: fmt.Sprintf("%s was at %.12s, as %s says, and that is not in its history any more", k.branch, k.tip, k.from),
			Meaning: "the branch was rewritten or restored from a copy; what was there is gone"}
		if isLedger {
			f.Environment = desired.EnvironmentName(env)
		}
		if isLedger && a.books[f.Environment] == nil || k.branch == artifact.Branch && a.stock == nil {
			f.Message = fmt.Sprintf("%s was at %.12s, as %s says, and there is no such branch any more", k.branch, k.tip, k.from)
		}
		a.tell(f)
	}
	return nil
}

func (a *auditor) inBranch(ctx context.Context, k keptTip) (bool, error) {
	if env, ok := strings.CutPrefix(k.branch, ledger.Branch("")); ok {
		b := a.books[desired.EnvironmentName(env)]
		if b == nil {
			return false, nil
		}
		_, ok := b.Has(k.tip)
		return ok, nil
	}
	if k.branch == artifact.Branch {
		if a.stock == nil {
			return false, nil
		}
		_, ok := a.stock.Has(k.tip)
		return ok, nil
	}
	if _, ok := a.place[k.tip]; ok {
		return true, nil
	}
	if _, err := a.ledgers.archive.Info(ctx, k.tip); err != nil {
		if errors.Is(err, gitstate.ErrNoCommit) {
			return false, nil // main's history is whole, so it is not in it
		}
		return false, err
	}
	return a.ledgers.archive.IsAncestor(ctx, k.tip, a.ledgers.MainTip())
}

const tipsHead = "# pinion audit: where the branches were, and how many commits they had"

func readTips(file string) ([]keptTip, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the tips of before: %w; --write-baseline writes such a file", err)
	}
	var tips []keptTip
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		w := strings.Fields(line)
		if len(w) == 0 || strings.HasPrefix(w[0], "#") {
			continue
		}
		var count int
		if len(w) == 3 {
			count, err = strconv.Atoi(w[2])
		}
		if len(w) != 3 || err != nil || len(w[1]) != 40 || count < 1 {
			return nil, fmt.Errorf("%s:%d: %q is not a branch, the id of its tip and a number of commits; --write-baseline writes such lines", file, n, strings.TrimSpace(line))
		}
		tips = append(tips, keptTip{w[0], strings.ToLower(w[1]), count, file})
	}
	if len(tips) == 0 {
		return nil, fmt.Errorf("%s: no branch is in it; --write-baseline writes such a file", file)
	}
	return tips, nil
}

// keepTips writes where the branches are. What says that a branch was rewritten
// is not written over.
func (a *auditor) keepTips() error {
	if a.flags.writeBaseline == "" {
		return nil
	}
	if a.rewritten {
		return fmt.Errorf("%s is not written: a branch was rewritten, and the tips of before are the proof; write another file once that is cleared up", a.flags.writeBaseline)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s\n", tipsHead, rfc3339(a.g.now))
	for _, env := range slices.Sorted(maps.Keys(a.books)) {
		fmt.Fprintf(&b, "%s %s %d\n", ledger.Branch(env), a.ledgers.Tips[env], a.books[env].Len())
	}
	if a.stock != nil {
		fmt.Fprintf(&b, "%s %s %d\n", artifact.Branch, a.ledgers.Artifacts, a.stock.Len())
	}
	fmt.Fprintf(&b, "%s %s %d\n", a.mainBranch(), a.ledgers.MainTip(), len(a.line))
	tmp := a.flags.writeBaseline + ".new"
	if err := os.WriteFile(tmp, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the tips: %w", err)
	}
	if err := os.Rename(tmp, a.flags.writeBaseline); err != nil {
		return fmt.Errorf("write the tips: %w", err)
	}
	return nil
}

// reflogs are the places where the clone has seen the branches before, of each
// the newest first.
func (a *auditor) reflogs(ctx context.Context) ([]keptTip, error) {
	if a.ledgers.clone == nil {
		return nil, nil
	}
	dir, err := filepath.Abs(a.g.repo)
	if err != nil {
		return nil, err
	}
	common, err := (git{dir: dir, err: a.g.err}).quiet(ctx, "rev-parse", "--git-common-dir")
	if err != nil {
		return nil, ctx.Err() // without the git program there is nothing to compare with
	}
	if !filepath.IsAbs(common) {
		common = filepath.Join(dir, common)
	}
	remote := "origin"
	if name, _, ok := strings.Cut(a.ledgers.mainName, "/"); ok && a.ledgers.rev == "" {
		remote = name
	}
	var all []keptTip
	read := func(branch, tip string) error {
		for _, ref := range []string{"refs/remotes/" + remote + "/" + branch, "refs/heads/" + branch} {
			// Only of the reference that the tip was taken from.
			if id, err := a.ledgers.archive.Resolve(ctx, ref); err != nil || id != tip {
				continue
			}
			ids, err := readReflog(filepath.Join(common, "logs", filepath.FromSlash(ref)))
			if err != nil {
				return err
			}
			for _, id := range ids {
				all = append(all, keptTip{branch: branch, tip: id, from: "the reflog of " + strings.TrimPrefix(strings.TrimPrefix(ref, "refs/remotes/"), "refs/heads/")})
			}
			return nil
		}
		return nil
	}
	for _, env := range slices.Sorted(maps.Keys(a.ledgers.Tips)) {
		if err := read(ledger.Branch(env), a.ledgers.Tips[env]); err != nil {
			return nil, err
		}
	}
	if a.stock != nil {
		if err := read(artifact.Branch, a.ledgers.Artifacts); err != nil {
			return nil, err
		}
	}
	// What is checked out here may be rebased: that is nobody else's main.
	if strings.HasPrefix(a.ledgers.mainName, remote+"/") {
		if err := read(a.mainBranch(), a.ledgers.MainTip()); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readReflog returns the ids in a reflog, newest first.
func readReflog(file string) ([]string, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read a reflog: %w", err)
	}
	defer f.Close()
	var ids []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		w := strings.SplitN(lines.Text(), " ", 3)
		if len(w) < 3 {
			continue
		}
		for _, id := range w[:2] {
			if len(id) == 40 && strings.Trim(id, "0") != "" && !slices.Contains(ids[max(0, len(ids)-2):], id) {
				ids = append(ids, id)
			}
		}
	}
	slices.Reverse(ids)
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the reflog %s: %w", file, err)
	}
	return ids, nil
}
