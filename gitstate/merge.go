package gitstate

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

// Each push of more than a few objects leaves a pack behind, and a crowded mirror
// is cloned anew, whose cost grows with its history. So the packs that were made
// here are merged: those of a level, once there are enough of them, into one of
// the next. Such a pack is complete in itself and names the bases of its deltas by
// their distance, so its entries stay as they are, one pack's behind another's.

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
		g.own = slices.DeleteFunc(g.own, func(p ownPack) bool { return p.level == few[0].level })
		next, err := g.mergeThese(few)
		if err != nil {
			return useless, fmt.Errorf("merge packs: %w", err)
		}
		if next == nil {
			continue
		}
		g.own = append(g.own, *next)
		for _, p := range few {
			useless = append(useless, p.name+".pack", p.name+".idx")
		}
	}
}

// mergeThese writes one pack with what several have; nil if they had better stay
// as they are.
func (g *generation) mergeThese(few []ownPack) (*ownPack, error) {
	count, size := 0, 0
	seen := map[plumbing.Hash]bool{}
	for _, p := range few {
		count, size = count+len(p.ids), size+p.size
		for _, id := range p.ids {
			seen[id] = true
		}
	}
	if count > mergeObjects || size > mergeBytes || len(seen) != count { // no pack has an object twice
		return nil, nil
	}
	next := &ownPack{level: few[0].level + 1}
	data := append(make([]byte, 0, size), "PACK\x00\x00\x00\x02"...)
	data = binary.BigEndian.AppendUint32(data, uint32(count))
	for _, p := range few {
		part, err := os.ReadFile(p.name + ".pack")
		if err != nil {
			return nil, err
		}
		if n := len(part) - 20; n < 12 || plumbing.Hash(sha1.Sum(part[:n])) != plumbing.Hash(part[n:]) {
			return nil, fmt.Errorf("%s.pack is damaged", filepath.Base(p.name))
		}
		shift := uint64(len(data) - 12)
		for _, offset := range p.offsets {
			next.offsets = append(next.offsets, offset+shift)
		}
		next.ids, next.crcs = append(next.ids, p.ids...), append(next.crcs, p.crcs...)
		data = append(data, part[12:len(part)-20]...)
	}
	sum := plumbing.Hash(sha1.Sum(data))
	data = append(data, sum[:]...)
	next.name, next.size = g.packName(sum), len(data)
	return next, g.writePack(data, *next)
}
