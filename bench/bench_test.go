package bench

import (
	"math"
	"strings"
	"testing"
)

func TestFigures(t *testing.T) {
	f := Figure{MS: []float64{3, 1, 9, 2, 4}}
	if f.Best() != 1 || f.Median() != 3 {
		t.Fatalf("best %v, median %v", f.Best(), f.Median())
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
		if w.flops > 1e9 {
			continue // the great ones take long under the race detector
		}
		run, stop, err := w.setup(2)
		if err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		if err := run(); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		stop()
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

// The table names who is missing and why, who failed, and says nothing of a peer that has no program for a work.
func TestTable(t *testing.T) {
	rows := []Row{{Work: "w", Group: "g", FLOPs: 1e6, Share: 0.5, Joule: &Figure{MS: []float64{1}}, Against: "p", Ratio: 2, Peers: []*Figure{
		{Name: "p", MS: []float64{2}}, {Name: "q", Error: notItsWork}, {Name: "r", Error: "it broke"},
	}}}
	ps := []*peer{{name: "p"}, {name: "q"}, {name: "r"}}
	var b strings.Builder
	table(&b, rows, ps, []Skip{{"openblas", "no module named numpy"}}, Options{Threads: 2}, 2e9)
	out := b.String()
	for _, want := range []string{
		"| w | 1.000 (1.000) | 50% | p | **2.00×** | 2.000 (2.000) 25% | – | – |",
		"- openblas did not run: no module named numpy", "- r failed at w: it broke",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "- q failed") {
		t.Errorf("a work that is not the peer's counts as a failure:\n%s", out)
	}
}
