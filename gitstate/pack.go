package gitstate

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"io"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

// made is a git object that was made here. All of it is in memory.
type made struct {
	id   plumbing.Hash
	kind plumbing.ObjectType
	data []byte // never changed; a file's is the caller's own
	// prev is the version before it of the same file or folder, as a rule much
	// the same.
	prev *made

	// What goes into a pack, made when it is first wanted, once.
	tried bool
	delta []byte // against prev, not deflated; nil: it is not worth it
	small []byte // the delta, deflated
	whole []byte // the data, deflated
}

// identify is the id of an object. Go's own SHA-1 is several times as fast as
// the one that go-git uses, which looks for collisions made on purpose; whoever
// takes our objects looks for these.
func identify(kind plumbing.ObjectType, data []byte) (id plumbing.Hash) {
	h := sha1.New()
	head := append(kind.Bytes(), ' ')
	h.Write(append(strconv.AppendInt(head, int64(len(data)), 10), 0))
	h.Write(data)
	h.Sum(id[:0])
	return id
}

// atOnce calls f for each number below n, on as many goroutines as there are
// processors, and returns when all calls have.
func atOnce(n int, f func(int)) {
	workers := min(runtime.GOMAXPROCS(0), n/16)
	if workers < 2 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// maxDepth is how many deltas may be behind one another, as in git: a reader
// has to follow all of them.
const maxDepth = 50

// pack is a pack file. It is complete in itself: not every server takes one
// that builds upon objects which the pack leaves out, and the same objects are
// kept as a pack by the mirror.
type pack struct {
	data    []byte
	sum     plumbing.Hash
	objects []*made
	offsets []uint64
	crcs    []uint32
}

// newPack writes objects into a pack (gitformat-pack), each as a whole or as a
// delta against the version before it. That version has to come first in the
// list. near allows to name it by the distance, which not every server knows.
func newPack(objects []*made, near bool) *pack {
	atOnce(len(objects), func(i int) {
		if o := objects[i]; o.prev != nil && !o.tried {
			o.tried = true
			if d := makeDelta(o.prev.data, o.data); len(d) < len(o.data)/2 {
				o.delta = d
			}
		}
	})
	where := make(map[plumbing.Hash]int, len(objects))
	depth := make([]int, len(objects)) // 0: a whole object
	for i, o := range objects {
		where[o.id] = i
		if o.delta == nil {
			continue
		}
		if base, ok := where[o.prev.id]; ok && depth[base] < maxDepth {
			depth[i] = depth[base] + 1
		}
	}
	atOnce(len(objects), func(i int) {
		switch o := objects[i]; {
		case depth[i] > 0 && o.small == nil:
			o.small = deflate(o.delta)
		case depth[i] == 0 && o.whole == nil:
			o.whole = deflate(o.data)
		}
	})
	p := &pack{objects: objects, offsets: make([]uint64, len(objects)), crcs: make([]uint32, len(objects))}
	size := 32
	for i, o := range objects {
		size += 32
		if depth[i] > 0 {
			size += len(o.small)
		} else {
			size += len(o.whole)
		}
	}
	b := make([]byte, 0, size)
	b = append(b, "PACK\x00\x00\x00\x02"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(objects)))
	for i, o := range objects {
		start := len(b)
		p.offsets[i] = uint64(start)
		switch {
		case depth[i] == 0:
			b = append(appendHead(b, o.kind, len(o.data)), o.whole...)
		case near:
			b = appendHead(b, plumbing.OFSDeltaObject, len(o.delta))
			b = appendDistance(b, start-int(p.offsets[where[o.prev.id]]))
			b = append(b, o.small...)
		default:
			b = appendHead(b, plumbing.REFDeltaObject, len(o.delta))
			b = append(append(b, o.prev.id[:]...), o.small...)
		}
		p.crcs[i] = crc32.ChecksumIEEE(b[start:])
	}
	p.sum = sha1.Sum(b)
	p.data = append(b, p.sum[:]...)
	return p
}

