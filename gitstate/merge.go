package gitstate

import (
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

// Each push leaves a pack behind, and so does each fetch; and a crowded mirror is
// cloned anew, whose cost grows with its history. So the packs that were made here
// are merged: those of a level, once there are enough of them, into one of
// the next. Such a pack is complete in itself and names the bases of its deltas by
// their distance, so its entries stay as they are, one pack's behind another's; but
// what two of them have is there once.

// mergeAt packs of one level become one of the next, unless that would be too
// large to be made in memory.
const (
	mergeAt      = 8
	mergeObjects = 100_000
	mergeBytes   = 64 << 20
)

// ownPack is a pack that was made here, by what an index has of it.
type ownPack struct {
	name    string // of the files, without the ending
	level   int
	size    int // in bytes
	ids     []plumbing.Hash
	offsets []uint64
	crcs    []uint32
}

func (p *pack) own(name string, level int) ownPack {
	o := ownPack{name: name, level: level, size: len(p.data), offsets: p.offsets, crcs: p.crcs}
	for _, x := range p.objects {
		o.ids = append(o.ids, x.id)
	}
	return o
}

// writePack adds a complete pack. The index comes first: go-git goes by the packs.
func (g *generation) writePack(data []byte, o ownPack) error {
	index, err := encodeIndex(o, plumbing.Hash(data[len(data)-20:]))
	if err != nil {
		return err
	}
	dir := filepath.Join(g.dir, "objects", "pack")
	if err := writeFile(dir, o.name+".idx", index); err != nil {
		return err
	}
	return writeFile(dir, o.name+".pack", data)
}

func (g *generation) packName(sum plumbing.Hash) string {
	return filepath.Join(g.dir, "objects", "pack", "pack-"+sum.String())
}

// merge merges packs as long as there are enough of one level. It returns the
// files that are of no use any more, for whoever knows that nobody reads them.
func (g *generation) merge() (useless []string, err error) {
	for {
		all := map[int][]ownPack{}
		var few []ownPack
		for _, p := range g.own {
			if all[p.level] = append(all[p.level], p); len(all[p.level]) == mergeAt {
				few = all[p.level]
			}
		}
		if few == nil {
			return useless, nil
		}
		// Those that are not merged stay as they are, and nobody comes back to them.
		g.own = slices.DeleteFunc(g.own, func(p ownPack) bool {
			return slices.ContainsFunc(few, func(f ownPack) bool { return f.name == p.name })
		})
		next, err := g.mergeThese(few)
		if err != nil {
			return useless, fmt.Errorf("merge packs: %w", err)
		}
		if next == nil {
			continue
		}
		g.adopt(*next)
		for _, p := range few {
			if !g.owns(p.name) { // one may have all that the others have
				useless = append(useless, p.name+".pack", p.name+".idx")
			}
		}
	}
}

// owns tells whether a pack is among those that can be merged.
func (g *generation) owns(name string) bool {
	return slices.ContainsFunc(g.own, func(p ownPack) bool { return p.name == name })
}

// adopt has a pack merged with others, once.
func (g *generation) adopt(p ownPack) {
	if !g.owns(p.name) {
		g.own = append(g.own, p)
	}
}

// mergeThese writes one pack with what several have; nil if they had better stay
// as they are.
func (g *generation) mergeThese(few []ownPack) (*ownPack, error) {
	count, size := 0, 0
	for _, p := range few {
		count, size = count+len(p.ids), size+p.size
	}
	if count > mergeObjects || size > mergeBytes {
		return nil, nil
	}
	next := &ownPack{level: few[0].level + 1}
	data := append(make([]byte, 0, size), "PACK\x00\x00\x00\x02\x00\x00\x00\x00"...)
	places := make(map[plumbing.Hash]uint64, count)
	for _, p := range few {
		part, err := os.ReadFile(p.name + ".pack")
		if err != nil {
			return nil, err
		}
		end := len(part) - 20
		if end < 12 || plumbing.Hash(sha1.Sum(part[:end])) != plumbing.Hash(part[end:]) {
			return nil, fmt.Errorf("%s.pack is damaged", filepath.Base(p.name))
		}
		moved := make(map[uint64]uint64, len(p.ids)) // from where in this pack to where in the next
		for i, id := range p.ids {
			from, to := p.offsets[i], uint64(end)
			if i+1 < len(p.ids) {
				to = p.offsets[i+1]
			}
			if from < 12 || from >= to || to > uint64(end) {
				return nil, fmt.Errorf("%s.idx: the index does not fit its pack", filepath.Base(p.name))
			}
			place, twice := places[id]
			if !twice {
				place = uint64(len(data))
				places[id] = place
				next.ids, next.offsets = append(next.ids, id), append(next.offsets, place)
				var changed bool
				if data, changed, err = appendEntry(data, part[from:to], from, moved); err != nil {
					return nil, fmt.Errorf("%s.pack: %w", filepath.Base(p.name), err)
				}
				crc := p.crcs[i]
				if changed {
					crc = crc32.ChecksumIEEE(data[place:])
				}
				next.crcs = append(next.crcs, crc)
			}
			moved[from] = place
		}
	}
	binary.BigEndian.PutUint32(data[8:], uint32(len(next.ids)))
	sum := plumbing.Hash(sha1.Sum(data))
	data = append(data, sum[:]...)
	next.name, next.size = g.packName(sum), len(data)
	return next, g.writePack(data, *next)
}

// appendEntry adds an entry that was at a place in another pack, and tells whether it
// is another one here, since its base has another distance.
func appendEntry(data, entry []byte, from uint64, moved map[uint64]uint64) (_ []byte, changed bool, err error) {
	kind, _, head := packHead(entry)
	if kind != plumbing.OFSDeltaObject {
		return append(data, entry...), false, nil
	}
	distance, n := packDistance(entry[head:])
	base, ok := moved[from-uint64(distance)]
	if n == 0 || !ok {
		return nil, false, errors.New("a delta has no base")
	}
	if uint64(len(data))-base == uint64(distance) {
		return append(data, entry...), false, nil
	}
	now := len(data) - int(base)
	data = append(data, entry[:head]...)
	return append(appendDistance(data, now), entry[head+n:]...), true, nil
}

// recallBytes is how large the index of a pack may be that is recalled.
const recallBytes = 256 << 10

// recall has packs merged that an earlier process has made, as far as they are small.
// What can't be read stays as it is.
func (g *generation) recall() {
	names, _ := filepath.Glob(filepath.Join(g.dir, "objects", "pack", "pack-*.idx"))
	for _, name := range names {
		if own, err := readOwn(name); err == nil && own != nil {
			g.adopt(*own)
		}
	}
}

// readOwn reads the index of a pack; nil if it is large.
func readOwn(name string) (*ownPack, error) {
	info, err := os.Stat(name)
	if err != nil || info.Size() > recallBytes {
		return nil, err
	}
	f, _, err := openPack(name) // which looks whether the index has the size that it says
	if err != nil {
		return nil, err
	}
	defer f.index.Close()
	defer f.data.Close()
	data, err := f.data.Stat()
	if err != nil {
		return nil, err
	}
	o := &ownPack{name: strings.TrimSuffix(name, ".idx"), size: int(data.Size())}
	index := idxfile.NewMemoryIndex()
	if err := idxfile.NewDecoder(f.index).Decode(index); err != nil {
		return nil, err
	}
	entries, err := index.EntriesByOffset()
	if err != nil {
		return nil, err
	}
	defer entries.Close()
	for {
		e, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		o.ids, o.offsets, o.crcs = append(o.ids, e.Hash), append(o.offsets, e.Offset), append(o.crcs, e.CRC32)
	}
	o.level = bits.Len(uint(len(o.ids))) / bits.Len(mergeAt-1) // about as often as so many were merged
	return o, nil
}
