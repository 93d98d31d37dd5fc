// Package checkpoint saves and restores the whole state of a training, so that a run that was killed at any instant goes on with the same bits.
//
// A checkpoint is one safetensors file. Its tensors are the weights and the optimiser's state; its metadata holds the step, the epoch and
// named sections of JSON that this package does not look into (model, configuration, random counters, data position, history, ledger),
// and a SHA-256 over the whole file. Any program that reads safetensors can read the weights.
//
// Save is atomic and durable (package internal/atomicfile): on a full disk, in a read-only folder, after a kill or a loss of power there is
// the old file or the new one. Load believes nothing that the checksum does not confirm.
//
// Folder keeps the last few checkpoints of a run and the best; Latest finds the newest that is whole.
package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Names of the sections that Joule's own training writes. Others may be added freely.
const (
	SectionModel     = "model"     // the model's description: layers and their options
	SectionConfig    = "config"    // how it is trained: optimiser, loss, batch size, the spec's own bytes
	SectionRandom    = "random"    // seed and counters of the random numbers
	SectionData      = "data"      // where in the data, and in which order
	SectionOptimizer = "optimizer" // the optimiser's state that is not tensors
	SectionHistory   = "history"   // losses and metrics so far
	SectionLedger    = "ledger"    // FLOPs, bytes, seconds and joules so far
)

// State is everything that a training needs to go on.
type State struct {
	// Step counts updates, Epoch whole passes over the data.
	Step, Epoch int64
	// Score is the watched value, the higher the better (negate a loss); NaN when nothing is watched.
	Score float64
	// Sections are kept byte for byte. Each must be valid JSON in UTF-8.
	Sections map[string]json.RawMessage
	// Tensors have distinct names. Save accepts any order, Load gives the file's (wider types first, then by name).
	Tensors []safetensors.Named
}

// Tensor is the tensor of that name, nil when there is none.
func (s *State) Tensor(name string) *tensor.Tensor {
	for _, t := range s.Tensors {
		if t.Name == name {
			return t.Value
		}
	}
	return nil
}

// Keys of the metadata. "joule.checkpoint" holds the version of this list.
const (
	keyVersion = "joule.checkpoint"
	keyStep    = "joule.step"
	keyEpoch   = "joule.epoch"
	keyScore   = "joule.score"
	keySection = "joule.section." // and the section's name

	version = "1"
)

// ErrCorrupt is wrapped by every error about a checkpoint that is cut short, damaged or none at all.
var ErrCorrupt = errors.New("damaged or not a checkpoint")

// Save writes s to path, atomically: it replaces the file there as a whole or leaves it as it was.
// The tensors may not change until it returns.
func Save(path string, s *State) error { return save(atomicfile.OS, path, s) }

