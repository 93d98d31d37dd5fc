// Package tfevents writes the event files that TensorBoard shows: scalars and text over steps.
//
// A file is a sequence of TFRecords, each the length of its payload (8 bytes, little-endian), a masked CRC-32C of those 8 bytes, the
// payload, and a masked CRC-32C of it. The payload is a protocol buffer of type Event; the messages and their field numbers are those of
// tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto and tensor.proto.
//
// Each event is written with one system call, so a kill loses nothing that was reported and leaves at most one cut record at the end,
// which TensorBoard takes for an event that is still being written. A run that is resumed begins another file in the same folder;
// TensorBoard shows both as one.
package tfevents

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jouleml/joule/internal/atomicfile"
)

// Scalar is a value of one curve. Its tag is its name and, up to the last "/", the group in which TensorBoard shows it ("train/loss").
type Scalar struct {
	Tag   string
	Value float64 // stored as float32
}

// Writer appends events to one file. Its methods may be called from several goroutines.
type Writer struct {
	path string
	now  func() time.Time

	mu     sync.Mutex
	f      *os.File
	buf    []byte          // the record being built
	tagged map[string]bool // text tags whose metadata has been written
}

// Create makes a new event file in dir, which is made when it is missing. Its name tells the time, the host and the process,
// as TensorBoard expects.
func Create(dir string) (*Writer, error) {
	return create(dir, time.Now)
}

func create(dir string, now func() time.Time) (*Writer, error) {
	if err := atomicfile.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("tfevents: %w", err)
	}
	host, err := os.Hostname()
	if err != nil || strings.ContainsAny(host, `/\:`) {
		host = "localhost"
	}
	w := &Writer{now: now, tagged: map[string]bool{}}
	for n := 0; ; n++ {
		w.path = filepath.Join(dir, fmt.Sprintf("events.out.tfevents.%010d.%s.%d.%d", now().Unix(), host, os.Getpid(), n))
		w.f, err = os.OpenFile(w.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o666)
		if !errors.Is(err, os.ErrExist) || n == 1000 {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("tfevents: %w%s", err, atomicfile.Remedy(err))
	}
	// Field 3, file_version: readers refuse a file that does not begin with it.
	if err := w.write(0, func(b []byte) []byte { return appendString(b, 3, "brain.Event:2") }); err != nil {
		w.f.Close()
		return nil, err
	}
	return w, nil
}

// Path is the file's path.
func (w *Writer) Path() string { return w.path }

// Scalars writes values that belong to one step as one event.
func (w *Writer) Scalars(step int64, values ...Scalar) error {
	if len(values) == 0 {
		return nil
	}
	for _, v := range values {
		if v.Tag == "" {
			return errors.New("tfevents: a scalar without a tag")
		}
	}
	return w.write(step, func(b []byte) []byte {
		return appendMessage(b, 5, func(b []byte) []byte { // Event.summary
			for _, v := range values {
				b = appendMessage(b, 1, func(b []byte) []byte { // Summary.value
					b = appendString(b, 1, v.Tag)
					b = protowire.AppendTag(b, 2, protowire.Fixed32Type) // simple_value
					return protowire.AppendFixed32(b, math.Float32bits(float32(v.Value)))
				})
			}
			return b
		})
	})
}

// Text writes Markdown for the text tab.
func (w *Writer) Text(tag string, step int64, markdown string) error {
	if tag == "" {
		return errors.New("tfevents: text without a tag")
	}
	return w.write(step, func(b []byte) []byte {
		return appendMessage(b, 5, func(b []byte) []byte { // Event.summary
			return appendMessage(b, 1, func(b []byte) []byte { // Summary.value
				b = appendString(b, 1, tag)
				b = appendMessage(b, 8, func(b []byte) []byte { // tensor
					b = appendVarint(b, 1, 7)                                   // dtype: DT_STRING
					b = appendMessage(b, 2, func(b []byte) []byte { return b }) // tensor_shape: a scalar
					return appendString(b, 8, markdown)                         // string_val
				})
				if w.tagged[tag] {
					return b
				}
				w.tagged[tag] = true
				return appendMessage(b, 9, func(b []byte) []byte { // metadata, needed with a tag's first value
					b = appendMessage(b, 1, func(b []byte) []byte { return appendString(b, 1, "text") }) // plugin_data.plugin_name
					return appendVarint(b, 4, 2)                                                         // data_class: DATA_CLASS_TENSOR
				})
			})
		})
	})
}

// write builds an Event around what body appends, frames it and writes it.
func (w *Writer) write(step int64, body func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return fmt.Errorf("tfevents: %s: %w", w.path, os.ErrClosed)
	}
	b := append(w.buf[:0], make([]byte, 12)...)
	b = protowire.AppendTag(b, 1, protowire.Fixed64Type) // wall_time
	b = protowire.AppendFixed64(b, math.Float64bits(float64(w.now().UnixMicro())/1e6))
	if step != 0 {
		b = appendVarint(b, 2, uint64(step))
	}
	b = body(b)
	binary.LittleEndian.PutUint64(b, uint64(len(b)-12))
	binary.LittleEndian.PutUint32(b[8:], masked(b[:8]))
	b = binary.LittleEndian.AppendUint32(b, masked(b[12:]))
	w.buf = b
	if _, err := w.f.Write(b); err != nil {
		return fmt.Errorf("tfevents: %w%s", err, atomicfile.Remedy(err))
	}
	return nil
}

// Close flushes the file to the disk and closes it. A second Close does nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	err := w.f.Sync()
	if e := w.f.Close(); err == nil {
		err = e
	}
	w.f = nil
	if err != nil {
		return fmt.Errorf("tfevents: %w%s", err, atomicfile.Remedy(err))
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is the CRC-32C as TFRecord stores it: rotated and shifted, so that the CRC of data which hold CRCs is no trivial value.
func masked(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, strings.ToValidUTF8(s, "\ufffd"))
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// appendMessage appends a nested message: its length is known only once it is built, and is then put before it.
func appendMessage(b []byte, field protowire.Number, body func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	start := len(b)
	b = body(b)
	var length [10]byte
	n := protowire.AppendVarint(length[:0], uint64(len(b)-start))
	return slices.Insert(b, start, n...)
}
