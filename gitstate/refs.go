package gitstate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Heads are the mirrored branches, as [Mirror.Branches] has them, for who only reads:
// the map is everybody's, and nobody changes it. When one has moved there is another.
func (m *Mirror) Heads() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.branches
}

// below lists the references whose names begin with a prefix ("refs/heads/")
// and then with a part of the rest ("ledger/"), by the rest. It reads only
// these: a broken one elsewhere, or ten thousand, do not matter. One that does
// not lead to an id, as a symbolic one does not, is left out.
func (f *folder) below(prefix, part string) (map[string]string, error) {
	refs := map[string]string{}
	// The loose ones first: git packs one before it removes it.
	top := filepath.Join(f.common, filepath.FromSlash(prefix))
	err := filepath.WalkDir(filepath.Join(top, filepath.FromSlash(part)), func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() || strings.HasSuffix(file, ".lock") {
			return err
		}
		name, err := filepath.Rel(top, file)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if id := strings.TrimSpace(string(data)); len(id) == 40 && isHex(id) {
			refs[filepath.ToSlash(name)] = id
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s%s: %w", prefix, part, err)
	}
	packed, err := os.ReadFile(filepath.Join(f.common, "packed-refs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s%s: %w", prefix, part, err)
	}
	for line := range strings.Lines(string(packed)) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || !strings.HasPrefix(rest, part) || len(id) != 40 || !isHex(id) {
			continue
		}
		if _, loose := refs[rest]; !loose {
			refs[rest] = id
		}
	}
	return refs, nil
}
