package safetensors

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/shape"
)

// checksumBlank stands in the header while the checksum is computed.
var checksumBlank = checksumText(make([]byte, sha256.Size))

func checksumText(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }

// checksumMark precedes the digits in the header. It cannot occur inside a JSON string, where each quotation mark has a backslash
// before it, nor be a tensor's entry, whose value is an object.
var checksumMark = []byte(`"` + ChecksumKey + `":"sha256:`)

// blank returns a copy of a header (with its length) in which the digits of the checksum are zeros.
func blank(header []byte) []byte {
	out := bytes.Clone(header)
	if i := bytes.Index(out, checksumMark); i >= 0 {
		digits := out[i+len(checksumMark):]
		for j := 0; j < min(len(digits), 2*sha256.Size) && digits[j] != '"'; j++ {
			digits[j] = '0'
		}
	}
	return out
}

// Write writes the tensors and the metadata (may be nil) to w and returns the number of bytes. Tensors are streamed from their own
// memory; only the header is built. It fails before the first byte when a name is given twice, is not UTF-8 or is MetadataKey.
func Write(w io.Writer, tensors []Named, metadata map[string]string) (int64, error) {
	sorted, header, err := encode(tensors, metadata)
	if err != nil {
		return 0, err
	}
	return stream(w, header, sorted)
}

// WriteSummed is Write with a checksum over the whole file in the metadata. The tensors may not change meanwhile: they are read twice.
func WriteSummed(w io.Writer, tensors []Named, metadata map[string]string) (int64, error) {
	meta := map[string]string{ChecksumKey: checksumBlank}
	for k, v := range metadata {
		if k == ChecksumKey {
			return 0, fmt.Errorf("safetensors: metadata %q is WriteSummed's own", k)
		}
		meta[k] = v
	}
	sorted, header, err := encode(tensors, meta)
	if err != nil {
		return 0, err
	}
	sum := sha256.New()
	if _, err := stream(sum, header, sorted); err != nil {
		return 0, err
	}
	i := bytes.Index(header, checksumMark) + len(checksumMark)
	hex.Encode(header[i:], sum.Sum(nil))
	return stream(w, header, sorted)
}

// WriteFile is WriteSummed to the file at path, which it replaces as a whole or, on an error, not at all.
func WriteFile(path string, tensors []Named, metadata map[string]string) error {
	err := atomicfile.Write(path, func(w io.Writer) error {
		_, err := WriteSummed(w, tensors, metadata)
		return err
	})
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	return nil
}

// writeOrder is the reference implementation's order of element types: wide ones first, so that each tensor is aligned to its element.
var writeOrder = []dtype.Type{dtype.I64, dtype.F64, dtype.F32, dtype.I32, dtype.BF16, dtype.I8, dtype.U8, dtype.Bool}

// encode orders the tensors and builds the length and the header.
func encode(tensors []Named, metadata map[string]string) (sorted []Named, header []byte, err error) {
	sorted = slices.Clone(tensors)
	for _, t := range sorted {
		switch {
		case t.Value == nil:
			return nil, nil, fmt.Errorf("safetensors: tensor %q is nil", t.Name)
		case t.Name == MetadataKey:
			return nil, nil, fmt.Errorf("safetensors: no tensor may be called %q, the format's own name", t.Name)
		case !utf8.ValidString(t.Name):
			return nil, nil, fmt.Errorf("safetensors: the tensor name %q is not UTF-8", t.Name)
		}
	}
	slices.SortFunc(sorted, func(a, b Named) int {
		return cmp.Or(
			slices.Index(writeOrder, a.Value.DType())-slices.Index(writeOrder, b.Value.DType()),
			strings.Compare(a.Name, b.Name))
	})
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	put := func(v any) { // the encoder ends each value with a newline, which would make the header differ from the reference's
		if e := enc.Encode(v); e != nil && err == nil {
			err = fmt.Errorf("safetensors: %w", e)
		}
		b.Truncate(b.Len() - 1)
	}
	b.WriteByte('{')
	if len(metadata) > 0 {
		for k, v := range metadata {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, nil, fmt.Errorf("safetensors: metadata %q is not UTF-8", k)
			}
		}
		b.WriteString(`"` + MetadataKey + `":`)
		put(metadata)
	}
	names := map[string]bool{}
	at := int64(0)
	for i, t := range sorted {
		if names[t.Name] {
			return nil, nil, fmt.Errorf("safetensors: two tensors are called %q", t.Name)
		}
		names[t.Name] = true
		if i > 0 || len(metadata) > 0 {
			b.WriteByte(',')
		}
		end := at + int64(len(t.Value.Bytes()))
		put(t.Name)
		b.WriteByte(':')
		put(struct {
			DType   string      `json:"dtype"`
			Shape   shape.Shape `json:"shape"`
			Offsets [2]int64    `json:"data_offsets"`
		}{storedName[t.Value.DType()], append(shape.Shape{}, t.Value.Shape()...), [2]int64{at, end}})
		at = end
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 { // the data begin at a multiple of 8, so that readers may map the file
		b.WriteByte(' ')
	}
	if n := b.Len() - 8; n > MaxHeader {
		err = errors.Join(err, fmt.Errorf("safetensors: the names and metadata take %d bytes, the format's limit is %d", n, MaxHeader))
	}
	header = b.Bytes()
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return sorted, header, err
}

// stream writes the header and the tensors' bytes.
func stream(w io.Writer, header []byte, tensors []Named) (int64, error) {
	n, err := w.Write(header)
	total := int64(n)
	for _, t := range tensors {
		if err != nil {
			break
		}
		raw := t.Value.Bytes()
		if len(raw) == 0 {
			continue
		}
		if bigEndian {
			raw = bytes.Clone(raw)
			swap(raw, t.Value.DType().Size())
		}
		n, err = w.Write(raw)
		total += int64(n)
	}
	return total, err
}
