package safetensors

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// File is an open safetensors file whose header has been read and checked. Its methods may be called from several goroutines.
type File struct {
	name   string
	r      io.ReaderAt
	closer io.Closer
	header []byte // the length and the JSON as they stand in the file
	size   int64
	infos  []Info // by Begin
	index  map[string]int
	meta   map[string]string
}

// Open reads and checks the header of the file at path; tensors are read by Load and ReadAll. Close it after use.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	var out *File
	if err == nil {
		out, err = NewFile(f, st.Size(), path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	out.closer = f
	return out, nil
}

// NewFile is Open over size bytes of r; name stands for the file in errors. Close does nothing then.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{name: name, r: r, size: size}
	var length [8]byte
	if size < 8 {
		return nil, formatError(name, "%d bytes long; the shortest file has 8 bytes of length and a header", size)
	}
	if _, err := r.ReadAt(length[:], 0); err != nil {
		return nil, fmt.Errorf("%s: reading the header's length: %w", name, err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n > MaxHeader:
		return nil, formatError(name, "offset 0: header of %d bytes, the limit is %d", n, MaxHeader)
	case int64(n) > size-8:
		return nil, formatError(name, "offset 0: header of %d bytes, but only %d follow; the file is cut short or is something else", n, size-8)
	}
	f.header = make([]byte, 8+n)
	if _, err := r.ReadAt(f.header, 0); err != nil && !(errors.Is(err, io.EOF) && 8+int64(n) == size) {
		return nil, fmt.Errorf("%s: reading the header: %w", name, err)
	}
	if err := f.parse(f.header[8:]); err != nil {
		return nil, err
	}
	if err := f.layout(); err != nil {
		return nil, err
	}
	return f, nil
}

// entry is a tensor's description in the header.
type entry struct {
	DType   string  `json:"dtype"`
	Shape   []int64 `json:"shape"`
	Offsets []int64 `json:"data_offsets"`
}

// parse reads the JSON token by token, because duplicate names must be seen.
func (f *File) parse(header []byte) error {
	if len(header) == 0 || header[0] != '{' {
		return formatError(f.name, "offset 8: the header does not begin with {")
	}
	if !utf8.Valid(header) {
		return formatError(f.name, "the header is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(header))
	bad := func(what string, err error) error {
		return formatError(f.name, "offset %d: %s: %v", 8+dec.InputOffset(), what, err)
	}
	if _, err := dec.Token(); err != nil {
		return bad("header", err)
	}
	f.index = map[string]int{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return bad("header", err)
		}
		name, ok := key.(string)
		if !ok {
			return bad("header", fmt.Errorf("%v is not a name", key))
		}
		if name == MetadataKey {
			if f.meta != nil {
				return bad("header", errors.New("metadata given twice"))
			}
			if f.meta, err = parseMetadata(dec); err != nil {
				return bad("metadata", err)
			}
			continue
		}
		if _, dup := f.index[name]; dup {
			return bad("header", fmt.Errorf("tensor %q given twice", name))
		}
		var e entry
		if err := dec.Decode(&e); err != nil {
			return bad(fmt.Sprintf("tensor %q", name), err)
		}
		info, err := e.info(int64(len(f.header)), f.size)
		if err != nil {
			return bad(fmt.Sprintf("tensor %q", name), err)
		}
		info.Name = name
		f.index[name] = len(f.infos)
		f.infos = append(f.infos, info)
	}
	if _, err := dec.Token(); err != nil {
		return bad("header", err)
	}
	if rest := bytes.Trim(header[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return bad("header", errors.New("more text after the closing }"))
	}
	return nil
}

// parseMetadata reads an object of strings.
func parseMetadata(dec *json.Decoder) (map[string]string, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if t != json.Delim('{') {
		return nil, fmt.Errorf("%v where an object of strings should be", t)
	}
	meta := map[string]string{}
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return nil, err
		}
		v, err := dec.Token()
		if err != nil {
			return nil, err
		}
		ks, ok1 := k.(string)
		vs, ok2 := v.(string)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("entry %v is not text", k)
		}
		if _, dup := meta[ks]; dup {
			return nil, fmt.Errorf("entry %q given twice", ks)
		}
		meta[ks] = vs
	}
	_, err = dec.Token()
	return meta, err
}

