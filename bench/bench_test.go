package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/dist/mpi"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/rss"
	"github.com/jouleml/joule/tensor"
)

// TestMain lets the test's own program stand for the others that a run starts: for joule itself, by the words joule bench starts it with, and for the peer called
// candle, by the name of a link.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "bench" && os.Args[2] == "serve":
		n, _ := strconv.Atoi(os.Args[3])
		if err := Serve(os.Stdin, os.Stdout, n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		mpi.Exit(0)
	case len(os.Args) == 5 && filepath.Base(os.Args[1]) == "ranks.py": // python ranks.py ddp-gloo THREADS RANKS
		fakePeer(os.Args[3])
	case len(os.Args) > 1 && os.Args[1] == "train":
		at, _ := time.Now().MarshalJSON()
		fmt.Printf("{\"epoch\": 1}\n{\"first_step_at\": %s, \"peak_rss_bytes\": %d}\n", at, rss.Peak())
	case filepath.Base(os.Args[0]) == "candle":
		fakePeer(os.Args[2])
	default:
		os.Exit(m.Run())
	}
}

// fakePeer takes 8 ms divided by the number of threads for a train step of batch 32, says that it cannot do batch 8, and has no other works.
func fakePeer(threads string) {
	n, _ := strconv.ParseFloat(threads, 64)
	out := json.NewEncoder(os.Stdout)
	_ = out.Encode(map[string]any{"ready": true, "version": "0.0"})
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		var r struct {
			Work  string
			Batch int
			Iters int
		}
		switch err := json.Unmarshal(s.Bytes(), &r); {
		case err != nil:
			_ = out.Encode(answer{Error: err.Error()})
		case r.Work != "train_cnn":
			_ = out.Encode(answer{Error: notItsWork})
		case r.Batch == 8:
			_ = out.Encode(answer{Error: "it broke"})
		default:
			_ = out.Encode(answer{MS: slices.Repeat([]float64{8 / n}, r.Iters), RSS: 5e6})
		}
	}
}

// withFake are options that know the fake programs.
func withFake(t *testing.T, works ...string) Options {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "bin", "candle")); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "burn.failed"), []byte("no compiler\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return Options{Works: works, Peers: true, Dir: dir, Only: []string{"candle", "burn", "jax"}, Rounds: 2, Threads: 2, Self: []string{self}, turn: 10 * time.Millisecond}
}

func TestFigures(t *testing.T) {
	f := Figure{Values: []float64{3, 1, 9, 2, 4}}
	if f.best(Milliseconds) != 1 || f.best(Speedup) != 9 || f.Median() != 3 {
		t.Fatalf("best %v and %v, median %v", f.best(Milliseconds), f.best(Speedup), f.Median())
	}
}

// The ratio says how many times better Joule is, whichever way is better, against the peer that did best.
func TestCompare(t *testing.T) {
	figs := func(v ...float64) (out []*Figure) {
		for i, v := range v {
			out = append(out, &Figure{Name: fmt.Sprint(i), Values: []float64{v}})
		}
		return append(out, &Figure{Name: "broken", Error: "it broke"}, &Figure{Name: "not held to Joule's instructions", Free: true, Values: []float64{0.1}})
	}
	for _, c := range []struct {
		unit    Unit
		joule   float64
		peers   []float64
		against string
		ratio   float64
	}{
		{Milliseconds, 2, []float64{6, 3}, "1", 1.5},
		{Megabytes, 50, []float64{25}, "0", 0.5},
		{Speedup, 1.8, []float64{1.2, 0.9}, "0", 1.5},
		{Milliseconds, 2, nil, "", 0},
	} {
		r := Row{Unit: c.unit, Joule: &Figure{Values: []float64{c.joule}}, Peers: figs(c.peers...)}
		if r.compare(); r.Against != c.against || math.Abs(r.Ratio-c.ratio) > 1e-12 {
			t.Errorf("%v %v: against %q, %v; want %q, %v", c.unit, c.peers, r.Against, r.Ratio, c.against, c.ratio)
		}
	}
}