// appendHead writes an entry's kind and the size of what it has deflated.
func appendHead(b []byte, kind plumbing.ObjectType, size int) []byte {
	c := byte(kind)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		b = append(b, c|0x80)
		c = byte(size & 0x7f)
	}
	return append(b, c)
}

// appendDistance writes how far back in the pack a delta's base begins.
func appendDistance(b []byte, n int) []byte {
	var buf [10]byte
	i := len(buf) - 1
	buf[i] = byte(n & 0x7f)
	for n >>= 7; n > 0; n >>= 7 {
		n--
		i--
		buf[i] = byte(n&0x7f) | 0x80
	}
	return append(b, buf[i:]...)
}

// makeDelta tells how to get from one content to another: copy what they begin
// with alike, and what they end with alike; of what is between, copy what can be
// found in the base, and insert the rest.
func makeDelta(base, target []byte) []byte {
	head := alike(base, target)
	foot := alikeEnd(base[head:], target[head:])
	from, rest := base[head:len(base)-foot], target[head:len(target)-foot]
	d := make([]byte, 0, 256)
	d = binary.AppendUvarint(d, uint64(len(base)))
	d = binary.AppendUvarint(d, uint64(len(target)))
	d = appendCopy(d, 0, head)
	var blocks map[[blockSize]byte]int
	tries := mostTries
	for at, i, n := 0, 0, surelyAlike; min(len(from), len(rest)) >= worthSearching && len(from) <= mostSearched; {
		if tries > 0 && n >= surelyAlike { // else it is no file with some changes
			at, i, n = resumes(from, at, rest, &tries)
		} else {
			n = 0
		}
		if n == 0 {
			if blocks == nil {
				blocks = blocksOf(from)
			}
			if at, i, n = anywhere(from, blocks, rest); n == 0 {
				break
			}
		}
		d = appendCopy(appendInsert(d, rest[:i]), head+at, n)
		at, rest = at+n, rest[i+n:]
	}
	return appendCopy(appendInsert(d, rest), len(base)-foot, foot)
}

const (
	// worthSearching is of how many bytes something has to be to be looked for in the
	// base, in pieces of blockSize.
	worthSearching = 128
	mostSearched   = 16 << 20
	blockSize      = 16
	// A change is seldom of more bytes than longestChange, and what is alike behind
	// it seldom less than surelyAlike; other lines begin alike, too.
	longestChange = 1 << 10
	surelyAlike   = 512
	// mostTries bounds how many places are looked at closely.
	mostTries = 10_000
)

// resumes finds where, behind a change of a few lines, two contents go on alike:
// n bytes, from at on in the base and from i on in what is made. n is 0 if they
// do not.
func resumes(from []byte, begin int, rest []byte, tries *int) (at, i, n int) {
	near := from[begin:min(len(from), begin+4*longestChange)]
	for j := 0; j+blockSize <= min(len(rest), longestChange); j += blockSize {
		for k := 0; n < surelyAlike && *tries > 0; k++ {
			next := bytes.Index(near[k:], rest[j:j+blockSize])
			if next < 0 {
				break
			}
			*tries--
			k += next
			if m := alike(from[begin+k:], rest[j:]); m > n {
				at, i, n = begin+k, j, m
			}
		}
		if n >= surelyAlike {
			break
		}
	}
	return extended(from, at, rest, i, n)
}

// anywhere is resumes for whatever is alike first, wherever it is.
func anywhere(from []byte, blocks map[[blockSize]byte]int, rest []byte) (at, i, n int) {
	for i := 0; i+blockSize <= len(rest); i++ {
		if at, ok := blocks[[blockSize]byte(rest[i:])]; ok {
			return extended(from, at, rest, i, alike(from[at:], rest[i:]))
		}
	}
	return 0, 0, 0
}

// extended adds what is alike before.
func extended(from []byte, at int, rest []byte, i, n int) (int, int, int) {
	if n == 0 {
		return at, i, n
	}
	back := alikeEnd(from[:at], rest[:i])
	return at - back, i - back, n + back
}

