package gitstate

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/storage/memory"
)

// generation is one bare repository below a mirror's folder. It only ever
// grows; a damaged or a crowded one is replaced by the next. One goroutine at a
// time writes to it, and every file gets its name when it is complete, so
// that a reader, or a process that was killed, never sees half of one.
type generation struct {
	dir  string
	refs map[string]plumbing.Hash // the branches, by their short names
	// rewritten says that a branch was: what it had is in no other copy.
	rewritten bool
	own       []ownPack // that can be merged
	fresh     []string  // packs that its store has yet to be told of; see store.refresh
}

const (
	currentFile      = "current" // names the present generation
	generationPrefix = "git-"

	// A pack from the remote of at most so many objects and bytes is made anew, so
	// that it can be merged with others: a new pack for each commit would slow every
	// lookup down.
	fewObjects = 100
	fewBytes   = 4 << 20
)

// createGeneration makes an empty one, for one remote and one branch.
func createGeneration(mirror string, url, branch string) (*generation, error) {
	last := 0
	for _, name := range generations(mirror) {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, generationPrefix)); err == nil {
			last = max(last, n)
		}
	}
	g := &generation{dir: filepath.Join(mirror, fmt.Sprint(generationPrefix, last+1)), refs: map[string]plumbing.Hash{}}
	for _, dir := range []string{"objects/info", "objects/pack", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(g.dir, dir), 0o755); err != nil {
			return g, err
		}
	}
	files := map[string]string{
		"config": generationConfig(url),
		"HEAD":   "ref: refs/heads/" + branch + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o644); err != nil {
			return g, err
		}
	}
	return g, nil
}

func generationConfig(url string) string {
	return "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n[remote \"origin\"]\n\turl = " +
		strconv.Quote(Redact(url)) + "\n"
}

// generations lists the folders of generations below a mirror's folder.
func generations(mirror string) []string {
	entries, _ := os.ReadDir(mirror)
	var names []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), generationPrefix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// currentGeneration opens the one that the mirror's folder names. The refs
// are as many as could be read, also beside an error.
func currentGeneration(mirror, url string) (*generation, error) {
	name, err := os.ReadFile(filepath.Join(mirror, currentFile))
	if err != nil {
		return nil, err
	}
	base := strings.TrimSpace(string(name))
	if !strings.HasPrefix(base, generationPrefix) || base != filepath.Base(base) {
		return nil, fmt.Errorf("%s names %q", currentFile, base)
	}
	g := &generation{dir: filepath.Join(mirror, base), refs: map[string]plumbing.Hash{}}
	config, err := os.ReadFile(filepath.Join(g.dir, "config"))
	if err != nil {
		return nil, err
	}
	if string(config) != generationConfig(url) {
		return nil, errors.New("it belongs to another remote")
	}
	return g, g.readRefs()
}

// makeCurrent is the moment of the swap.
func (g *generation) makeCurrent() error {
	mirror := filepath.Dir(g.dir)
	return writeFile(mirror, filepath.Join(mirror, currentFile), []byte(filepath.Base(g.dir)+"\n"))
}

// writeFile writes a file so that there is the whole of it or nothing; the
// folder for its temporary name is on the same volume.
func writeFile(tmp, name string, data []byte) error {
	f, err := os.CreateTemp(tmp, "tmp_")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// readRefs reads the branches; a broken one is an error, and is left out.
func (g *generation) readRefs() error {
	head, err := os.ReadFile(filepath.Join(g.dir, "HEAD"))
	if err == nil && !strings.HasPrefix(string(head), "ref: refs/heads/") {
		err = errors.New("HEAD is broken")
	}
	heads := filepath.Join(g.dir, "refs", "heads")
	return errors.Join(err, filepath.WalkDir(heads, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(heads, file)
		if err != nil {
			return err
		}
		id, ok := parseID(strings.TrimSpace(string(data)))
		if !ok {
			return fmt.Errorf("branch %s is broken", name)
		}
		g.refs[filepath.ToSlash(name)] = id
		return nil
	}))
}

func (g *generation) refFile(branch string) string {
	return filepath.Join(g.dir, "refs", "heads", filepath.FromSlash(branch))
}

// setRef moves a branch. Its objects have to be there before.
func (g *generation) setRef(branch string, id plumbing.Hash) error {
	name := g.refFile(branch)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := writeFile(g.dir, name, []byte(id.String()+"\n")); err != nil {
		return err
	}
	g.refs[branch] = id
	return nil
}