// info checks the entry against itself and against a file of size bytes whose data begin at base.
func (e *entry) info(base, size int64) (Info, error) {
	k, ok := kinds[e.DType]
	if !ok {
		return Info{}, fmt.Errorf("unknown dtype %q", e.DType)
	}
	if e.Shape == nil {
		return Info{}, errors.New("no shape")
	}
	if len(e.Offsets) != 2 {
		return Info{}, fmt.Errorf("data_offsets has %d numbers, not 2", len(e.Offsets))
	}
	sh := make(shape.Shape, len(e.Shape))
	for i, d := range e.Shape {
		sh[i] = int(d)
	}
	if err := sh.Check(); err != nil {
		return Info{}, err
	}
	bits := int64(sh.Size()) * int64(k.bits)
	if bits%8 != 0 {
		return Info{}, fmt.Errorf("%s%v does not fill whole bytes", e.DType, sh)
	}
	lo, hi := e.Offsets[0], e.Offsets[1]
	switch {
	case lo < 0 || hi < lo:
		return Info{}, fmt.Errorf("data_offsets [%d, %d] run backwards", lo, hi)
	case hi > size-base:
		return Info{}, fmt.Errorf("its bytes end at %d of the data, but the file holds only %d; the file is cut short", hi, size-base)
	case hi-lo != bits/8:
		return Info{}, fmt.Errorf("%s%v takes %d bytes, data_offsets [%d, %d] hold %d", e.DType, sh, bits/8, lo, hi, hi-lo)
	}
	return Info{Stored: e.DType, DType: k.dt, Shape: sh, Begin: base + lo, End: base + hi}, nil
}

// layout orders the tensors by offset and checks that they fill the data exactly.
func (f *File) layout() error {
	slices.SortStableFunc(f.infos, func(a, b Info) int {
		// An empty tensor stands before the one that begins where it does.
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End))
	})
	at := int64(len(f.header))
	last := "the header"
	for i, t := range f.infos {
		switch {
		case t.Begin < at:
			return formatError(f.name, "offset %d: tensor %q overlaps %s, which ends at %d", t.Begin, t.Name, last, at)
		case t.Begin > at:
			return formatError(f.name, "offset %d: %d bytes between %s and tensor %q belong to nothing", at, t.Begin-at, last, t.Name)
		}
		at, last = t.End, fmt.Sprintf("tensor %q", t.Name)
		f.index[t.Name] = i
	}
	if at != f.size {
		return formatError(f.name, "offset %d: %d bytes after %s belong to nothing", at, f.size-at, last)
	}
	return nil
}

// Tensors describes every tensor, in the order of their bytes. The caller may not change it.
func (f *File) Tensors() []Info { return f.infos }

// Metadata is the header's metadata, nil when it has none. The caller may not change it.
func (f *File) Metadata() map[string]string { return f.meta }

// Close closes the file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Load reads one tensor into new memory. F16 becomes F32 (exactly). It does not verify the checksum, which covers the whole file.
func (f *File) Load(name string) (*tensor.Tensor, error) {
	in, err := f.find(name)
	if err != nil {
		return nil, err
	}
	t, err := f.load(in, nil)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return t, nil
}

// Part is elements lo <= i < hi along an axis of one tensor, in new memory: of the file no more is read, but for short pieces what lies between them. Like Load it does not verify the checksum.
func (f *File) Part(name string, axis, lo, hi int) (*tensor.Tensor, error) {
	in, err := f.find(name)
	if err != nil {
		return nil, err
	}
	if axis < 0 || axis >= len(in.Shape) || lo < 0 || hi < lo || hi > in.Shape[axis] {
		return nil, fmt.Errorf("safetensors: %s: tensor %q is %v: it has no elements %d to %d along axis %d", f.name, name, in.Shape, lo, hi, axis)
	}
	bits := kinds[in.Stored].bits
	if in.DType == dtype.Invalid || bits%8 != 0 {
		return nil, fmt.Errorf("safetensors: %w", f.foreign(in))
	}
	sh := in.Shape.Clone()
	sh[axis] = hi - lo
	size := bits / 8
	each := in.Shape[axis+1:].Size() * size
	piece, stride := (hi-lo)*each, in.Shape[axis]*each
	raw := tensor.AlignedBytes(sh.Size() * size)
	read := func(p []byte, i int) error { // from piece i on
		return f.read(in, p, in.Begin+int64(i)*int64(stride)+int64(lo*each))
	}
	pieces := in.Shape[:axis].Size()
	if len(raw) == 0 {
		pieces = 0
	}
	const near, room = 8 << 10, 1 << 20 // bytes between pieces up to which reading on is less than another read, and of what is read at once then
	if together := room / max(1, stride); pieces > 1 && stride <= near && piece < stride {
		buf := make([]byte, min(together, pieces)*stride)
		for k := 0; k < pieces; k += together {
			n := min(together, pieces-k)
			b := buf[:(n-1)*stride+piece]
			if err := read(b, k); err != nil {
				return nil, fmt.Errorf("safetensors: %w", err)
			}
			for j := range n {
				copy(raw[(k+j)*piece:(k+j+1)*piece], b[j*stride:])
			}
		}
	} else {
		for k := range pieces {
			if err := read(raw[k*piece:(k+1)*piece], k); err != nil {
				return nil, fmt.Errorf("safetensors: %w", err)
			}
		}
	}
	in.Shape = sh
	t, err := f.decode(in, raw)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return t, nil
}

