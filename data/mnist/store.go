package mnist

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Four fifths of all pixels are zero, so a picture is kept as one bit a pixel, which says where it is not zero, and the bytes that are not:
// 253 bytes in the mean instead of 784. Reading a picture means clearing the 784 values and setting about 150, which is less work than
// converting 784 bytes, and the embedded file is used as it is: nothing to decompress at the start, nothing to hold twice.
//
// A file is, with little-endian numbers:
//
//	"SPARSE1\n"
//	n uint32              the number of pictures
//	labels [n]uint8
//	offsets [n+1]uint32   where each record starts in records, and where the last one ends
//	records               98 bytes of bits (pixel p is bit p%8 of byte p/8), then the values of the pixels whose bit is set, in order
const (
	magic     = "SPARSE1\n"
	side      = 28
	pixels    = side * side
	maskBytes = pixels / 8
)

var spec = data.ImageSpec(shape.Of(side, side, 1), []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"})

// store is one part of the data set.
type store struct {
	labels, offsets, records []byte
}

// newStore checks the outline of a file.
func newStore(name string, file []byte) (*store, error) {
	const head = len(magic) + 4
	if len(file) < head || string(file[:len(magic)]) != magic {
		return nil, fmt.Errorf("mnist: the embedded %s is not in the expected form (run go generate)", name)
	}
	n := int(binary.LittleEndian.Uint32(file[len(magic):]))
	rest := file[head:]
	if len(rest) < n+4*(n+1) {
		return nil, fmt.Errorf("mnist: the embedded %s is too short for %d pictures (run go generate)", name, n)
	}
	s := &store{labels: rest[:n], offsets: rest[n : n+4*(n+1)], records: rest[n+4*(n+1):]}
	if s.offset(n) != len(s.records) {
		return nil, fmt.Errorf("mnist: the embedded %s has %d bytes of records, not %d (run go generate)", name, len(s.records), s.offset(n))
	}
	return s, nil
}

func (s *store) offset(i int) int { return int(binary.LittleEndian.Uint32(s.offsets[4*i:])) }

// Spec is the same for both parts.
func (s *store) Spec() data.Spec { return spec }

// Len is the number of pictures.
func (s *store) Len() int { return len(s.labels) }

// Label is the digit of picture i.
func (s *store) Label(i int) int { return int(s.labels[i]) }

// Fill unpacks the pictures idx.
func (s *store) Fill(idx []int, x, y []*tensor.Tensor) error {
	image, label := x[0].F32(), y[0].I32()
	for k, i := range idx {
		label[k] = int32(s.labels[i])
		unpack(image[k*pixels:(k+1)*pixels], s.records[s.offset(i):s.offset(i+1)])
	}
	return nil
}

// unpack writes the 784 values of one record to dst.
func unpack(dst []float32, record []byte) {
	clear(dst)
	mask, values := record[:maskBytes], record[maskBytes:]
	for at := 0; at < maskBytes; at += 8 {
		var m uint64
		if at+8 <= maskBytes {
			m = binary.LittleEndian.Uint64(mask[at:])
		} else {
			m = uint64(binary.LittleEndian.Uint16(mask[at:])) // 98 is 12 words and 2 bytes
		}
		part := dst[at*8:]
		k := 0
		for ; m != 0; m &= m - 1 {
			part[bits.TrailingZeros64(m)] = data.Unit[values[k]]
			k++
		}
		values = values[k:]
	}
}
