package spec

import (
	"reflect"
	"strings"
	"testing"
)

const ranksBase = `name: r
data: mnist
model: [Flatten, Dense: {units: 10, activation: softmax}]
compile: {optimizer: adam, loss: sparse_categorical_crossentropy}
`

func TestRanks(t *testing.T) {
	s, err := Parse([]byte(ranksBase+"ranks: {shards: 8, sums: any, compress: \"topk:0.1\", local_steps: 5, outer_momentum: 0.9, outer_rate: 0.7, zero: 2, tensor: 4, pipeline: 3, cuts: [a, b], sync_batch_norm: true}\n"), "r.yaml")
	if err != nil || !reflect.DeepEqual(s.Ranks, Ranks{8, "any", "topk:0.1", 5, 0.9, 0.7, 2, 4, 3, []string{"a", "b"}, true}) {
		t.Errorf("%+v, %v", s, err)
	}
	for bad, want := range map[string]string{
		"{shards: -1}": "negative", "{sums: some}": "fixed or any", "{compress: zip}": "powersgd:RANK", "{outer_momentum: 1}": "[0, 1)", "{shard: 3}": "shard", "{zero: 3}": "zero 3", "{tensor: -1}": "tensor -1", "{pipeline: -1}": "pipeline -1", "{pipeline: 2, cuts: [a, b]}": "pipeline must be 3", "{shards: many}": "shards",
	} {
		if _, err := Parse([]byte(ranksBase+"ranks: "+bad+"\n"), "r.yaml"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "r.yaml:5") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
