package gitstate

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// packs reads objects from the pack files of a folder (gitformat-pack). It
// looks up in an index what it is asked for, where go-git loads the whole of
// it first: 0.2 s for a clone with 100,000 entries in its ledgers, in a
// command that reads thirty of them. What it does not know, or finds odd, it
// leaves to go-git. It is not safe for concurrent use; its store guards it.
type packs struct {
	dir    string // "pack"
	open   bool
	files  []*packFile // the one that was of use last comes first
	in     *bufio.Reader
	zip    io.ReadCloser
	recent *lru[packPlace, packed]
	places *lru[plumbing.Hash, packPlace] // an object is looked for, measured, and read
	// between is where objects are made that others are made from.
	between [2][]byte
	// Who reads a file asks for its size first.
	last   plumbing.Hash
	lastIs packed
}

type packFile struct {
	index, data *os.File
	fanout      [256]uint32
	count       int64

	idsFrom int64
	idsRead []byte
}

type packPlace struct {
	file   *packFile
	offset int64
}

type packed struct {
	kind plumbing.ObjectType
	data []byte // never changed
}

const (
	recentBytes = 16 << 20
	placesKept  = 4096
	deflated    = 256 // about what a small object takes
	// Objects that are larger, and chains of deltas that are longer than git
	// makes them, are go-git's to read, or to refuse.
	mostPacked = 64 << 20
	mostDeltas = 4096
)

var errOddPack = errors.New("a pack that is not understood")

func newPacks(gitDir string) *packs {
	return emptyPacks(filepath.Join(gitDir, "objects", "pack"))
}

func emptyPacks(dir string) *packs {
	return &packs{dir: dir, recent: newLRU[packPlace, packed](recentBytes), places: newLRU[plumbing.Hash, packPlace](placesKept)}
}

// get reads an object. An error only says that it has to be read otherwise.
func (p *packs) get(id plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	if p.lastIs.data != nil && p.last == id {
		return p.lastIs.kind, p.lastIs.data, nil
	}
	place, err := p.locate(id)
	if err != nil {
		return 0, nil, err
	}
	o, err := p.read(place)
	if err == nil && identify(o.kind, o.data) != id {
		err = errOddPack
	}
	if err != nil {
		return 0, nil, err
	}
	p.last, p.lastIs = id, o
	return o.kind, o.data, nil
}

// has tells whether an object is in one of the packs, without reading it.
func (p *packs) has(id plumbing.Hash) bool {
	_, err := p.locate(id)
	return err == nil
}

// locate finds out where an object is.
func (p *packs) locate(id plumbing.Hash) (packPlace, error) {
	if place, ok := p.places.get(id); ok {
		return place, nil
	}
	p.load()
	for i, f := range p.files {
		offset, err := f.find(id)
		if err != nil {
			return packPlace{}, err
		}
		if offset < 0 {
			continue
		}
		if i > 0 {
			copy(p.files[1:i+1], p.files[:i])
			p.files[0] = f
		}
		place := packPlace{f, offset}
		p.places.put(id, place, 1)
		return place, nil
	}
	return packPlace{}, plumbing.ErrObjectNotFound
}

// load opens the packs that are there, once. A newer one is added, or go-git's to read.
func (p *packs) load() {
	if p.open {
		return
	}
	p.open = true
	names, _ := filepath.Glob(filepath.Join(p.dir, "pack-*.idx"))
	type dated struct {
		f    *packFile
		when int64
	}
	var all []dated
	for _, name := range names {
		f, when, err := openPack(name)
		if err == nil {
			all = append(all, dated{f, when})
		}
	}
	slices.SortStableFunc(all, func(a, b dated) int { return cmp.Compare(b.when, a.when) })
	for _, d := range all {
		p.files = append(p.files, d.f)
	}
}

// add opens one more, by its name without an ending.
func (p *packs) add(name string) {
	if !p.open {
		return // with all others
	}
	index := name + ".idx"
	if slices.ContainsFunc(p.files, func(f *packFile) bool { return f.index.Name() == index }) {
		return
	}
	if f, _, err := openPack(index); err == nil {
		p.files = slices.Insert(p.files, 0, f)
	}
}

func (p *packs) close() {
	for _, f := range p.files {
		f.index.Close()
		f.data.Close()
	}
	*p = *emptyPacks(p.dir)
}

const packIndexHead = 8 + 256*4

func openPack(name string) (*packFile, int64, error) {
	index, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	f := &packFile{index: index}
	when, err := f.open(strings.TrimSuffix(name, ".idx") + ".pack")
	if err != nil {
		index.Close()
		return nil, 0, err
	}
	return f, when, nil
}

