package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// state is a small training at the given step, every part of which tells the step.
func state(step int64, score float64) *State {
	w := make([]float32, 300)
	for i := range w {
		w[i] = float32(step)
	}
	return &State{
		Step: step, Epoch: step / 10, Score: score,
		Sections: map[string]json.RawMessage{
			SectionRandom:  json.RawMessage(fmt.Sprintf(`{"seed": 1, "counter": %d}`, step)),
			SectionHistory: json.RawMessage(`[{"loss": 0.5, "note": "a <b> & \"c\" ä"}]`),
		},
		Tensors: []safetensors.Named{
			{Name: "weights/dense/kernel", Value: tensor.Of(w, 30, 10)},
			{Name: "adam/step", Value: tensor.Scalar(step)},
		},
	}
}

// check compares s with state(step, …).
func check(t *testing.T, s *State, step int64) {
	t.Helper()
	want := state(step, 0)
	if s.Step != step || s.Epoch != want.Epoch || len(s.Sections) != len(want.Sections) || len(s.Tensors) != len(want.Tensors) {
		t.Fatalf("got step %d epoch %d, %d sections, %d tensors", s.Step, s.Epoch, len(s.Sections), len(s.Tensors))
	}
	for k, v := range want.Sections {
		if string(s.Sections[k]) != string(v) {
			t.Fatalf("section %q: %s, want %s", k, s.Sections[k], v)
		}
	}
	for _, x := range want.Tensors {
		got := s.Tensor(x.Name)
		if got == nil || string(got.Bytes()) != string(x.Value.Bytes()) || !got.Shape().Equal(x.Value.Shape()) {
			t.Fatalf("tensor %q: %v", x.Name, got)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.safetensors")
	for _, score := range []float64{0.75, math.NaN(), math.Inf(-1)} {
		if err := Save(path, state(25, score)); err != nil {
			t.Fatal(err)
		}
		s, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		check(t, s, 25)
		if s.Score != score && !(math.IsNaN(s.Score) && math.IsNaN(score)) {
			t.Errorf("score %v, want %v", s.Score, score)
		}
	}
	if s, err := Load(path); err != nil || s.Tensor("no such") != nil {
		t.Error(err)
	}
	p, err := Peek(path)
	if err != nil || p.Step != 25 || len(p.Sections) != 2 || p.Tensors != nil {
		t.Error(p, err)
	}
	f, err := Open(path)
	if err != nil || f.Step != 25 || len(f.Infos()) != 2 {
		t.Fatal(f, err)
	}
	defer f.Close()
	whole, name := loaded(t, path).Tensors[1].Value, f.Infos()[1].Name
	if got, err := f.Read(name); err != nil || !bytes.Equal(got.Bytes(), whole.Bytes()) {
		t.Error(got, err)
	}
	if got, err := f.Part(name, 0, 1, 2); err != nil || got.At(0) != whole.At(whole.Len()/whole.Shape()[0]) {
		t.Error(got, err)
	}
	if _, err := f.Read("no such"); err == nil {
		t.Error("a tensor that is not there is read")
	}
	// Other readers see the weights.
	if all, _, err := safetensors.ReadFile(path); err != nil || len(all) != 2 {
		t.Error(all, err)
	}
}

func TestSaveRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.safetensors")
	if err := Save(path, state(1, 0)); err != nil {
		t.Fatal(err)
	}
	bad := map[string]*State{"step": {Step: -1}, "name": {Tensors: []safetensors.Named{{Name: "x"}}}}
	for _, text := range []string{"", "{", "1 2", "\"\xff\""} {
		bad[fmt.Sprintf("section %q", text)] = &State{Sections: map[string]json.RawMessage{"s": json.RawMessage(text)}}
	}
	for what, s := range bad {
		if err := Save(path, s); err == nil {
			t.Errorf("%s: saved", what)
		}
	}
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 1)
	onlyFile(t, filepath.Dir(path))
}

// onlyFile fails when the folder holds anything beside one file.
func onlyFile(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v in %s, want one file (%v)", entries, dir, err)
	}
}

