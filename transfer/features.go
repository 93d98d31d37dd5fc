package transfer

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// A file of results holds what a model gives for each example of a data set: a magic word, the length of a header and the header (JSON), one row of bytes for each example, and the SHA-256 of all that. Its name is a
// hash of the model's weights and of the data, so a file never stands for something else.

const magic = "joule results 1\n"

// maxHeader bounds the header of a file of results.
const maxHeader = 1 << 24

// header describes the rows.
type header struct {
	Spec data.Spec `json:"spec"`
	Rows int       `json:"rows"`
}

// Results are what a model gives for the examples of a data set, on disk: inputs are its predictions, and what was kept of the inputs; targets are those of the data set.
type Results struct {
	Data     data.Dataset
	Path     string
	Computed bool // now; else the file was there
}

// Features gives the data set of which the inputs are what the frozen layers of a divided model give, each example computed once: in a file in the folder cache, which is read again as long as weights and data are the same.
// Examples must not be changed at random as they are loaded. Random layers among the frozen ones let everything pass.
func Features(ctx context.Context, d *train.Divided, ds data.Dataset, batch int, cache string) (*Results, error) {
	return results(ctx, d.Body, d.Head.Spec, d.Kept, ds, batch, cache)
}

// Predictions gives the data set with one more target, what the model predicts for each example, kept in a file as Features does: the predictions of a teacher that runs once (see train.Teacher).
func Predictions(ctx context.Context, m *train.Model, ds data.Dataset, batch int, cache string) (*Results, error) {
	own, err := m.Outputs()
	if err != nil {
		return nil, err
	}
	spec := data.Spec{Inputs: []data.Field{own}}
	r, err := results(ctx, m, spec, nil, ds, batch, cache)
	if err != nil {
		return nil, err
	}
	said := r.Data.(*stored)
	r.Data = &taught{Dataset: ds, said: said, field: own}
	if b, ok := ds.(data.Bucketed); ok {
		r.Data = &taughtInSizes{taught{Dataset: ds, said: said, field: own}, b}
	}
	return r, nil
}

// results computes or opens a file; spec says what a row holds: first what m gives, then the inputs kept, then the targets.
func results(ctx context.Context, m *train.Model, spec data.Spec, kept []int, ds data.Dataset, batch int, cache string) (*Results, error) {
	if batch < 1 {
		batch = 32
	}
	key, err := keyOf(m, kept, ds)
	if err != nil {
		return nil, err
	}
	r := &Results{Path: filepath.Join(cache, key+".results")}
	s, err := open(r.Path, ds.Len())
	switch {
	case err == nil:
		r.Data = s
		return r, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errDamaged):
	default:
		return nil, err
	}
	if err := atomicfile.MkdirAll(cache); err != nil {
		return nil, fmt.Errorf("transfer: %w", err)
	}
	if err := atomicfile.Write(r.Path, func(w io.Writer) error { return compute(ctx, w, m, spec, kept, ds, batch) }); err != nil {
		return nil, fmt.Errorf("transfer: %w", err)
	}
	r.Computed = true
	if s, err = open(r.Path, ds.Len()); err != nil {
		return nil, err
	}
	r.Data = s
	return r, nil
}

// keyOf is a hash of weights and data.
func keyOf(m *train.Model, kept []int, ds data.Dataset) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %v ", magic, kept)
	if err := HashModel(sum, m); err != nil {
		return "", err
	}
	if err := hashData(sum, ds); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil))[:32], nil
}

// HashModel writes what a model computes into a hash: its layers and all of its parameters. Files of what a model has said are named after it.
func HashModel(sum hash.Hash, m *train.Model) error {
	said, err := m.Describe()
	if err != nil {
		return err
	}
	fmt.Fprintf(sum, " %d ", len(said))
	sum.Write(said)
	for _, p := range m.Params() {
		v, err := m.State().Get(p.Name)
		if err != nil {
			return fmt.Errorf("transfer: %w", err)
		}
		fmt.Fprintf(sum, " %s %v ", p.Name, v.Shape())
		sum.Write(v.Bytes())
	}
	return nil
}

func hashData(sum hash.Hash, ds data.Dataset) error {
	j, err := json.Marshal(ds.Spec())
	if err != nil {
		return fmt.Errorf("transfer: %w", err)
	}
	sum.Write(j)
	err = data.Each(ds, 256, func(_ int, x, y []*tensor.Tensor) error {
		for _, t := range slices.Concat(x, y) {
			sum.Write(t.Bytes())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("transfer: %w", err)
	}
	return nil
}

// compute writes a file: rows in the order of the examples, computed size by size where examples come in several.
func compute(ctx context.Context, w io.Writer, m *train.Model, spec data.Spec, kept []int, ds data.Dataset, batch int) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<20)
	h, err := json.Marshal(header{spec, ds.Len()})
	if err != nil {
		return err
	}
	out.WriteString(magic)
	out.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(h))))
	out.Write(h)
	row := rowSize(spec)
	sizes := []data.Spec{ds.Spec()}
	size := func(int) int { return 0 }
	if b, ok := ds.(data.Bucketed); ok && m.OneShape() {
		sizes, size = b.Buckets(), b.Bucket
	}
	const some = 4096 // rows kept in memory until they are written
	for from := 0; from < ds.Len(); from += some {
		rows := make([]byte, min(some, ds.Len()-from)*row)
		by := make([][]int, len(sizes))
		for i := from; i < min(from+some, ds.Len()); i++ {
			by[size(i)] = append(by[size(i)], i)
		}
		for k, all := range by {
			for len(all) > 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
				n := min(batch, len(all))
				whole := slices.Clone(all[:n])
				for len(whole) < min(batch, ds.Len()) { // a program for each odd size of the last batches would cost more than what fills them up
					whole = append(whole, whole[0])
				}
				x, y := sizes[k].Tensors(len(whole))
				if err := ds.Fill(whole, x, y); err != nil {
					return err
				}
				said, err := m.PredictBatch(x...)
				if err != nil {
					return err
				}
				parts := []*tensor.Tensor{said}
				for _, i := range kept {
					parts = append(parts, x[i])
				}
				if len(spec.Targets) > 0 {
					parts = append(parts, y...)
				}
				for r, i := range all[:n] {
					at := rows[(i-from)*row:]
					for _, p := range parts {
						at = at[copy(at, p.Slice(r, r+1).Bytes()):]
					}
				}
				all = all[n:]
			}
		}
		if _, err := out.Write(rows); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