func (f *packFile) open(data string) (when int64, err error) {
	var head [packIndexHead]byte
	if _, err := f.index.ReadAt(head[:], 0); err != nil {
		return 0, err
	}
	if string(head[:8]) != "\xfftOc\x00\x00\x00\x02" {
		return 0, errOddPack
	}
	for i := range f.fanout {
		f.fanout[i] = binary.BigEndian.Uint32(head[8+4*i:])
		if i > 0 && f.fanout[i] < f.fanout[i-1] {
			return 0, errOddPack
		}
	}
	f.count = int64(f.fanout[255])
	info, err := f.index.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() < packIndexHead+f.count*28+40 {
		return 0, errOddPack
	}
	f.data, err = os.Open(data)
	return info.ModTime().UnixNano(), err
}

// find looks an object up in the index: the table of the first bytes says
// between which places, and the ids there are sorted. It is -1 if the pack
// does not have it.
func (f *packFile) find(id plumbing.Hash) (int64, error) {
	low, high := int64(0), int64(f.fanout[id[0]])
	if id[0] > 0 {
		low = int64(f.fanout[id[0]-1])
	}
	// Ids are spread evenly, so the next bytes tell where about it is; where they are
	// not, it is halved.
	const window = 2
	key := func(id []byte) int64 { return int64(binary.BigEndian.Uint32(id[1:])) }
	first, last := int64(0), int64(1)<<32 // what they are at low and high
	for n := 0; high-low > window; n++ {
		from := (low+high)/2 - window/2
		if n < 6 && last > first {
			from = low + int64(float64(high-low)*float64(key(id[:])-first)/float64(last-first)) - window/2
			from = min(max(from, low), high-window)
		}
		ids, err := f.ids(from, window)
		if err != nil {
			return 0, err
		}
		switch {
		case bytes.Compare(id[:], ids[:20]) < 0:
			high, last = from, key(ids)
		case bytes.Compare(id[:], ids[len(ids)-20:]) > 0:
			low, first = from+window, key(ids[len(ids)-20:])
		default:
			low, high = from, from+window
		}
	}
	ids, err := f.ids(low, high-low)
	if err != nil {
		return 0, err
	}
	n := int64(sort.Search(int(high-low), func(i int) bool { return bytes.Compare(ids[i*20:i*20+20], id[:]) >= 0 }))
	if n == high-low || !bytes.Equal(ids[n*20:n*20+20], id[:]) {
		return -1, nil
	}
	var b [8]byte
	if _, err := f.index.ReadAt(b[:4], packIndexHead+f.count*24+(low+n)*4); err != nil {
		return 0, err
	}
	offset := binary.BigEndian.Uint32(b[:])
	if offset>>31 == 0 {
		return int64(offset), nil
	}
	if _, err := f.index.ReadAt(b[:], packIndexHead+f.count*28+int64(offset&^(1<<31))*8); err != nil {
		return 0, err
	}
	if far := binary.BigEndian.Uint64(b[:]); far < 1<<62 {
		return int64(far), nil
	}
	return 0, errOddPack
}

// ids reads some of the sorted ids; the result is good until the next call.
func (f *packFile) ids(from, n int64) ([]byte, error) {
	if f.idsFrom == from && int64(len(f.idsRead)) == n*20 {
		return f.idsRead, nil
	}
	f.idsRead = append(f.idsRead[:0], make([]byte, n*20)...)
	f.idsFrom = from
	if _, err := f.index.ReadAt(f.idsRead, packIndexHead+from*20); err != nil {
		f.idsRead = f.idsRead[:0]
		return nil, err
	}
	return f.idsRead, nil
}

// read reads the object at a place: what it is made from in the end, and then
// one delta after the other.
func (p *packs) read(at packPlace) (packed, error) {
	var deltas [][]byte
	place := at
	o, known := p.recent.get(place)
	for !known {
		e, base, err := p.entry(place)
		if err != nil {
			return packed{}, err
		}
		if base.offset < 0 {
			o = e
			p.remember(place, o)
			break
		}
		if deltas = append(deltas, e.data); len(deltas) > mostDeltas {
			return packed{}, errOddPack
		}
		place = base
		o, known = p.recent.get(place)
	}
	for i, delta := range slices.Backward(deltas) {
		// What is between need not be kept, and the last one must not be overwritten.
		into := &p.between[i%2]
		if i == 0 {
			into = new([]byte)
		}
		var err error
		if o.data, err = applyDelta(*into, o.data, delta); err != nil {
			return packed{}, err
		}
		*into = o.data
	}
	if len(deltas) > 0 {
		p.remember(at, o)
	}
	return o, nil
}

func (p *packs) remember(at packPlace, o packed) {
	if len(o.data) < recentBytes/4 {
		p.recent.put(at, o, len(o.data)+64)
	}
}