// TestCorrupt: every flipped bit and every truncation is an error that names the file, wraps ErrCorrupt and says what to do.
func TestCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.safetensors")
	if err := Save(path, state(3, 1)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fails := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if err == nil {
			t.Fatalf("%s went unnoticed", what)
		}
		// A flip in the version itself reads as a file of another version.
		if !strings.Contains(err.Error(), path) || !errors.Is(err, ErrCorrupt) && !strings.Contains(err.Error(), "version") {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range good {
		content := append([]byte{}, good...)
		content[i] ^= 1 << (i % 7)
		fails(fmt.Sprintf("a flipped bit at %d", i), content)
	}
	for i := 0; i < len(good); i += 7 {
		fails(fmt.Sprintf("a cut at %d", i), good[:i])
	}
	fails("a longer file", append(good, 0))
	fails("zeros", make([]byte, len(good)))
}

// The remedy fits the file: of a training's checkpoints there may be an older one, of a model that someone copied there is none.
func TestRemedy(t *testing.T) {
	for name, want := range map[string]string{"model.safetensors": "copy or make the file again", "000012-step-18750.safetensors": "resume from an older checkpoint"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte("short"), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestNotACheckpoint(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, meta map[string]string) string {
		p := filepath.Join(dir, name)
		if err := safetensors.WriteFile(p, nil, meta); err != nil {
			t.Fatal(err)
		}
		return p
	}
	ok := map[string]string{keyVersion: version, keyStep: "1", keyEpoch: "0"}
	if _, err := Load(write("ok", ok)); err != nil {
		t.Fatal(err)
	}
	with := func(k, v string) map[string]string {
		m := map[string]string{}
		for a, b := range ok {
			m[a] = b
		}
		m[k] = v
		return m
	}
	for _, c := range []struct {
		meta map[string]string
		want string
	}{
		{nil, "may hold weights alone"},
		{with(keyVersion, "2"), "newer one"},
		{with(keyStep, "x"), "not a count"},
		{with(keyEpoch, "-1"), "not a count"},
		{with(keyScore, "high"), "not a number"},
		{with(keySection+"s", "{"), "not JSON"},
	} {
		_, err := Load(write("bad", c.meta))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.meta, err)
		}
	}
	if _, err := Load(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

// names lists the checkpoints in dir as sequence-step.
func names(t *testing.T, dir string) string {
	t.Helper()
	all, temps, err := list(dir)
	if err != nil || len(temps) > 0 {
		t.Fatal(temps, err)
	}
	var out []string
	for _, c := range all {
		out = append(out, strings.TrimSuffix(filepath.Base(c.path), ".safetensors"))
	}
	return strings.Join(out, " ")
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	f := Folder{Dir: dir, Keep: 2}
	if _, err := Latest(dir); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	for i, score := range []float64{0.1, 0.9, 0.3, math.NaN(), 0.9, 0.2, 0.1} {
		path, err := f.Save(state(int64(i+1), score))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Latest(dir)
		if err != nil || got.Path != path || got.Skipped != nil {
			t.Fatal(got, err)
		}
		check(t, got.State, int64(i+1))
	}
	// The two newest and the newest of the two best stay.
	if got, want := names(t, dir), "000007-step-7 000006-step-6 000005-step-5"; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	best, err := Best(dir)
	if err != nil || best.Step != 5 {
		t.Error(best, err)
	}
	// Going on from an older step: the newest is what was saved last.
	if _, err := f.Save(state(4, 0)); err != nil {
		t.Fatal(err)
	}
	if got, err := Latest(dir); err != nil || got.Step != 4 {
		t.Error(got, err)
	}
	// Other files are nobody's business; what a kill leaves behind goes away.
	os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o666)
	os.WriteFile(filepath.Join(dir, ".000009-step-5.safetensors.0123.tmp"), []byte("half"), 0o666)
	if _, err := f.Save(state(5, 0)); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, dir), "000009-step-5 000008-step-4 000005-step-5"; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.txt")); err != nil {
		t.Error(err)
	}
}

