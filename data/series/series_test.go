package series_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data/series"
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return p
}

const head = "# a remark\n@problemName x\n@timeStamps false\n@missing false\n@classLabel true 2 10\n@data\n"

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	train := write(t, dir, "a.ts", head+"1,2,3:4,5,6:10\n-1:0:2\n")
	test := write(t, dir, "b.ts", head+"7,8:9,9:2\n")
	s, err := series.Open("x", train, test, false)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Spec().ClassNames, []string{"2", "10"}) || len(s.Spec().Inputs) != 2 || !s.Spec().Inputs[0].Shape.Equal([]int{3, 2}) {
		t.Fatalf("%+v", s.Spec())
	}
	x, y := s.Spec().Tensors(2)
	if err := s.Train.Fill([]int{1, 0}, x, y); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(x[0].F32(), []float32{-1, 0, 0, 0, 0, 0, 1, 4, 2, 5, 3, 6}) || !slices.Equal(x[1].I32(), []int32{1, 3}) || !slices.Equal(y[0].I32(), []int32{0, 1}) {
		t.Errorf("%v %v %v", x[0].F32(), x[1].I32(), y[0].I32())
	}
	// Normalised by the training part: its four values 1 2 3 -1 of the first dimension have mean 1.25.
	if s, err = series.Open("x", train, test, true); err != nil {
		t.Fatal(err)
	}
	x, y = s.Spec().Tensors(1)
	if err := s.Test.Fill([]int{0}, x, y); err != nil {
		t.Fatal(err)
	}
	if got := x[0].At(0); got < 3.88 || got > 3.89 || x[0].At(4) != 0 { // (7-1.25)/1.479, and zeros behind the end
		t.Errorf("%v", x[0].F32())
	}
}

func TestTSV(t *testing.T) {
	dir := t.TempDir()
	train := write(t, dir, "a.tsv", "-1\t1\t2\n1\t3\t4\n")
	s, err := series.Open("x", train, train, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Spec().Inputs) != 1 || !slices.Equal(s.Spec().ClassNames, []string{"-1", "1"}) || s.Train.Len() != 2 {
		t.Fatalf("%+v", s.Spec())
	}
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "good.ts", head+"1,2:3,4:1\n")
	for want, text := range map[string]string{
		"bad.ts:1: data before":                  "1,2:3,4:1\n",
		"bad.ts:7: dimension 2 has 1 values":     head + "1,2:3:1\n",
		"bad.ts:8: 1 dimensions, the series":     head + "1:3:1\n1:1\n",
		`dimension 1, value 2: "x" is no finite`: head + "1,x:3,4:1\n",
		`"NaN" is no finite`:                     head + "NaN:3:1\n",
		"no series in it":                        head,
		"not supported":                          "@timeStamps true\n@data\n",
		"want dimensions and a label":            head + "1\n",
		`of class "5", which the training part`:  head + "1,2:3,4:5\n",
		"series of 1 dimensions, those of":       head + "1:1\n",
	} {
		bad := write(t, dir, "bad.ts", text)
		if _, err := series.Open("x", good, bad, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
	for _, name := range []string{"nosuch.ts", "good.txt"} {
		if _, err := series.Open("x", filepath.Join(dir, name), good, false); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, dir, "good.txt", "1\t2\n")
	if _, err := series.Open("x", filepath.Join(dir, "good.txt"), good, false); err == nil || !strings.Contains(err.Error(), "must end in") {
		t.Error(err)
	}
}