// Every work can be set up, runs, and stops; names are unique, since they select a work.
func TestWorksRun(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range works() {
		if seen[w.name] {
			t.Errorf("two works are called %q", w.name)
		}
		seen[w.name] = true
		if w.flops > 2e8 || w.bytes > 1e8 || w.batch > 128 || w.setup == nil {
			continue // the great ones take long under the race detector
		}
		for _, setup := range []func(int) (func() error, func(), error){w.setup, w.rivalSide} {
			if setup == nil {
				continue
			}
			run, stop, err := setup(2)
			if err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			if err := run(); err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			stop()
		}
	}
}

// A result keeps the size of the image, divided by the stride and rounded up: what the peers compute with padding size/2.
func TestConvolutionsKeepTheSize(t *testing.T) {
	for _, c := range convShapes {
		s := c.spec()
		if h, w := (c.h+c.stride-1)/c.stride, (c.w+c.stride-1)/c.stride; s.OH() != h || s.OW() != w {
			t.Errorf("%+v: result %d×%d, want %d×%d", c, s.OH(), s.OW(), h, w)
		}
	}
}

func TestChosen(t *testing.T) {
	ws, err := chosen([]string{"conv 1x1"})
	if err != nil || len(ws) != 6 {
		t.Fatalf("%d works, %v; want two shapes in three directions", len(ws), err)
	}
	if ws, _ := chosen([]string{"dense", "dense 1600"}); len(ws) != 60 {
		t.Errorf("%d works where names overlap, want each once: 60", len(ws))
	}
	if _, err := chosen([]string{"nothing"}); err == nil || !strings.Contains(err.Error(), `"nothing"`) {
		t.Errorf("an unknown name gives %v", err)
	}
}

// The step by hand is the step of the public API: from the same weights on the same images the losses of ten steps agree to the rounding of sums in another order.
func TestByHand(t *testing.T) {
	const n, rate = 32, 1e-3
	b := newByHand(n, 2)
	defer b.stop()
	m, err := compileCNN(2)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Params()) != len(b.w) {
		t.Fatalf("%d parameters, by hand %d", len(m.Params()), len(b.w))
	}
	for i, p := range m.Params() {
		if err := m.State().Set(p.Name, tensor.Of(slices.Clone(b.w[i]), p.Type.Shape...)); err != nil {
			t.Fatal(err)
		}
	}
	x, y := digits(n)
	copy(x[0].F32(), b.images)
	for range 10 {
		want, err := m.Step(x, y, rate)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.step(rate) / n; math.Abs(got-want) > 1e-4*want {
			t.Fatalf("step %d: loss %v by hand, %v by the API", b.steps, got, want)
		}
	}
	if first := math.Log(10); b.step(rate)/n > first {
		t.Errorf("nothing was learnt: the loss is above that of a guess, %v", first)
	}
}

func TestMeans(t *testing.T) {
	rows := []Row{{Work: "a", Group: "conv", Ratio: 1}, {Work: "s", Group: "sgemm", Ratio: 7}, {Work: "b", Group: "conv", Ratio: 4}, {Work: "c", Group: "conv"}}
	got := means(rows)
	if len(got) != 1 { // a row without a ratio does not count, and one row has no mean
		t.Fatalf("%+v", got)
	}
	m := got[0]
	if m.group != "conv" || m.n != 2 || math.Abs(m.mean-2) > 1e-12 || m.least != 1 || m.at != "a" {
		t.Errorf("%+v", m)
	}
}