// TestSkipsCorrupt: Latest and Best go on to the next file and say which they left out; Save neither counts nor deletes a broken one.
func TestSkipsCorrupt(t *testing.T) {
	dir := t.TempDir()
	f := Folder{Dir: dir, Keep: 3}
	var paths []string
	for i := range 3 {
		p, err := f.Save(state(int64(i), float64(i)))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	b, _ := os.ReadFile(paths[2])
	b[len(b)-1] ^= 1 // in the weights
	os.WriteFile(paths[2], b, 0o666)
	os.Truncate(paths[1], 100) // in the header
	for _, find := range []func(string) (*Found, error){Latest, Best} {
		got, err := find(dir)
		if err != nil {
			t.Fatal(err)
		}
		check(t, got.State, 0)
		if len(got.Skipped) != 2 || !errors.Is(got.Skipped[0], ErrCorrupt) || !strings.Contains(fmt.Sprint(got.Skipped), paths[1]) {
			t.Errorf("skipped %v", got.Skipped)
		}
	}
	if _, err := (Folder{Dir: dir, Keep: 1}).Save(state(9, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(paths[1]); err != nil {
		t.Error("the unreadable file is gone:", err)
	}
	for _, p := range paths {
		os.WriteFile(p, nil, 0o666)
	}
	os.Remove(filepath.Join(dir, "000004-step-9.safetensors"))
	if _, err := Latest(dir); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), paths[0]) {
		t.Errorf("%v", err)
	}
}

// FuzzRead: no bytes make the reader panic, and what it accepts can be saved again and is then the same.
func FuzzRead(f *testing.F) {
	p := filepath.Join(f.TempDir(), "seed")
	small := state(1, 0.5)
	small.Tensors = small.Tensors[1:]
	if err := Save(p, small); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := safetensors.NewFile(bytes.NewReader(b), int64(len(b)), "file")
		if err != nil {
			return
		}
		s, err := parse("file", file.Metadata()) // not read: no mutation keeps the checksum right
		if err != nil {
			return
		}
		meta, err := s.metadata()
		if err != nil {
			t.Fatalf("what could be read cannot be written: %v", err)
		}
		meta[safetensors.ChecksumKey] = file.Metadata()[safetensors.ChecksumKey]
		again, err := parse("file", meta)
		if err != nil || again.Step != s.Step || again.Epoch != s.Epoch || len(again.Sections) != len(s.Sections) {
			t.Fatalf("%+v, %+v, %v", s, again, err)
		}
	})
}

func loaded(t *testing.T, path string) *State {
	t.Helper()
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A packed checkpoint gives back the same bits, says its sections without the tensors, and is noticed when it is damaged.
func TestPacked(t *testing.T) {
	w := tensor.New(dtype.F32, 200, 40)
	for i := range w.Len() {
		if i%7 == 0 {
			w.Set(i, float64(i%5)*0.25)
		}
	}
	s := &State{Step: 7, Epoch: 2, Score: math.NaN(), Sections: map[string]json.RawMessage{SectionModel: json.RawMessage(`{"a":[1,2]}`)},
		Tensors: []safetensors.Named{{Name: "w", Value: w}, {Name: "b", Value: tensor.Of([]float32{1, 2, float32(math.Inf(1))})}, {Name: "none", Value: tensor.New(dtype.I32, 0)}}}
	path := filepath.Join(t.TempDir(), "packed.safetensors")
	if err := SavePacked(path, s); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Step != 7 || got.Epoch != 2 || string(got.Sections[SectionModel]) != `{"a":[1,2]}` || len(got.Tensors) != 3 {
		t.Errorf("%+v", got)
	}
	for _, v := range s.Tensors {
		if g := got.Tensor(v.Name); g == nil || !bytes.Equal(g.Bytes(), v.Value.Bytes()) || !g.Shape().Equal(v.Value.Shape()) {
			t.Errorf("%s is another", v.Name)
		}
	}
	if is, err := Packed(path); !is || err != nil {
		t.Error(is, err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "packed") {
		t.Error(err)
	}
	p, err := Peek(path)
	if err != nil || string(p.Sections[SectionModel]) != `{"a":[1,2]}` || len(p.Tensors) != 0 {
		t.Errorf("%v: %+v", err, p)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 2000 {
		t.Errorf("%v: %d bytes for 32000", err, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-9] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged one: %v", err)
	}
	if err := unpack("x", &State{}, true); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	for _, blob := range [][]byte{{}, {200}, {3, 1, 2, 3}, {0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1}} {
		bad := &State{Tensors: []safetensors.Named{{Name: packedTensor, Value: tensor.Wrap(dtype.U8, shape.Of(len(blob)), blob)}}}
		if err := unpack("x", bad, true); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v: %v", blob, err)
		}
	}
}