func save(fsys atomicfile.FS, path string, s *State) error {
	meta, err := s.metadata()
	if err != nil {
		return fmt.Errorf("checkpoint: saving %s: %w", path, err)
	}
	err = atomicfile.WriteFS(fsys, path, func(w io.Writer) error {
		_, err := safetensors.WriteSummed(w, s.Tensors, meta)
		return err
	})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// metadata turns everything but the tensors into the file's strings.
func (s *State) metadata() (map[string]string, error) {
	if s.Step < 0 || s.Epoch < 0 {
		return nil, fmt.Errorf("step %d and epoch %d may not be negative", s.Step, s.Epoch)
	}
	meta := map[string]string{
		keyVersion: version,
		keyStep:    strconv.FormatInt(s.Step, 10),
		keyEpoch:   strconv.FormatInt(s.Epoch, 10),
	}
	if !math.IsNaN(s.Score) {
		meta[keyScore] = strconv.FormatFloat(s.Score, 'g', -1, 64)
	}
	for name, text := range s.Sections {
		if !json.Valid(text) || !utf8.Valid(text) {
			return nil, fmt.Errorf("section %q is not valid JSON in UTF-8", name)
		}
		meta[keySection+name] = string(text)
	}
	return meta, nil
}

// SavePacked is Save in few bytes: the file holds one tensor of bytes, in which sections and tensors are packed without loss (package format/packed). Load and Peek read it like any other; other programs cannot.
func SavePacked(path string, s *State) error {
	var b bytes.Buffer
	if err := WritePacked(&b, s); err != nil {
		return fmt.Errorf("checkpoint: saving %s: %w", path, err)
	}
	if err := atomicfile.WriteBytes(path, b.Bytes()); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// WritePacked writes the file that SavePacked saves.
func WritePacked(w io.Writer, s *State) error {
	meta, err := s.metadata()
	if err != nil {
		return err
	}
	blob, err := pack(s)
	if err != nil {
		return err
	}
	for k := range meta {
		if strings.HasPrefix(k, keySection) {
			delete(meta, k)
		}
	}
	meta[keyVersion] = packedVersion
	_, err = safetensors.WriteSummed(w, []safetensors.Named{{Name: packedTensor, Value: tensor.Wrap(dtype.U8, shape.Of(len(blob)), blob)}}, meta)
	return err
}

// Load reads and verifies the checkpoint at path. An error that wraps ErrCorrupt means that this file is lost; Latest finds an older one.
func Load(path string) (*State, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := parse(path, f.Metadata())
	if err != nil {
		return nil, err
	}
	if s.Tensors, err = f.ReadAll(); err != nil {
		return nil, corrupt(path, err)
	}
	if f.Metadata()[keyVersion] == packedVersion {
		return s, unpack(path, s, true)
	}
	return s, nil
}

// File is a checkpoint of which tensors, or parts of them, are read one by one: for a process that has no room, or no use, for all of it. What is read so is not verified, since the checksum is that of the
// whole file.
type File struct {
	State // its tensors are nil
	path  string
	f     *safetensors.File
}

// Open opens the checkpoint at path, which is not a packed one (SavePacked): of those Load reads the whole. Close it after use.
func Open(path string) (*File, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	s, err := parse(path, f.Metadata())
	if err == nil && f.Metadata()[keyVersion] == packedVersion {
		err = fmt.Errorf("checkpoint %s: it is packed, and parts of it cannot be read: Load reads the whole", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{State: *s, path: path, f: f}, nil
}

// Packed reports whether the file at path is one of SavePacked.
func Packed(path string) (bool, error) {
	f, err := open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return f.Metadata()[keyVersion] == packedVersion, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Infos describes the tensors.
func (f *File) Infos() []safetensors.Info { return f.f.Tensors() }

// Read reads one tensor.
func (f *File) Read(name string) (*tensor.Tensor, error) {
	t, err := f.f.Load(name)
	if err != nil {
		return nil, corrupt(f.path, err)
	}
	return t, nil
}

// Part reads elements lo <= i < hi along an axis of one tensor.
func (f *File) Part(name string, axis, lo, hi int) (*tensor.Tensor, error) {
	t, err := f.f.Part(name, axis, lo, hi)
	if err != nil {
		return nil, corrupt(f.path, err)
	}
	return t, nil
}

// Peek is Load without the tensors: it reads the header only, and so cannot verify the checksum.
func Peek(path string) (*State, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := parse(path, f.Metadata())
	if err != nil || f.Metadata()[keyVersion] != packedVersion {
		return s, err
	}
	t, err := f.Load(packedTensor)
	if err != nil {
		return nil, corrupt(path, err)
	}
	s.Tensors = []safetensors.Named{{Name: packedTensor, Value: t}}
	return s, unpack(path, s, false)
}

func open(path string) (*safetensors.File, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, corrupt(path, err)
	}
	return f, nil
}

// corrupt adds ErrCorrupt and the remedy where err is about the content, and passes on an error of the file system.
func corrupt(path string, err error) error {
	if errors.Is(err, safetensors.ErrFormat) || errors.Is(err, safetensors.ErrChecksum) {
		remedy := "copy or make the file again"
		if fileName.MatchString(filepath.Base(path)) {
			remedy = "delete the file and resume from an older checkpoint in the same folder"
		}
		return fmt.Errorf("checkpoint: %w: %w; %s", ErrCorrupt, err, remedy)
	}
	return fmt.Errorf("checkpoint: %w", err)
}

// parse is the inverse of metadata.
func parse(path string, meta map[string]string) (*State, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("checkpoint %s: %w: %s", path, ErrCorrupt, fmt.Sprintf(format, args...))
	}
	switch v, ok := meta[keyVersion]; {
	case !ok:
		return nil, bad("a safetensors file, but its metadata has no %q; it may hold weights alone", keyVersion)
	case v != version && v != packedVersion:
		return nil, fmt.Errorf("checkpoint %s: written in version %q of the format, this program reads version %s; use the program that wrote it or a newer one", path, v, version)
	}
	if _, ok := meta[safetensors.ChecksumKey]; !ok {
		return nil, bad("it has no checksum, another program has rewritten it")
	}
	s := &State{Score: math.NaN(), Sections: map[string]json.RawMessage{}}
	for _, n := range []struct {
		key string
		to  *int64
	}{{keyStep, &s.Step}, {keyEpoch, &s.Epoch}} {
		v, err := strconv.ParseInt(meta[n.key], 10, 64)
		if err != nil || v < 0 {
			return nil, bad("metadata %q is %q, not a count", n.key, meta[n.key])
		}
		*n.to = v
	}
	if t, ok := meta[keyScore]; ok {
		v, err := strconv.ParseFloat(t, 64)
		if err != nil {
			return nil, bad("metadata %q is %q, not a number", keyScore, t)
		}
		s.Score = v
	}
	for k, v := range meta {
		if name, ok := strings.CutPrefix(k, keySection); ok {
			if !json.Valid([]byte(v)) {
				return nil, bad("section %q is not JSON", name)
			}
			s.Sections[name] = json.RawMessage(v)
		}
	}
	return s, nil
}
