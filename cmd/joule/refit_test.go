package main

import (
	"strings"
	"testing"
)

// Settings fit the ranks that are there: stages are cut into the next greater number that divides them, split layers into the next smaller; what stands on the command line is left for an error.
func TestFit(t *testing.T) {
	for _, c := range []struct {
		ranks, layers          int
		pipeline, tensor       int
		given, lost            bool
		wantStages, wantTensor int
		said, wrong            string
	}{
		{ranks: 4, layers: 6, pipeline: 2, wantStages: 2},
		{ranks: 3, layers: 6, pipeline: 2, wantStages: 3, said: "the layers are cut into 3"},
		{ranks: 9, layers: 6, pipeline: 2, wantStages: 3, said: "the layers are cut into 3"},
		{ranks: 5, layers: 4, pipeline: 2, wantStages: 1, said: "each rank has the whole model"},
		{ranks: 10, layers: 4, pipeline: 3, wantStages: 2, said: "the layers are cut into 2"},
		{ranks: 3, layers: 6, pipeline: 2, given: true, wantStages: 2}, // package train refuses it
		{ranks: 3, layers: 6, pipeline: 2, given: true, lost: true, wantStages: 3, said: "the layers are cut into 3"},
		{ranks: 1, layers: 6, pipeline: 2, given: true, lost: true, wantStages: 2},
		{ranks: 1, layers: 6, pipeline: 2, wantStages: 2, said: "ranks: {pipeline: 2}: for several processes; this one trains the whole model alone, and weights are equal to those of several up to rounding"},
		{ranks: 1, layers: 6, pipeline: 3, given: true, wrong: "--pipeline 3: for several processes, and this is one; start them with: mpirun --bind-to none -n 3 joule"},
		{ranks: 6, layers: 6, tensor: 4, wantTensor: 2, said: "no multiple of the 4 that split layers: 2 do"},
		{ranks: 3, layers: 6, tensor: 2, wantTensor: 3, said: "no multiple of the 2 that split layers: 3 do"},
		{ranks: 8, layers: 6, tensor: 3, wantTensor: 4, said: "4 do"},
		{ranks: 1, layers: 6, tensor: 2, said: "up to rounding"},
		{ranks: 1, layers: 6, tensor: 2, given: true, wrong: "--tensor 2"},
	} {
		f := &rankFlags{slow: noSlow, lost: c.lost}
		f.Pipeline, f.Tensor = c.pipeline, c.tensor
		note, err := f.fit(c.ranks, c.layers, c.given)
		switch {
		case c.wrong != "":
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%+v: %v", c, err)
			}
		case err != nil || f.Pipeline != c.wantStages || f.Tensor != c.wantTensor || (note == "") != (c.said == "") || !strings.Contains(note, c.said):
			t.Errorf("%+v: %d stages, %d split, %q, %v", c, f.Pipeline, f.Tensor, note, err)
		case f.asked.Pipeline != c.pipeline || f.asked.Tensor != c.tensor:
			t.Errorf("%+v: the run keeps %+v", c, f.asked)
		}
	}
	for _, c := range []struct {
		set        func(f *rankFlags)
		said, flag string
	}{
		{func(f *rankFlags) { f.Zero = 2 }, "the bits are those of several", ""},
		{func(f *rankFlags) { f.Pipeline, f.shards = 2, 4 }, "the bits are those of several", "--pipeline 2"},
		{func(f *rankFlags) { f.Local, f.Zero = 8, 1 }, "another training", "--zero 1 --local-steps 8"},
		{func(f *rankFlags) { f.Compress = "bf16" }, "another training", "--compress bf16"},
		{func(f *rankFlags) { f.SyncNorm = true }, "up to rounding", "--sync-batch-norm"},
		{func(*rankFlags) {}, "", ""},
	} {
		f := &rankFlags{slow: noSlow}
		c.set(f)
		if note, err := f.fit(1, 9, false); err != nil || (note == "") != (c.said == "") || !strings.Contains(note, c.said) {
			t.Errorf("%+v: %q %v", f.slow, note, err)
		}
		f = &rankFlags{slow: noSlow}
		c.set(f)
		if _, err := f.fit(1, 9, true); (err == nil) != (c.flag == "") || err != nil && !strings.HasPrefix(err.Error(), c.flag+": ") {
			t.Errorf("%+v: %v", f.slow, err)
		}
	}
}
