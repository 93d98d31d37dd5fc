package checkpoint

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/format/packed"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/shape"
)

// A packed checkpoint: the length of its list, the list (JSON, deflated), and what each tensor was coded to, one behind the other.

const (
	packedVersion = "packed 1"
	packedTensor  = "packed"
	// longestList is the most bytes that a list may inflate to.
	longestList = 64 << 20
)

// packedList is what a packed checkpoint holds.
type packedList struct {
	Sections map[string]json.RawMessage `json:"sections"`
	Tensors  []packedEntry              `json:"tensors"`
}

// packedEntry is a tensor of it.
type packedEntry struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	Bytes int    `json:"bytes"` // that it was coded to
}

func pack(s *State) ([]byte, error) {
	l := packedList{Sections: s.Sections}
	var coded bytes.Buffer
	for _, t := range s.Tensors {
		b := packed.Encode(t.Value)
		coded.Write(b)
		l.Tensors = append(l.Tensors, packedEntry{t.Name, t.Value.DType().String(), append([]int{}, t.Value.Shape()...), len(b)})
	}
	list, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	var deflated bytes.Buffer
	w, err := flate.NewWriter(&deflated, flate.BestCompression)
	if err == nil {
		_, err = w.Write(list)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, err
	}
	out := binary.AppendUvarint(nil, uint64(deflated.Len()))
	return append(append(out, deflated.Bytes()...), coded.Bytes()...), nil
}

// unpack puts what is packed in the only tensor of s in its place; without tensors, the sections alone.
func unpack(path string, s *State, tensors bool) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("checkpoint %s: %w: %w", path, ErrCorrupt, fmt.Errorf(format, args...))
	}
	t := s.Tensor(packedTensor)
	if t == nil || t.DType() != dtype.U8 {
		return bad("it is packed, but has no bytes named %q", packedTensor)
	}
	b := t.U8()
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return bad("a list of %d bytes in %d", n, len(b))
	}
	b = b[used:]
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b[:n])), longestList+1))
	if err != nil {
		return bad("its list: %w", err)
	}
	if len(text) > longestList {
		return bad("its list has more than %d bytes", longestList)
	}
	var l packedList
	if err := json.Unmarshal(text, &l); err != nil {
		return bad("its list: %w", err)
	}
	s.Sections, s.Tensors = l.Sections, nil
	if s.Sections == nil {
		s.Sections = map[string]json.RawMessage{}
	}
	if !tensors {
		return nil
	}
	b = b[n:]
	seen := map[string]bool{}
	for _, e := range l.Tensors {
		dt, err := dtype.Parse(e.DType)
		if err != nil || e.Bytes < 0 || e.Bytes > len(b) || seen[e.Name] {
			return bad("tensor %q of %s in %d of %d bytes", e.Name, e.DType, e.Bytes, len(b))
		}
		seen[e.Name] = true
		v, err := packed.Decode(b[:e.Bytes], dt, shape.Of(e.Shape...))
		if err != nil {
			return bad("tensor %q: %w", e.Name, err)
		}
		s.Tensors = append(s.Tensors, safetensors.Named{Name: e.Name, Value: v})
		b = b[e.Bytes:]
	}
	return nil
}