// The table has a column for each peer that did something, names who is missing and why, who failed, and says nothing of a peer that has no program for a work.
func TestTable(t *testing.T) {
	r := &Report{ISA: "avx512", Best: "avx512", Rows: []Row{
		{Work: "w", Group: "g", Unit: Milliseconds, FLOPs: 1e6, Share: 0.5, Joule: &Figure{Values: []float64{1}}, Against: "p", Ratio: 2, Peers: []*Figure{
			{Name: "p", Version: "1.0", Values: []float64{2}}, {Name: "q", Error: notItsWork}, {Name: "r", Error: "it broke"},
		}},
		{Work: "m", Group: "g", Unit: Megabytes, Joule: &Figure{Values: []float64{60}}},
	}, Skipped: []Skip{{"openblas", "no module named numpy"}}}
	var b strings.Builder
	r.table(&b)
	out := b.String()
	for _, want := range []string{
		"| work | joule | share of peak | best peer | ratio | p 1.0 |\n",
		"| w | 1.000 (1.000) | 50% | p | **2.00×** | 2.000 (2.000) 25% |\n",
		"| work | joule |\n| --- | --- |\n| m | 60 |\n",
		"- openblas did not run: no module named numpy", "- r failed at w: it broke",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "- q failed") || strings.Contains(out, "held to") {
		t.Errorf("a work that is not the peer's counts as a failure, or a cap is mentioned:\n%s", out)
	}
	r.ISA, r.Capped = "avx2", []string{"A=1", "B=2"}
	b.Reset()
	if r.table(&b); !strings.Contains(b.String(), "Joule was held to avx2. Peers were held to AVX2 by A=1 and B=2. Those marked †") {
		t.Errorf("the cap is not told:\n%s", b.String())
	}
}