// rowSize is the number of bytes of an example.
func rowSize(s data.Spec) int {
	n := 0
	for _, f := range slices.Concat(s.Inputs, s.Targets) {
		n += f.Shape.Size() * f.DType.Size()
	}
	return n
}

var errDamaged = errors.New("damaged")

// stored is a file of results as a data set.
type stored struct {
	f    *os.File
	spec data.Spec
	base int64
	row  int
	n    int
}

// open reads and verifies a file of results.
func open(path string, rows int) (*stored, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("transfer: %w", err)
	}
	s, err := verify(f, rows)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("transfer: %s: %w", path, err)
	}
	runtime.AddCleanup(s, func(f *os.File) { f.Close() }, f)
	return s, nil
}

func verify(f *os.File, rows int) (*stored, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	head := make([]byte, len(magic)+8)
	if _, err := f.ReadAt(head, 0); err != nil || string(head[:len(magic)]) != magic {
		return nil, errDamaged
	}
	n := binary.LittleEndian.Uint64(head[len(magic):])
	if n > maxHeader || int64(n) > info.Size() {
		return nil, errDamaged
	}
	j := make([]byte, n)
	if _, err := f.ReadAt(j, int64(len(head))); err != nil {
		return nil, errDamaged
	}
	var h header
	if json.Unmarshal(j, &h) != nil || h.Spec.Check() != nil {
		return nil, errDamaged
	}
	for _, fs := range [][]data.Field{h.Spec.Inputs, h.Spec.Targets} {
		for i := range fs {
			if fs[i].Shape == nil {
				fs[i].Shape = []int{}
			}
		}
	}
	s := &stored{f: f, spec: h.Spec, base: int64(len(head)) + int64(n), row: rowSize(h.Spec), n: h.Rows}
	if h.Rows != rows || s.base+int64(s.row)*int64(rows)+sha256.Size != info.Size() {
		return nil, errDamaged
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, info.Size()-sha256.Size)); err != nil {
		return nil, err
	}
	want := make([]byte, sha256.Size)
	if _, err := f.ReadAt(want, info.Size()-sha256.Size); err != nil || string(want) != string(sum.Sum(nil)) {
		return nil, errDamaged
	}
	return s, nil
}

// Spec implements data.Dataset.
func (s *stored) Spec() data.Spec { return s.spec }

// Len implements data.Dataset.
func (s *stored) Len() int { return s.n }

// Fill implements data.Dataset.
func (s *stored) Fill(idx []int, x, y []*tensor.Tensor) error {
	raw, parts := make([]byte, s.row), slices.Concat(x, y)
	for k, i := range idx {
		if _, err := s.f.ReadAt(raw, s.base+int64(i)*int64(s.row)); err != nil {
			return fmt.Errorf("transfer: example %d: %w", i, err)
		}
		at := raw
		for _, t := range parts {
			at = at[copy(t.Slice(k, k+1).Bytes(), at):]
		}
	}
	return nil
}

// taught is a data set with the predictions of a teacher as a second target.
type taught struct {
	data.Dataset
	said  *stored
	field data.Field
}

// FieldTeacher is the name of the target that holds a teacher's predictions.
const FieldTeacher = "teacher"

func (t *taught) with(s data.Spec) data.Spec {
	f := t.field
	f.Name = FieldTeacher
	s.Targets = append(slices.Clone(s.Targets), f)
	return s
}

// Spec implements data.Dataset.
func (t *taught) Spec() data.Spec { return t.with(t.Dataset.Spec()) }

// Fill implements data.Dataset.
func (t *taught) Fill(idx []int, x, y []*tensor.Tensor) error {
	last := len(y) - 1
	if err := t.Dataset.Fill(idx, x, y[:last]); err != nil {
		return err
	}
	return t.said.Fill(idx, y[last:], nil)
}

// taughtInSizes is taught where examples come in several sizes.
type taughtInSizes struct {
	taught
	sized data.Bucketed
}

// Buckets implements data.Bucketed.
func (t *taughtInSizes) Buckets() []data.Spec {
	var out []data.Spec
	for _, s := range t.sized.Buckets() {
		out = append(out, t.with(s))
	}
	return out
}

// Bucket implements data.Bucketed.
func (t *taughtInSizes) Bucket(i int) int { return t.sized.Bucket(i) }
