// Package idx reads IDX files, the form of MNIST and its relatives, plain or compressed with gzip.
//
// A file is, with big-endian numbers: two zero bytes; a byte for the element type (8 u8, 9 i8, 11 i16, 12 i32, 13 f32, 14 f64); a byte
// for the number of axes; the length of each axis as a uint32; the elements, row-major.
// (Source: "The IDX file format", on the MNIST page of LeCun, Cortes and Burges.)
package idx

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

var types = map[byte]struct {
	in int // bytes of an element in the file
	dt dtype.Type
}{
	0x08: {1, dtype.U8},
	0x09: {1, dtype.I8},
	0x0b: {2, dtype.I32}, // there is no i16; every value of it fits
	0x0c: {4, dtype.I32},
	0x0d: {4, dtype.F32},
	0x0e: {8, dtype.F64},
}

// maxAxes is more than any tensor here has.
const maxAxes = 8

// Read reads a whole file into a tensor. Elements of 16 bits become i32.
func Read(path string) (*tensor.Tensor, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("idx: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("idx: %w", err)
	}
	return read(path, f, info.Size())
}

// inflateLimit is more than the greatest factor by which deflate can compress (1032; RFC 1951 codes 258 bytes in 2 bits at best).
const inflateLimit = 1040

// read reads a file of the given size. Its memory is bounded by what such a file can hold, whatever the header says.
func read(name string, r io.Reader, size int64) (*tensor.Tensor, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	limit := size
	if head, _ := b.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("idx: %s: damaged gzip header: %w", name, err)
		}
		b, limit = bufio.NewReaderSize(z, 1<<16), size*inflateLimit
	}
	d := &decoder{name: name, r: b}
	var head [4]byte
	d.full(head[:], "the header")
	if d.err != nil {
		return nil, d.err
	}
	ty, known := types[head[2]]
	axes := int(head[3])
	switch {
	case head[0] != 0 || head[1] != 0:
		return nil, fmt.Errorf("idx: %s: byte 0: begins with % x, not with 00 00: this is no IDX file", name, head)
	case !known:
		return nil, fmt.Errorf("idx: %s: byte 2: unknown element type %#02x", name, head[2])
	case axes == 0 || axes > maxAxes:
		return nil, fmt.Errorf("idx: %s: byte 3: %d axes, not 1 to %d", name, axes, maxAxes)
	}
	sh := make(shape.Shape, axes)
	for i := range sh {
		var n [4]byte
		d.full(n[:], "the lengths of the axes")
		v := binary.BigEndian.Uint32(n[:])
		if v > math.MaxInt32 {
			return nil, fmt.Errorf("idx: %s: byte %d: axis %d is %d long", name, d.at-4, i, v)
		}
		sh[i] = int(v)
	}
	if d.err != nil {
		return nil, d.err
	}
	if err := sh.Check(); err != nil {
		return nil, fmt.Errorf("idx: %s: byte 4: %w", name, err)
	}
	if need := int64(sh.Size()) * int64(ty.in); need > limit-d.at {
		return nil, fmt.Errorf("idx: %s: byte 4: the header says %v, %d bytes of elements, more than a file of %d bytes can hold: it is truncated or mislabelled", name, sh, need, size)
	}
	t := tensor.New(ty.dt, sh...)
	d.elements(t, ty.in, head[2])
	if d.err != nil {
		return nil, d.err
	}
	if _, err := b.ReadByte(); err == nil {
		return nil, fmt.Errorf("idx: %s: byte %d: data after the last element of %v", name, d.at, sh)
	} else if err != io.EOF {
		return nil, fmt.Errorf("idx: %s: byte %d: %w", name, d.at, err)
	}
	return t, nil
}

// decoder reads until its first error.
type decoder struct {
	name string
	r    io.Reader
	at   int64
	err  error
}

func (d *decoder) full(b []byte, what string) {
	if d.err != nil {
		return
	}
	n, err := io.ReadFull(d.r, b)
	d.at += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		d.err = fmt.Errorf("idx: %s: byte %d: the file ends inside %s: it is truncated: %w", d.name, d.at, what, io.ErrUnexpectedEOF)
	} else if err != nil {
		d.err = fmt.Errorf("idx: %s: byte %d: %w", d.name, d.at, err)
	}
}

// elements reads all elements of t, which have in bytes each in the file.
func (d *decoder) elements(t *tensor.Tensor, in int, code byte) {
	const what = "the elements"
	if in == 1 {
		d.full(t.Bytes(), what)
		return
	}
	buf := make([]byte, 1<<13)
	for i := 0; i < t.Len() && d.err == nil; i += len(buf) / in {
		part := buf[:min(len(buf), (t.Len()-i)*in)]
		d.full(part, what)
		for k := range len(part) / in {
			e := part[k*in:]
			switch code {
			case 0x0b:
				t.I32()[i+k] = int32(int16(binary.BigEndian.Uint16(e)))
			case 0x0c:
				t.I32()[i+k] = int32(binary.BigEndian.Uint32(e))
			case 0x0d:
				t.F32()[i+k] = math.Float32frombits(binary.BigEndian.Uint32(e))
			default:
				tensor.Data[float64](t)[i+k] = math.Float64frombits(binary.BigEndian.Uint64(e))
			}
		}
	}
}

// Open reads a file of u8 pictures, [n, height, width] or [n, height, width, channels], and the file of their u8 classes, [n], as a data
// set: see data.FromPixels. Without class names the classes are 0 to the greatest that occurs.
func Open(images, labels string, classNames []string) (data.Dataset, error) {
	x, err := Read(images)
	if err != nil {
		return nil, err
	}
	y, err := Read(labels)
	if err != nil {
		return nil, err
	}
	sh := x.Shape()
	if x.DType() != dtype.U8 || len(sh) != 3 && len(sh) != 4 {
		return nil, fmt.Errorf("idx: %s: holds %v%v, not u8 pictures of 3 or 4 axes (were the two files exchanged?)", images, x.DType(), sh)
	}
	if y.DType() != dtype.U8 || len(y.Shape()) != 1 {
		return nil, fmt.Errorf("idx: %s: holds %v%v, not one u8 class for each picture (were the two files exchanged?)", labels, y.DType(), y.Shape())
	}
	if sh[0] != y.Len() {
		return nil, fmt.Errorf("idx: %s has %d pictures, but %s has %d classes: they do not belong together", images, sh[0], labels, y.Len())
	}
	if classNames == nil {
		n := 0
		for _, c := range y.U8() {
			n = max(n, int(c)+1)
		}
		for i := range n {
			classNames = append(classNames, strconv.Itoa(i))
		}
	}
	image := sh[1:].Clone()
	if len(image) == 2 {
		image = append(image, 1)
	}
	for i, c := range y.U8() {
		if int(c) >= len(classNames) {
			return nil, fmt.Errorf("idx: %s: byte %d: class %d, but there are %d classes", labels, 8+i, c, len(classNames))
		}
	}
	return data.FromPixels(x.U8(), image, y.U8(), classNames)
}
