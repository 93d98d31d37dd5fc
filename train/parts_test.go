package train_test

import (
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// The account of a language model by parts has every part that it should, adds up to the total, and counts the arithmetic where it belongs.
func TestPartsOfAnAccount(t *testing.T) {
	const length, batch, width, vocabulary = 12, 3, 8, 11
	m := speaker(t, length, nn.PositionEmbedding(length), nn.TransformerBlock(2, nn.CausalAttention()), nn.GRU(width, nn.ReturnSequences()), nn.LayerNormalization())
	if m.Positions() != length {
		t.Errorf("%d positions", m.Positions())
	}
	x, y := []*tensor.Tensor{tensor.Of(words(batch*length), batch, length)}, []*tensor.Tensor{tensor.Of(words(batch*length), batch, length)}
	if _, err := m.Step(x, y, 0.1); err != nil {
		t.Fatal(err)
	}
	a, err := m.StartAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Step(x, y, 0.1); err != nil {
		t.Fatal(err)
	}
	l, err := a.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	var sum energy.Line
	flops := map[string]int64{}
	for _, e := range m.Parts(l, false) {
		sum.Seconds += e.Seconds
		sum.Cost = sum.Cost.Add(e.Cost)
		sum.Joules = sum.Joules.Add(e.Joules)
		flops[e.Layer] += e.Cost.FLOPs
	}
	if sum.Cost != l.Cost || math.Abs(sum.Seconds-l.Seconds) > 1e-9 || math.Abs(sum.Joules.Value-l.Joules.Value) > 1e-9 {
		t.Errorf("the parts add up to %+v, the total is %+v", sum, l.Cost)
	}
	for _, p := range []string{nn.PartEmbedding, nn.PartNorm, nn.PartProjections, nn.PartAttention, nn.PartFeedForward, nn.PartRecurrent, nn.PartScores, nn.PartLoss, train.PartUpdate} {
		if flops[p] == 0 && p != nn.PartEmbedding {
			t.Errorf("no arithmetic in %s: %v", p, flops)
		}
	}
	// Four projections and two layers of 4·width, forward and two products backward: 2·rows·in·out each; biases and activations add some.
	rows := int64(batch * length)
	for part, products := range map[string]int64{nn.PartProjections: 4 * width * width, nn.PartFeedForward: 2 * 4 * width * width, nn.PartScores: width * vocabulary} {
		if least := 6 * rows * products; flops[part] < least || float64(flops[part]) > 1.3*float64(least) {
			t.Errorf("%s: %d FLOPs, its products alone are %d", part, flops[part], least)
		}
	}
	s := m.PartsTable(l, func(string) int64 { return rows }, false)
	for _, want := range []string{nn.PartAttention, nn.PartFeedForward, "J/position", "total"} {
		if !strings.Contains(s, want) {
			t.Errorf("the table lacks %q:\n%s", want, s)
		}
	}
}

// Reading a prompt and writing stand apart, part by part.
func TestPartsOfGeneration(t *testing.T) {
	m := speaker(t, 80, nn.TransformerBlock(2, nn.CausalAttention(), nn.Rotary(100)))
	d, err := m.Decoder(1, 80)
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.StartAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{64, 1, 1} {
		if _, err := d.Feed(words(n)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := a.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	if read := a.Positions(); read["prefill"] != 64 || read["decode"] != 2 {
		t.Errorf("positions %v", read)
	}
	if s := m.PartsTable(l, func(phase string) int64 { return a.Positions()[phase] }, true); !strings.Contains(s, "decode") {
		t.Error(s)
	}
	seen := map[string]bool{}
	for _, e := range m.Parts(l, true) {
		seen[e.Layer+" "+e.Phase] = true
	}
	for _, want := range []string{"attention prefill", "attention decode", "feed-forward prefill", "projections decode", "scores decode"} {
		if !seen[want] {
			t.Errorf("no line %q among %v", want, seen)
		}
	}
}

func TestPartOfPaths(t *testing.T) {
	net := nn.Sequential(nn.Embedding(5, 4).Named("tokens"), nn.MultiHeadAttention(2, 2, nn.CausalAttention()).Named("look"), nn.TransformerBlock(2).Named("block"), nn.LSTM(4).Named("state"),
		nn.Dense(3).Named("middle"), nn.Dense(5).Named("head"))
	for path, want := range map[string]string{
		"tokens": nn.PartEmbedding, "look": nn.PartAttention, "look/query": nn.PartProjections, "block": nn.PartOther, "block/attention": nn.PartAttention, "block/attention/value": nn.PartProjections,
		"block/cross_attention": nn.PartAttention, "block/feed_forward/hidden": nn.PartFeedForward, "block/feed_forward_norm": nn.PartNorm, "state": nn.PartRecurrent, "middle": nn.PartOther,
		"head": nn.PartScores, "loss": nn.PartLoss, "elsewhere": nn.PartOther,
	} {
		if got := net.Part(path); got != want {
			t.Errorf("%s belongs to %q, not %q", path, got, want)
		}
	}
	if !net.Sequences() || nn.Sequential(nn.Dense(3)).Sequences() {
		t.Error("which models read sequences")
	}
}