// validBranch tells whether a name may become a file, by git's own rules for
// references (git-check-ref-format).
func validBranch(name string) bool {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, " ~^:?*[\\\x7f") || strings.Contains(name, "..") || strings.Contains(name, "@{") {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") || strings.HasPrefix(part, "-") || strings.HasSuffix(part, ".lock") || strings.HasSuffix(part, ".") || badName(part) != "" {
			return false
		}
	}
	return true
}

// clean removes what a write that failed, or a process that was killed, left.
func (g *generation) clean() {
	for _, pattern := range []string{"tmp_*", "objects/pack/tmp_*"} {
		files, _ := filepath.Glob(filepath.Join(g.dir, pattern))
		for _, f := range files {
			os.Remove(f)
		}
	}
}

// standing tells whether the folders are there that are written to.
func (g *generation) standing() error {
	for _, dir := range []string{"objects/pack", "refs/heads"} {
		if _, err := os.Stat(filepath.Join(g.dir, dir)); err != nil {
			return err
		}
	}
	return nil
}

// packs is how many there are.
func (g *generation) packs() int {
	list, _ := filepath.Glob(filepath.Join(g.dir, "objects", "pack", "*.pack"))
	return len(list)
}

// keep adds objects as a pack that can be merged.
func (g *generation) keep(objects []*made) error {
	p := newPack(objects, true)
	own := p.own(g.packName(p.sum), 0)
	if err := g.writePack(p.data, own); err != nil {
		return err
	}
	g.adopt(own)
	g.fresh = append(g.fresh, own.name)
	return nil
}

// addPack adds the objects of a pack that comes from the remote. When ctx ends, it
// does, once r has come to its end or failed.
func (g *generation) addPack(ctx context.Context, r io.Reader) (err error) {
	dir := filepath.Join(g.dir, "objects", "pack")
	f, err := os.CreateTemp(dir, "tmp_pack_")
	if err != nil {
		return err
	}
	received := f.Name()
	defer func() {
		f.Close()
		os.Remove(received) // unless it has another name now
	}()
	size, err := io.Copy(f, r)
	if err != nil {
		return fmt.Errorf("receive the pack: %w", err)
	}
	pack := untilDone{f, func() error { return context.Cause(ctx) }}
	count, sum, err := checkPack(pack, size)
	if err != nil {
		return fmt.Errorf("receive the pack: %w", err)
	}
	if count == 0 {
		return nil
	}
	if _, err := pack.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if count <= fewObjects && size <= fewBytes {
		m := memory.NewStorage()
		p, err := packfile.NewParserWithStorage(packfile.NewScanner(pack), m)
		if err != nil {
			return err
		}
		if _, err := p.Parse(); err != nil {
			return fmt.Errorf("read the pack: %w", err)
		}
		objects := make([]*made, 0, len(m.Objects))
		for id, o := range m.Objects {
			r, err := o.Reader()
			if err != nil {
				return err
			}
			data, err := io.ReadAll(r)
			if err = errors.Join(err, r.Close()); err != nil {
				return fmt.Errorf("read the pack: %w", err)
			}
			objects = append(objects, &made{id: id, kind: o.Type(), data: data})
		}
		// The same objects are the same pack: what a branch has that was rewritten comes
		// with each fetch.
		slices.SortFunc(objects, func(a, b *made) int { return bytes.Compare(a.id[:], b.id[:]) })
		return g.keep(objects)
	}
	return g.addPackFile(pack, received, sum)
}

// untilDone is a file whose reading fails once there is a reason to: go-git's parser
// knows no context, and takes long for a large pack. It reads each object, and each
// delta once more when it resolves it.
type untilDone struct {
	file *os.File
	done func() error
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.done(); err != nil {
		return 0, err
	}
	return u.file.Read(p)
}

func (u untilDone) ReadAt(p []byte, off int64) (int, error) {
	if err := u.done(); err != nil {
		return 0, err
	}
	return u.file.ReadAt(p, off)
}

func (u untilDone) Seek(offset int64, whence int) (int64, error) { return u.file.Seek(offset, whence) }

