package score

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// The scores are those of sacrebleu and rouge-score.
func TestGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]struct {
		Written, References []string
		BLEU, Brevity       float64
		Precisions          [4]float64
		Length, Reference   int
		ROUGE               [3]float64
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
	for name, g := range all {
		got, err := CorpusBLEU(g.Written, g.References)
		if err != nil || !near(got.Score, g.BLEU) || !near(got.Brevity, g.Brevity) || got.Length != g.Length || got.Reference != g.Reference {
			t.Errorf("%s: %+v %v, want %+v", name, got, err, g)
		}
		for n := range orders {
			if g.BLEU > 0 && !near(got.Precisions[n], g.Precisions[n]) {
				t.Errorf("%s: precisions %v, want %v", name, got.Precisions, g.Precisions)
			}
		}
		r, err := MeanROUGE(g.Written, g.References)
		if err != nil || !near(r.One, g.ROUGE[0]) || !near(r.Two, g.ROUGE[1]) || !near(r.L, g.ROUGE[2]) {
			t.Errorf("%s: ROUGE %+v %v, want %v", name, r, err, g.ROUGE)
		}
	}
	if len(all) < 5 {
		t.Errorf("%d sets", len(all))
	}
}

func TestMistakes(t *testing.T) {
	if _, err := CorpusBLEU(nil, nil); err == nil || !strings.Contains(err.Error(), "0 texts and 0 references") {
		t.Error(err)
	}
	if _, err := MeanROUGE([]string{"a"}, nil); err == nil || !strings.Contains(err.Error(), "1 texts and 0 references") {
		t.Error(err)
	}
}
