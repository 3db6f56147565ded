package gitstate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// folder is a repository on this machine.
type folder struct {
	root   string // of the working tree; empty if the repository is bare
	git    string // the git directory
	common string // the same, or for a worktree that of the main one
}

// openFolder opens a repository by the name of its working tree or of its git
// directory.
func openFolder(dir string) (*folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{root: dir, git: filepath.Join(dir, ".git")}
	fi, err := os.Stat(f.git)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !isGitDir(dir) {
			return nil, fmt.Errorf("open %s: %w", dir, transport.ErrRepositoryNotFound)
		}
		f.root, f.git = "", dir
	case err != nil:
		return nil, err
	case !fi.IsDir(): // a worktree, or a submodule
		data, err := os.ReadFile(f.git)
		if err != nil {
			return nil, err
		}
		link, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "gitdir: ")
		if !ok {
			return nil, fmt.Errorf("open %s: it does not name a git directory", f.git)
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(dir, link)
		}
		f.git = link
	}
	f.common = f.git
	data, err := os.ReadFile(filepath.Join(f.git, "commondir"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		f.common = strings.TrimSpace(string(data))
		if !filepath.IsAbs(f.common) {
			f.common = filepath.Join(f.git, f.common)
		}
	}
	if !isGitDir(f.common) {
		return nil, fmt.Errorf("open %s: %w", dir, transport.ErrRepositoryNotFound)
	}
	return f, f.supported()
}

func isGitDir(dir string) bool {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// storage reads the references and the configuration.
func (f *folder) storage() *filesystem.Storage {
	return filesystem.NewStorage(dotgit.NewRepositoryFilesystem(osfs.New(f.git), osfs.New(f.common)), cache.NewObjectLRU(0))
}

func (f *folder) config() (*config.Config, error) {
	file, err := os.Open(filepath.Join(f.common, "config"))
	if errors.Is(err, fs.ErrNotExist) {
		return config.NewConfig(), nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	c, err := config.ReadConfig(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	return c, nil
}

// supported tells of formats that go-git can't read.
func (f *folder) supported() error {
	c, err := f.config()
	if err != nil {
		return err
	}
	extensions := c.Raw.Section("extensions")
	if format := extensions.Option("objectformat"); format != "" && format != "sha1" {
		return fmt.Errorf("open %s: its object format %s is not supported, only sha1 is", f.git, format)
	}
	if storage := extensions.Option("refstorage"); storage != "" && storage != "files" {
		return fmt.Errorf("open %s: its reference storage %s is not supported; run git refs migrate --ref-format=files", f.git, storage)
	}
	return nil
}

// objectDirs are the folders of objects: its own, and those that it borrows
// from (objects/info/alternates), as the names of their git directories.
func (f *folder) objectDirs() ([]string, error) {
	dirs := []string{f.common}
	for i := 0; i < len(dirs); i++ {
		data, err := os.ReadFile(filepath.Join(dirs[i], "objects", "info", "alternates"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if !filepath.IsAbs(line) {
				line = filepath.Join(dirs[i], "objects", line)
			}
			if filepath.Base(line) != "objects" {
				return nil, fmt.Errorf("open %s: it borrows objects from %s, which is not in a git directory", f.git, line)
			}
			if len(dirs) > 16 {
				return nil, fmt.Errorf("open %s: it borrows objects from too many others", f.git)
			}
			dirs = append(dirs, filepath.Dir(line))
		}
	}
	return dirs, nil
}

// branches are the references below refs/heads.
func (f *folder) branches() (map[string]plumbing.Hash, error) {
	iter, err := f.storage().IterReferences()
	if err != nil {
		return nil, err
	}
	refs := map[string]plumbing.Hash{}
	return refs, iter.ForEach(func(r *plumbing.Reference) error {
		if r.Type() == plumbing.HashReference {
			refs[r.Name().String()] = r.Hash()
		}
		return nil
	})
}

// copyObjects copies what a generation does not have. It is for a machine
// without the git program: git's object files never change, so copying them
// is safe beside a git that writes to the same repository.
func (f *folder) copyObjects(ctx context.Context, g *generation) error {
	dirs, err := f.objectDirs()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		objects := filepath.Join(dir, "objects")
		// The index before its pack, as everywhere.
		for _, pattern := range []string{"pack/pack-*.idx", "pack/pack-*.pack", "[0-9a-f][0-9a-f]/*"} {
			files, err := filepath.Glob(filepath.Join(objects, filepath.FromSlash(pattern)))
			if err != nil {
				return err
			}
			for _, file := range files {
				name, err := filepath.Rel(objects, file)
				if err != nil {
					return err
				}
				if strings.Contains(filepath.Base(name), "tmp_") {
					continue
				}
				if err := copyFile(ctx, file, filepath.Join(g.dir, "objects", name), filepath.Join(g.dir, "objects", "pack")); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func copyFile(ctx context.Context, from, to, tmp string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(tmp, "tmp_")
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		os.Remove(out.Name())
	}
	return err
}