// addPackFile indexes a complete pack, which is a file, and gives it its name. The
// index comes first: go-git goes by the packs.
func (g *generation) addPackFile(pack io.ReadSeeker, file, sum string) error {
	index := new(idxfile.Writer)
	p, err := packfile.NewParser(packfile.NewScanner(pack), index)
	if err != nil {
		return err
	}
	if _, err := p.Parse(); err != nil {
		return fmt.Errorf("index the pack: %w", err)
	}
	mem, err := index.Index()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := idxfile.NewEncoder(&b).Encode(mem); err != nil {
		return err
	}
	dir := filepath.Dir(file)
	name := filepath.Join(dir, "pack-"+sum)
	if err := writeFile(dir, name+".idx", b.Bytes()); err != nil {
		return err
	}
	if err := os.Rename(file, name+".pack"); err != nil {
		return err
	}
	g.fresh = append(g.fresh, name)
	return nil
}

// checkPack reads a whole pack and compares it with the checksum at its end.
func checkPack(f io.ReaderAt, size int64) (count uint32, sum string, err error) {
	if size < 32 {
		return 0, "", io.ErrUnexpectedEOF
	}
	h := sha1.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size-20)); err != nil {
		return 0, "", err
	}
	var head [12]byte
	var end plumbing.Hash
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return 0, "", err
	}
	if _, err := f.ReadAt(end[:], size-20); err != nil {
		return 0, "", err
	}
	if string(head[:4]) != "PACK" || !bytes.Equal(h.Sum(nil), end[:]) {
		return 0, "", errors.New("its checksum is wrong")
	}
	return uint32(head[8])<<24 | uint32(head[9])<<16 | uint32(head[10])<<8 | uint32(head[11]), end.String(), nil
}

// newestChecked is of how many commits of a branch a start looks whether they are
// there: it must not cost more the longer the history is.
const newestChecked = 10

// check looks for damage that can be found quickly: packs that are cut or
// lack their index, branches whose newest commits or whose files are not all
// there. What it does not see is found when it is read.
func (g *generation) check(ctx context.Context, s *store) error {
	packs, err := filepath.Glob(filepath.Join(g.dir, "objects", "pack", "pack-*"))
	if err != nil {
		return err
	}
	for _, file := range packs {
		base, ok := strings.CutSuffix(file, ".pack")
		if !ok {
			continue
		}
		if _, err := os.Stat(base + ".idx"); err != nil {
			return fmt.Errorf("a pack has no index: %w", err)
		}
		if err := checkPackEnd(file); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	for name, id := range g.refs {
		if err := s.complete(ctx, id, newestChecked); err != nil {
			return fmt.Errorf("branch %s: %w", name, err)
		}
	}
	return nil
}

// checkPackEnd tells a pack that was cut: its last bytes are its checksum,
// and its name.
func checkPackEnd(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < 32 {
		return io.ErrUnexpectedEOF
	}
	var end plumbing.Hash
	if _, err := f.ReadAt(end[:], fi.Size()-20); err != nil {
		return err
	}
	if filepath.Base(file) != "pack-"+end.String()+".pack" {
		return errors.New("the pack is cut off")
	}
	return nil
}

// complete walks a commit's whole tree and up to so many commits before it.
func (s *store) complete(ctx context.Context, tip plumbing.Hash, commits int) error {
	c, err := s.commit(tip)
	if err != nil {
		return err
	}
	if err := s.completeTree(ctx, c.tree, plumbing.ZeroHash, "."); err != nil {
		return err
	}
	seen := map[plumbing.Hash]bool{tip: true}
	for queue := []*commit{c}; len(queue) > 0 && len(seen) < commits; {
		c, queue = queue[0], queue[1:]
		parents, _ := s.parents(c)
		for _, id := range parents {
			if seen[id] {
				continue
			}
			seen[id] = true
			p, err := s.commit(id)
			if err != nil {
				return err
			}
			queue = append(queue, p)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// completeTree looks whether all of a folder is there that is not in the one
// that is known to be complete.
func (s *store) completeTree(ctx context.Context, id, known plumbing.Hash, dir string) error {
	if id == known {
		return nil
	}
	t, err := s.tree(id)
	if err != nil {
		return err
	}
	var old tree
	if !known.IsZero() {
		if old, err = s.tree(known); err != nil {
			return err
		}
	}
	for _, e := range t {
		before, _ := old.find(e.name)
		if before.id == e.id && before.mode == e.mode || e.mode == modeSubmodule {
			continue
		}
		if e.mode == modeDir {
			sub := plumbing.ZeroHash
			if before.mode == modeDir {
				sub = before.id
			}
			err = s.completeTree(ctx, e.id, sub, path.Join(dir, e.name))
		} else {
			err = s.has(e.id)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
