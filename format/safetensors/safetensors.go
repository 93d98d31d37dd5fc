// Package safetensors reads and writes the safetensors container: named tensors behind a JSON header, nothing executable.
//
// A file is an 8-byte little-endian length, a JSON object of that length, and the tensors' bytes:
//
//	{"__metadata__": {"key": "text", …}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
//
// Offsets count from the end of the header; the tensors fill the rest of the file with neither gaps nor overlaps, little-endian, row-major.
// The format is described at https://huggingface.co/docs/safetensors.
//
// Nothing in a file is believed before it is checked: the header may not be longer than the file (or MaxHeader), a tensor may not be
// larger than its bytes in the file, so memory is bounded by the size of the file (twice it for F16, which is widened to F32).
// Errors name the file, the tensor and the offset, and wrap ErrFormat or ErrChecksum.
//
// The writer is canonical: the same tensors and metadata give the same bytes, whatever their order. It orders tensors as the reference
// implementation does, wider element types first and then by name.
//
// # Checksum
//
// WriteSummed adds the metadata entry ChecksumKey, a SHA-256 over the whole file, length and header included, with the 64 digits of the
// checksum itself taken as zeros. ReadAll verifies it where it is present. Other programs see one more line of metadata.
package safetensors

import (
	"errors"
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// MaxHeader is the longest header, in bytes, that is read or written: the limit of the reference implementation.
const MaxHeader = 100_000_000

// ChecksumKey is the metadata entry that holds "sha256:" and 64 hexadecimal digits.
const ChecksumKey = "joule.checksum"

// MetadataKey is the header's entry for metadata; no tensor may have this name.
const MetadataKey = "__metadata__"

// Errors that every error about a file's content wraps; use errors.Is.
var (
	// ErrFormat: the file is not a valid safetensors file, or is cut short.
	ErrFormat = errors.New("not a valid safetensors file")
	// ErrChecksum: the content differs from what was written.
	ErrChecksum = errors.New("checksum does not match")
)

// Named is a tensor and its name in the file.
type Named struct {
	Name  string
	Value *tensor.Tensor
}

// Info describes a tensor in a file.
type Info struct {
	Name string
	// Stored is the element type as the file spells it, such as "F32", "F16" or "F8_E4M3".
	Stored string
	// DType is the type that Load gives: Stored's own, F32 for F16, and Invalid where Joule has none (Load then fails).
	DType dtype.Type
	Shape shape.Shape
	// Begin and End are the tensor's bytes, counted from the start of the file.
	Begin, End int64
}

// kind is what the format says of one element type.
type kind struct {
	bits int // of one element; some are narrower than a byte
	dt   dtype.Type
}

// kinds lists every element type of the format (version 0.6 added those narrower than a byte), so that a file which holds an
// unsupported one beside others can still be opened.
var kinds = map[string]kind{
	"BOOL": {8, dtype.Bool}, "U8": {8, dtype.U8}, "I8": {8, dtype.I8},
	"F16": {16, dtype.F32}, "BF16": {16, dtype.BF16}, "I16": {bits: 16}, "U16": {bits: 16},
	"F32": {32, dtype.F32}, "I32": {32, dtype.I32}, "U32": {bits: 32},
	"F64": {64, dtype.F64}, "I64": {64, dtype.I64}, "U64": {bits: 64}, "C64": {bits: 64},
	"F8_E4M3": {bits: 8}, "F8_E5M2": {bits: 8}, "F8_E8M0": {bits: 8}, "F8_E4M3FNUZ": {bits: 8}, "F8_E5M2FNUZ": {bits: 8},
	"F4": {bits: 4}, "F6_E2M3": {bits: 6}, "F6_E3M2": {bits: 6},
}

// storedName is the format's name for each type that is written.
var storedName = map[dtype.Type]string{
	dtype.F32: "F32", dtype.F64: "F64", dtype.BF16: "BF16", dtype.I8: "I8", dtype.U8: "U8",
	dtype.I32: "I32", dtype.I64: "I64", dtype.Bool: "BOOL",
}

// formatError wraps ErrFormat with the file and what is wrong.
func formatError(file, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", file, ErrFormat, fmt.Sprintf(format, args...))
}