// The rows of group scale end in what a further example costs.
func TestLinear(t *testing.T) {
	var rows []Row
	for _, n := range []int{8, 1, 16} {
		rows = append(rows, Row{Group: scaling, Batch: n, Joule: &Figure{Values: []float64{0.5 + 0.25*float64(n)}}})
	}
	var b strings.Builder
	linear(&b, Milliseconds, rows)
	if want := "\nA further example costs, from batch to batch: 1 to 8: 250.0 µs; 8 to 16: 250.0 µs; of the whole at batch 16: 281.2 µs an example.\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// A run with a peer: turns, works in processes of their own, threads, the whole job, the saved report, and the same tables from it.
func TestRun(t *testing.T) {
	o := withFake(t, "train_cnn batch 32", "scale train_cnn batch 1", "scale train_cnn batch 8", "threads 1 to 2, train_cnn batch 32", "allocations of infer", "general path, train_cnn batch 32", "job")
	o.Out = filepath.Join(t.TempDir(), "report.json")
	var out, log bytes.Buffer
	if err := Run(context.Background(), &out, &log, o); err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := Print(&again, []string{o.Out}); err != nil {
		t.Fatal(err)
	}
	if again.String() != out.String() {
		t.Errorf("the saved report prints another table:\n%s\ninstead of\n%s", again.String(), out.String())
	}
	b, err := os.ReadFile(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	row := func(name string, u Unit) Row {
		t.Helper()
		for _, r := range r.Rows {
			if r.Work == name && r.Unit == u {
				return r
			}
		}
		t.Fatalf("no row %q in %s:\n%s", name, u, out.String())
		return Row{}
	}
	if w := row("train_cnn batch 32", Milliseconds); w.Against != "candle" || w.Share <= 0 || w.Peers[0].Median() != 8 && w.Peers[0].Median() != 4 {
		t.Errorf("%+v", w)
	}
	if w := row("scale train_cnn batch 1", Megabytes); !w.Joule.ok() || w.Joule.Median() < 1 || w.Peers[0].Median() != 5 {
		t.Errorf("memory: %+v, %+v", w.Joule, w.Peers[0])
	}
	if w := row("scale train_cnn batch 8", Milliseconds); w.Peers[0].Error != "it broke" {
		t.Errorf("%+v", w.Peers[0])
	}
	if w := row("threads 1 to 2, train_cnn batch 32", Speedup); w.Peers[0].Median() != 2 || !w.Joule.ok() {
		t.Errorf("%+v, %+v", w.Joule, w.Peers[0])
	}
	if w := row("general path, train_cnn batch 32", Milliseconds); len(w.Peers) != 1 || w.Against != "kernels by hand" {
		t.Errorf("%+v", w)
	}
	if w := row("allocations of infer_cnn batch 32", Count); !w.Joule.ok() {
		t.Errorf("%+v", w)
	}
	for _, w := range []Row{row("job: start to first step", Milliseconds), row("job: start to end", Milliseconds), row("job", Megabytes)} {
		if len(w.Joule.Values) != 2 || w.Joule.Median() <= 0 {
			t.Errorf("%s: %+v", w.Work, w.Joule)
		}
	}
	if n := strings.Count(out.String(), "- candle failed at scale train_cnn batch 8: it broke"); n != 1 {
		t.Errorf("the failure is told %d times:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "- burn did not run: no compiler\n") || !strings.Contains(out.String(), "- jax did not run: there is no Python") {
		t.Errorf("it is not said who is missing and why:\n%s", out.String())
	}
}

func TestRunMistakes(t *testing.T) {
	o := withFake(t, "train_cnn batch 32")
	o.Only = []string{"pytorch"}
	if err := Run(context.Background(), &bytes.Buffer{}, &bytes.Buffer{}, o); err == nil || !strings.Contains(err.Error(), `"pytorch"; known: torch-eager`) {
		t.Errorf("an unknown peer gives %v", err)
	}
	o.Only = []string{"burn"}
	if err := Run(context.Background(), &bytes.Buffer{}, &bytes.Buffer{}, o); err == nil || !strings.Contains(err.Error(), "no compiler") {
		t.Errorf("no peer at all gives %v", err)
	}
	o = withFake(t, "job")
	o.Self = nil
	if err := Run(context.Background(), &bytes.Buffer{}, &bytes.Buffer{}, o); err == nil {
		t.Error("a work that starts this program runs without knowing it")
	}
}

func TestPrintMistakes(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"no report": "hello", "no rows": "{}", "no figures": `{"rows": [{"work": "w", "unit": "ms"}]}`,
		"a null": `{"rows": [{"work": "w", "unit": "ms", "joule": {}, "peers": [null]}]}`, "unknown unit": `{"rows": [{"work": "w", "unit": "miles", "joule": {}}]}`,
	} {
		file := filepath.Join(dir, "r.json")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Print(&bytes.Buffer{}, []string{file}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Print(&bytes.Buffer{}, []string{filepath.Join(dir, "none")}); err == nil {
		t.Error("a file that is not there passes")
	}
}

// Peers are held to AVX2 where Joule is held to it on a processor that has more, and OPENBLAS_ settings of the machine never reach them.
func TestEnvironment(t *testing.T) {
	t.Setenv("OPENBLAS_CORETYPE", "Nehalem")
	for _, level := range isa.Levels() {
		restore := isa.Use(level)
		for _, uncapped := range []bool{false, true} {
			o := Options{Uncapped: uncapped}
			env := o.environment([]string{"OPENBLAS_CORETYPE=Haswell"})
			got := slices.Contains(env, "OPENBLAS_CORETYPE=Haswell")
			if want := level == isa.AVX2 && isa.Best() > isa.AVX2 && !uncapped; got != want {
				t.Errorf("%v, uncapped %v: capped %v", level, uncapped, got)
			}
			if slices.Contains(env, "OPENBLAS_CORETYPE=Nehalem") {
				t.Error("the machine's setting reaches a peer")
			}
		}
		restore()
	}
}

// The job's peers read what MNIST is, as IDX files.
func TestWriteDigits(t *testing.T) {
	dir := t.TempDir()
	if err := writeDigits(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "t10k-images-idx3-ubyte"))
	if err != nil || len(b) != 16+10000*784 || !bytes.Equal(b[:16], []byte{0, 0, 8, 3, 0, 0, 0x27, 0x10, 0, 0, 0, 28, 0, 0, 0, 28}) {
		t.Fatalf("%d bytes, header %v, %v", len(b), b[:min(16, len(b))], err)
	}
	l, err := os.ReadFile(filepath.Join(dir, "t10k-labels-idx1-ubyte"))
	if err != nil || len(l) != 8+10000 || !bytes.Equal(l[8:13], []byte{7, 2, 1, 0, 4}) { // the test set's first digits
		t.Fatalf("%d bytes, first labels %v, %v", len(l), l[8:13], err)
	}
}

// A report says what products of bytes used too.
func TestReportNamesLevel(t *testing.T) {
	for _, l := range isa.ByteLevels() {
		restore := isa.Use(l)
		r := newReport(1)
		restore()
		if r.ISA != l.String() || r.Best != isa.Best().String() && r.Best != isa.AVXVNNI.String() {
			t.Errorf("%v: %s of %s", l, r.ISA, r.Best)
		}
	}
}