// blocksOf are the blocks of a content and where they are.
func blocksOf(data []byte) map[[blockSize]byte]int {
	blocks := make(map[[blockSize]byte]int, len(data)/blockSize)
	for i := 0; i+blockSize <= len(data); i += blockSize {
		blocks[[blockSize]byte(data[i:])] = i
	}
	return blocks
}

// appendInsert writes the instructions that insert some bytes.
func appendInsert(d, data []byte) []byte {
	for len(data) > 0 {
		n := min(len(data), 127)
		d = append(append(d, byte(n)), data[:n]...)
		data = data[n:]
	}
	return d
}

// appendCopy writes the instructions that copy n bytes from an offset.
func appendCopy(d []byte, offset, n int) []byte {
	for n > 0 {
		size := min(n, 0xffff) // as much as git itself writes into one of them
		op := len(d)
		d = append(d, 0x80)
		for i := range 4 {
			if c := byte(offset >> (8 * i)); c != 0 {
				d[op] |= 1 << i
				d = append(d, c)
			}
		}
		for i := range 2 {
			if c := byte(size >> (8 * i)); c != 0 {
				d[op] |= 0x10 << i
				d = append(d, c)
			}
		}
		offset += size
		n -= size
	}
	return d
}

// alike is how many bytes two contents begin with alike.
func alike(a, b []byte) int {
	const step = 1024
	limit := min(len(a), len(b))
	n := 0
	for n+step <= limit && bytes.Equal(a[n:n+step], b[n:n+step]) {
		n += step
	}
	for n < limit && a[n] == b[n] {
		n++
	}
	return n
}

func alikeEnd(a, b []byte) int {
	const step = 1024
	limit := min(len(a), len(b))
	a, b = a[len(a)-limit:], b[len(b)-limit:]
	n := 0
	for n+step <= limit && bytes.Equal(a[limit-n-step:limit-n], b[limit-n-step:limit-n]) {
		n += step
	}
	for n < limit && a[limit-n-1] == b[limit-n-1] {
		n++
	}
	return n
}

var deflaters = sync.Pool{New: func() any {
	z, err := zlib.NewWriterLevel(io.Discard, zlib.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return z
}}

// deflate writes data in the format zlib (RFC 1950), in haste: what is long is
// a delta as a rule. What is short stays as it is, in one stored block (RFC
// 1951, 3.2.4): most objects of a long chain are, and the codes for a block of
// their own cost more time than they save bytes.
func deflate(parts ...[]byte) []byte {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if size < 256 {
		out := make([]byte, 7, size+11)
		copy(out, "\x78\x01\x01")
		binary.LittleEndian.PutUint16(out[3:], uint16(size))
		binary.LittleEndian.PutUint16(out[5:], ^uint16(size))
		for _, p := range parts {
			out = append(out, p...)
		}
		return binary.BigEndian.AppendUint32(out, adler32.Checksum(out[7:]))
	}
	var b bytes.Buffer
	z := deflaters.Get().(*zlib.Writer)
	defer deflaters.Put(z)
	z.Reset(&b)
	for _, p := range parts {
		z.Write(p) // a bytes.Buffer takes everything
	}
	z.Close()
	return b.Bytes()
}

// encodeIndex writes a pack's index file.
func encodeIndex(p ownPack, sum plumbing.Hash) ([]byte, error) {
	w := new(idxfile.Writer)
	if err := w.OnHeader(uint32(len(p.ids))); err != nil {
		return nil, err
	}
	for i, id := range p.ids {
		if err := w.OnInflatedObjectContent(id, int64(p.offsets[i]), p.crcs[i], nil); err != nil {
			return nil, err
		}
	}
	if err := w.OnFooter(sum); err != nil {
		return nil, err
	}
	mem, err := w.Index()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = idxfile.NewEncoder(&b).Encode(mem)
	return b.Bytes(), err
}
