package text

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
)

// Gap is the special token between two texts of a corpus.
const Gap = "<|endoftext|>"

// Source is a text of a corpus.
type Source struct {
	Name  string
	Bytes int64
	Stamp string // changes when the text does
	Open  func() (io.ReadCloser, error)
}

// Files are the texts at a path: the file itself, or all files of a folder whose names end in .txt, in the order of their paths.
func Files(path string) ([]Source, error) {
	var out []Source
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || p != path && !strings.HasSuffix(strings.ToLower(p), ".txt") {
			return err
		}
		i, err := os.Stat(p)
		if err != nil {
			return err
		}
		if !i.Mode().IsRegular() {
			return nil
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return err
		}
		out = append(out, Source{p, i.Size(), fmt.Sprint(abs, i.Size(), i.ModTime().UnixNano()), func() (io.ReadCloser, error) { return os.Open(p) }})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("text: %s has no .txt files", path)
	}
	return out, nil
}

// Memory is a text in memory as a source.
func Memory(name, s string) Source {
	sum := sha256.Sum256([]byte(s))
	return Source{name, int64(len(s)), hex.EncodeToString(sum[:]), func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }}
}

// TokenizerFor gives the tokenizer that a setting describes: byte, char, word:SIZE, wordpiece:SIZE, bpe:SIZE or unigram:SIZE, made from the training part of the corpus (of char from all of it), or a file
// that text.Load reads.
func TokenizerFor(setting string, from []Source, test float64) (*text.Tokenizer, error) {
	kind, number, sized := strings.Cut(setting, ":")
	if !slices.Contains(text.Kinds, kind) {
		if _, err := os.Stat(setting); err != nil {
			return nil, fmt.Errorf("text: tokenizer=%s: it is neither a file nor one of byte, char, word:SIZE, wordpiece:SIZE, bpe:SIZE, unigram:SIZE", setting)
		}
		return text.Load(setting)
	}
	size := 0
	if sized {
		var err error
		if size, err = strconv.Atoi(number); err != nil {
			return nil, fmt.Errorf("text: tokenizer=%s: %q is no size", setting, number)
		}
	}
	t, err := text.NewTrainer(kind, size, Gap)
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for _, s := range from {
		total += s.Bytes
	}
	rest := total - int64(float64(total)*test)
	if kind == "char" {
		rest = total
	}
	for _, s := range from {
		if rest <= 0 || kind == "byte" {
			break
		}
		r, err := s.Open()
		if err != nil {
			return nil, fmt.Errorf("text: %w", err)
		}
		n, err := t.ReadFrom(io.LimitReader(r, rest))
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("text: %s: %w", s.Name, err)
		}
		rest -= n
	}
	return t.Train()
}

// Tokens makes a data set of the tokens of a corpus that need not fit into memory: it is encoded once, block by block, into a file in the folder cache, of which examples are read as they
// are needed. Texts follow each other without padding, with the token Gap between them where the tokenizer has it. The file stays for the next time, as long as texts and tokenizer are the same.
func Tokens(name string, from []Source, k *text.Tokenizer, c Config, cache string) (*data.Set, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	j, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	width := 2
	if k.Size() > 1<<16 {
		width = 4
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "tokens 1 %d %s", len(j), j)
	for _, s := range from {
		fmt.Fprintf(sum, " %d %s", len(s.Stamp), s.Stamp)
	}
	path := filepath.Join(cache, hex.EncodeToString(sum.Sum(nil))[:32]+".tokens")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := atomicfile.MkdirAll(cache); err != nil {
			return nil, fmt.Errorf("text: %w", err)
		}
		if err := atomicfile.Write(path, func(w io.Writer) error { return write(w, from, k, width) }); err != nil {
			return nil, fmt.Errorf("text: %w", err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	n := int(info.Size() / int64(width))
	spec := specOf(c.Length, k.Size())
	spec.Tokenizer = j
	cut := n - int(float64(n)*c.Test)
	file := &tokenFile{f, width}
	runtime.AddCleanup(file, func(f *os.File) { f.Close() }, f)
	set := &data.Set{Name: name, Train: &stored{spec, file, 0, cut, c.Length, c.Stride}, Test: &stored{spec, file, cut, n - cut, c.Length, c.Length}}
	if set.Train.Len() == 0 || set.Test.Len() == 0 {
		return nil, fmt.Errorf("text: %d tokens are too few for training and test examples of %d: shorten length", n, c.Length)
	}
	return set, nil
}

// write encodes a corpus.
func write(w io.Writer, from []Source, k *text.Tokenizer, width int) error {
	out := bufio.NewWriterSize(w, 1<<18)
	gap, hasGap := k.ID(Gap)
	var ids []int32
	var raw []byte
	flush := func() error {
		raw = raw[:0]
		for _, id := range ids {
			if width == 2 {
				raw = binary.LittleEndian.AppendUint16(raw, uint16(id))
			} else {
				raw = binary.LittleEndian.AppendUint32(raw, uint32(id))
			}
		}
		_, err := out.Write(raw)
		return err
	}
	for i, s := range from {
		ids = ids[:0]
		if i > 0 && hasGap {
			ids = append(ids, gap)
			if err := flush(); err != nil {
				return err
			}
		}
		r, err := s.Open()
		if err != nil {
			return err
		}
		at := int64(0)
		err = text.Blocks(r, func(b string) error {
			if !utf8.ValidString(b) {
				return fmt.Errorf("between bytes %d and %d it is not UTF-8: convert it first, with iconv for instance", at, at+int64(len(b)))
			}
			at += int64(len(b))
			var err error
			if ids, err = k.Append(ids[:0], b); err != nil {
				return err
			}
			return flush()
		})
		r.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return out.Flush()
}

// tokenFile is tokens of so many bytes each.
type tokenFile struct {
	f     *os.File
	width int
}

// stored are stretches of a file of tokens.
type stored struct {
	spec           data.Spec
	file           *tokenFile
	first, n       int
	length, stride int
}

func (s *stored) Spec() data.Spec { return s.spec }

func (s *stored) Len() int { return stretches(s.n, s.length, s.stride) }

func (s *stored) Fill(idx []int, x, y []*tensor.Tensor) error {
	in, next := x[0].I32(), y[0].I32()
	w := s.file.width
	raw := make([]byte, (s.length+1)*w)
	for k, i := range idx {
		at := s.first + i*s.stride
		if _, err := s.file.f.ReadAt(raw, int64(at)*int64(w)); err != nil {
			return fmt.Errorf("text: example %d: %w", i, err)
		}
		for p := range s.length + 1 {
			var id int32
			if w == 2 {
				id = int32(binary.LittleEndian.Uint16(raw[2*p:]))
			} else {
				id = int32(binary.LittleEndian.Uint32(raw[4*p:]))
			}
			if int(id) >= s.spec.Classes || id < 0 {
				return fmt.Errorf("text: %s is damaged: delete it, and it is made again", s.file.f.Name())
			}
			if p < s.length {
				in[k*s.length+p] = id
			}
			if p > 0 {
				next[k*s.length+p-1] = id
			}
		}
	}
	return nil
}