func (f *File) find(name string) (Info, error) {
	i, ok := f.index[name]
	if !ok {
		return Info{}, fmt.Errorf("safetensors: %s holds no tensor %q%s", f.name, name, f.nearby(name))
	}
	return f.infos[i], nil
}

// foreign is the error of a tensor of a type that no tensor of ours has.
func (f *File) foreign(in Info) error {
	return fmt.Errorf("%s: tensor %q has dtype %s, which Joule does not compute with; convert it to F32 first", f.name, in.Name, in.Stored)
}

// read fills p with bytes of a tensor, from an offset in the file on.
func (f *File) read(in Info, p []byte, at int64) error {
	if len(p) == 0 {
		return nil
	}
	if n, err := f.r.ReadAt(p, at); n < len(p) {
		return fmt.Errorf("%s: tensor %q at offset %d: %w", f.name, in.Name, at+int64(n), err)
	}
	return nil
}

// nearby lists the tensors whose names contain the last part of name, or a few of all.
func (f *File) nearby(name string) string {
	part := name[strings.LastIndexAny(name, "/.")+1:]
	var some []string
	for _, t := range f.infos {
		if len(some) < 5 && strings.Contains(t.Name, part) {
			some = append(some, fmt.Sprintf("%q", t.Name))
		}
	}
	for _, t := range f.infos {
		if len(some) == 0 || (len(some) < 5 && !strings.Contains(t.Name, part)) {
			some = append(some, fmt.Sprintf("%q", t.Name))
		}
	}
	if len(some) == 0 {
		return " (it is empty)"
	}
	return fmt.Sprintf(" (it has %d, such as %s)", len(f.infos), strings.Join(some, ", "))
}

// load reads the tensor and adds its bytes as stored to sum, when there is one.
func (f *File) load(in Info, sum hash.Hash) (*tensor.Tensor, error) {
	if in.DType == dtype.Invalid {
		return nil, f.foreign(in)
	}
	raw := tensor.AlignedBytes(int(in.End - in.Begin))
	if err := f.read(in, raw, in.Begin); err != nil {
		return nil, err
	}
	if sum != nil {
		sum.Write(raw)
	}
	return f.decode(in, raw)
}

// decode makes a tensor of bytes as they stand in the file.
func (f *File) decode(in Info, raw []byte) (*tensor.Tensor, error) {
	if bigEndian {
		swap(raw, kinds[in.Stored].bits/8)
	}
	if in.Stored == "F16" {
		t := tensor.New(dtype.F32, in.Shape...)
		for i, d := 0, t.F32(); i < len(d); i++ {
			d[i] = halfToFloat(binary.NativeEndian.Uint16(raw[2*i:]))
		}
		return t, nil
	}
	if in.DType == dtype.Bool {
		for i, b := range raw {
			if b > 1 { // a Go bool with another bit pattern misbehaves
				return nil, formatError(f.name, "offset %d: tensor %q: byte %d is not a BOOL", in.Begin+int64(i), in.Name, b)
			}
		}
	}
	return tensor.Wrap(in.DType, in.Shape, raw), nil
}

// ReadAll reads every tensor, in the order of their bytes, and verifies the checksum when the metadata holds one.
func (f *File) ReadAll() ([]Named, error) {
	want, summed := f.meta[ChecksumKey]
	var sum hash.Hash
	if summed {
		sum = sha256.New()
		sum.Write(blank(f.header))
	}
	out := make([]Named, 0, len(f.infos))
	for _, in := range f.infos {
		t, err := f.load(in, sum)
		if err != nil {
			// A bad byte in a summed file is first of all a file that is not what was written.
			if summed && errors.Is(err, ErrFormat) {
				err = fmt.Errorf("%w (%w)", err, ErrChecksum)
			}
			return nil, fmt.Errorf("safetensors: %w", err)
		}
		out = append(out, Named{in.Name, t})
	}
	if summed {
		if got := checksumText(sum.Sum(nil)); got != want {
			return nil, fmt.Errorf("safetensors: %s: %w: the file was damaged, or rewritten by another program, after it was written (it says %s, its bytes give %s)", f.name, ErrChecksum, want, got)
		}
	}
	return out, nil
}

// ReadFile opens path, reads everything and verifies the checksum when there is one.
func ReadFile(path string) (tensors []Named, metadata map[string]string, err error) {
	f, err := Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	tensors, err = f.ReadAll()
	if err != nil {
		return nil, nil, err
	}
	return tensors, f.meta, nil
}

// halfToFloat widens an IEEE 754 binary16 exactly.
func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0: // zero or subnormal: frac · 2⁻²⁴
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// bigEndian machines hold a tensor's elements the other way round than the file.
var bigEndian = binary.NativeEndian.Uint16([]byte{1, 0}) != 1

// swap reverses the bytes of each element.
func swap(raw []byte, size int) {
	for size > 1 && len(raw) >= size {
		slices.Reverse(raw[:size])
		raw = raw[size:]
	}
}
