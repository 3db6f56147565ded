package devtest

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
)

// Remote write 1.0 (prometheus.io/docs/specs/prw/remote_write_spec): a message
// of protobuf in a block of snappy. For the few samples of a test, what it takes
// to write both is less than a module that does.

// A series has one sample a push.
type series struct {
	labels map[string]string // with __name__
	value  float64
}

// stale is the value, one of the many NaNs, that ends a series.
var stale = math.Float64frombits(0x7ff0000000000002)

func isStale(value float64) bool { return math.Float64bits(value) == math.Float64bits(stale) }

// writeRequest encodes WriteRequest{timeseries = 1}, TimeSeries{labels = 1,
// samples = 2}, Sample{value = 1, timestamp = 2}.
func writeRequest(ms int64, all []series) []byte {
	var request []byte
	for _, s := range all {
		sample := []byte{1<<3 | 1}
		sample = binary.LittleEndian.AppendUint64(sample, math.Float64bits(s.value))
		sample = binary.AppendUvarint(append(sample, 2<<3), uint64(ms))
		request = appendField(request, 1, appendField(appendLabels(nil, s.labels), 2, sample))
	}
	return request
}

// appendLabels encodes labels = 1, Label{name = 1, value = 2}, which have to be
// sorted.
func appendLabels(to []byte, labels map[string]string) []byte {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		label := appendField(nil, 1, []byte(name))
		to = appendField(to, 1, appendField(label, 2, []byte(labels[name])))
	}
	return to
}

// appendField encodes a field that has a length.
func appendField(to []byte, number byte, value []byte) []byte {
	to = binary.AppendUvarint(append(to, number<<3|2), uint64(len(value)))
	return append(to, value...)
}

// uncompressed is a block of snappy that holds literals alone, of at most 64 KiB
// each (github.com/google/snappy/blob/main/format_description.txt).
func uncompressed(data []byte) []byte {
	block := binary.AppendUvarint(nil, uint64(len(data)))
	for chunk := range slices.Chunk(data, 1<<16) {
		block = append(block, 61<<2)
		block = binary.LittleEndian.AppendUint16(block, uint16(len(chunk)-1))
		block = append(block, chunk...)
	}
	return block
}