// entry reads what is at a place: an object, or a delta and where its base is;
// without a base that is -1.
func (p *packs) entry(at packPlace) (o packed, base packPlace, err error) {
	fail := func(err error) (packed, packPlace, error) { return packed{}, packPlace{}, err }
	var start [32]byte
	n, err := at.file.data.ReadAt(start[:], at.offset)
	if err != nil && err != io.EOF {
		return fail(err)
	}
	head := start[:n]
	kind, size, used := packHead(head)
	if used == 0 || size > mostPacked {
		return fail(errOddPack)
	}
	base = packPlace{file: at.file, offset: -1}
	switch kind {
	case plumbing.OFSDeltaObject:
		distance, n := packDistance(head[used:])
		if n == 0 || distance <= 0 || distance >= at.offset {
			return fail(errOddPack)
		}
		base.offset, used = at.offset-distance, used+n
	case plumbing.REFDeltaObject:
		if len(head) < used+20 {
			return fail(errOddPack)
		}
		if base.offset, err = at.file.find(plumbing.Hash(head[used : used+20])); err != nil || base.offset < 0 {
			return fail(cmp.Or(err, errOddPack))
		}
		used += 20
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	default:
		return fail(errOddPack)
	}
	data, err := p.inflate(at.file.data, at.offset+int64(used), size)
	if err != nil {
		return fail(err)
	}
	return packed{kind, data}, base, nil
}

// packHead reads an entry's kind and the size of what is deflated behind it.
func packHead(b []byte) (kind plumbing.ObjectType, size int64, used int) {
	if len(b) == 0 {
		return 0, 0, 0
	}
	kind, size = plumbing.ObjectType(b[0]>>4&7), int64(b[0]&15)
	for shift := 4; b[used]&0x80 != 0; shift += 7 {
		if used++; used == len(b) || shift > 50 {
			return 0, 0, 0
		}
		size |= int64(b[used]&0x7f) << shift
	}
	return kind, size, used + 1
}

// packDistance reads what appendDistance writes.
func packDistance(b []byte) (n int64, used int) {
	for used < len(b) && used < 9 {
		c := b[used]
		n |= int64(c & 0x7f)
		if used++; c&0x80 == 0 {
			return n, used
		}
		n = (n + 1) << 7
	}
	return 0, 0
}

// inflate reads what is deflated at a place, and little of what is behind it: most
// objects are small.
func (p *packs) inflate(file *os.File, offset, size int64) (data []byte, err error) {
	// What is deflated is hardly ever larger than what it was.
	section := io.NewSectionReader(file, offset, size+size>>2+64)
	if p.in == nil {
		p.in = bufio.NewReaderSize(section, deflated)
	} else {
		p.in.Reset(section)
	}
	if p.zip == nil {
		p.zip, err = zlib.NewReader(p.in)
	} else {
		err = p.zip.(zlib.Resetter).Reset(p.in, nil)
	}
	if err != nil {
		p.zip = nil
		return nil, err
	}
	data = make([]byte, size)
	if _, err := io.ReadFull(p.zip, data); err != nil {
		return nil, err
	}
	// The end of the stream has its checksum.
	var more [1]byte
	if n, err := p.zip.Read(more[:]); n > 0 || err != io.EOF {
		return nil, cmp.Or(err, errOddPack)
	}
	return data, nil
}

// applyDelta follows a delta's instructions: copy from the base, or insert. What
// it makes takes the place of into, which is not the base.
func applyDelta(into, base, delta []byte) ([]byte, error) {
	from, n := binary.Uvarint(delta)
	if n <= 0 || from != uint64(len(base)) {
		return nil, errOddPack
	}
	delta = delta[n:]
	size, n := binary.Uvarint(delta)
	if n <= 0 || size > mostPacked {
		return nil, errOddPack
	}
	delta = delta[n:]
	out := slices.Grow(into[:0], int(size))
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		if op&0x80 == 0 {
			if op == 0 || int(op) > len(delta) {
				return nil, errOddPack
			}
			out, delta = append(out, delta[:op]...), delta[op:]
			continue
		}
		var field [7]byte
		for i := range field {
			if op>>i&1 == 0 {
				continue
			}
			if len(delta) == 0 {
				return nil, errOddPack
			}
			field[i], delta = delta[0], delta[1:]
		}
		offset := int64(binary.LittleEndian.Uint32(field[:4]))
		count := int64(field[4]) | int64(field[5])<<8 | int64(field[6])<<16
		if count == 0 {
			count = 1 << 16
		}
		if offset+count > int64(len(base)) || int64(len(out))+count > int64(size) {
			return nil, errOddPack
		}
		out = append(out, base[offset:offset+count]...)
	}
	if len(out) != int(size) {
		return nil, fmt.Errorf("%w: a delta makes %d bytes, not %d", errOddPack, len(out), size)
	}
	return out, nil
}
