package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// shown is how many samples are shown of each kind, right and wrong.
const shown = 18

// guess is one example with what the model said of it.
type guess struct {
	example      int // its number in the data set
	truth, said  int
	sure         float64 // the score of what was said
	sureTruth    float64 // and of the truth
	target, pred float64 // of regression
}

// Predictions runs the model over test examples, at most limit of them (0: all), and shows what it gets right and wrong: of a classifier the confusion matrix and
// samples with their pictures, curves or values; of a regression the predictions against the truth. It gives no parts for models of other kinds, such as language models.
func Predictions(ctx context.Context, m *train.Model, test data.Dataset, limit int) (Section, error) {
	s := Section{Title: "Predictions"}
	kind := taskOf(m.Spec)
	if kind == other || test.Len() == 0 {
		return s, nil
	}
	var idx []int
	n := test.Len()
	if limit <= 0 || limit > n {
		limit = n
	}
	for i := range limit { // spread over the set, which may be sorted by class
		idx = append(idx, int(int64(i)*int64(n)/int64(limit)))
	}
	ds, err := data.Subset(test, idx)
	if err != nil {
		return s, err
	}
	gs, probable, err := predict(ctx, m, ds, kind)
	if err != nil {
		return s, err
	}
	for i := range gs {
		gs[i].example = idx[gs[i].example]
	}
	s.Text = fmt.Sprintf("On all %s test examples.", thousands(int64(n)))
	if limit < n {
		s.Text = fmt.Sprintf("On %s of the %s test examples, spread evenly.", thousands(int64(limit)), thousands(int64(n)))
	}
	if kind == regression {
		return s, regressionParts(&s, m.Spec, test, gs)
	}
	return s, classParts(&s, m.Spec, test, gs, probable)
}

// task is what a model does, as far as a report can show it.
type task int

const (
	other task = iota
	classification
	regression
)

func taskOf(s data.Spec) task {
	if len(s.Targets) != 1 {
		return other
	}
	t := s.Targets[0]
	switch {
	case s.Classes > 0 && (t.Shape.Size() == 1 || t.DType == dtype.F32 && len(t.Shape) == 1 && t.Shape[0] == s.Classes):
		return classification
	case s.Classes == 0 && t.Shape.Size() == 1 && t.DType == dtype.F32:
		return regression
	}
	return other
}

// predict asks the model about every example of ds. probable says that scores are probabilities.
func predict(ctx context.Context, m *train.Model, ds data.Dataset, kind task) (gs []guess, probable bool, err error) {
	l, err := data.NewLoader(ds, data.LoaderConfig{Batch: 128, Epochs: 1, Flat: true}) // in the order of ds, by which guesses are numbered
	if err != nil {
		return nil, false, fmt.Errorf("report: %w", err)
	}
	defer l.Close()
	probable = true
	for {
		b, err := l.Next(ctx)
		if errors.Is(err, io.EOF) {
			return gs, probable, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("report: %w", err)
		}
		y, err := m.PredictBatch(b.X...)
		if err != nil {
			return nil, false, fmt.Errorf("report: %w", err)
		}
		width := y.Len() / b.N
		for i := range b.N {
			g := guess{example: len(gs), target: b.Y[0].At(i * (b.Y[0].Len() / b.N))}
			scores := make([]float64, width)
			total := 0.0
			for k := range scores {
				scores[k] = y.At(i*width + k)
				total += scores[k]
			}
			switch {
			case kind == regression:
				g.pred = scores[0]
			case width == 1 && m.Spec.Classes == 2: // the probability of the second class
				scores = []float64{1 - scores[0], scores[0]}
				fallthrough
			case width == m.Spec.Classes:
				g.truth = truthOf(b.Y[0], i, b.N)
				for k, v := range scores {
					if v > scores[g.said] {
						g.said = k
					}
				}
				g.sure = scores[g.said]
				if g.truth >= 0 && g.truth < len(scores) {
					g.sureTruth = scores[g.truth]
				}
				probable = probable && (width == 1 || math.Abs(total-1) < 1e-3)
			default:
				return nil, false, fmt.Errorf("report: the model gives %d values for %d classes", width, m.Spec.Classes)
			}
			if !finite(g.sure) || !finite(g.pred) {
				return nil, false, errors.New("report: the model's predictions are not numbers: it has diverged")
			}
			gs = append(gs, g)
		}
	}
}

// truthOf is the class of example i of n: its number, or the greatest of as many values as there are classes.
func truthOf(y *tensor.Tensor, i, n int) int {
	w := y.Len() / n
	if w == 1 {
		return int(y.At(i))
	}
	best := 0
	for k := range w {
		if y.At(i*w+k) > y.At(i*w+best) {
			best = k
		}
	}
	return best
}

// classNames are the names of the classes, or their numbers.
func classNames(s data.Spec) []string {
	if len(s.ClassNames) == s.Classes {
		return s.ClassNames
	}
	out := make([]string, s.Classes)
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
}

func classParts(s *Section, spec data.Spec, test data.Dataset, gs []guess, probable bool) error {
	names := classNames(spec)
	counts := make([][]int, len(names))
	for i := range counts {
		counts[i] = make([]int, len(names))
	}
	var right, wrong []guess
	for _, g := range gs {
		if g.truth < 0 || g.truth >= len(names) {
			continue
		}
		counts[g.truth][g.said]++
		if g.truth == g.said {
			right = append(right, g)
		} else {
			wrong = append(wrong, g)
		}
	}
	s.Text += fmt.Sprintf(" %s right, %s wrong: accuracy %s.", thousands(int64(len(right))), thousands(int64(len(wrong))), Quantity(float64(len(right))/float64(max(1, len(gs))), "%"))
	s.Parts = append(s.Parts, Confusion(names, counts)...)
	// The mistakes that the model was surest of, and correct answers spread over the set.
	slices.SortStableFunc(wrong, func(a, b guess) int { return cmp.Compare(b.sure, a.sure) })
	wrong = wrong[:min(len(wrong), shown)]
	var some []guess
	for i := range min(len(right), shown) {
		some = append(some, right[i*len(right)/min(len(right), shown)])
	}
	score := func(v float64) string {
		if probable {
			return Quantity(v, "%")
		}
		return Quantity(v, "")
	}
	for _, part := range []struct {
		title string
		gs    []guess
		mark  int
	}{{"Wrong, the surest mistakes first", wrong, -1}, {"Right", some, 1}} {
		if len(part.gs) == 0 {
			continue
		}
		x, err := inputs(test, part.gs)
		if err != nil {
			return err
		}
		caption := func(g guess) (string, string) {
			if g.truth == g.said {
				return names[g.said], score(g.sure)
			}
			return fmt.Sprintf("%s, not %s", names[g.truth], names[g.said]), fmt.Sprintf("said %s with %s; truth %s", names[g.said], score(g.sure), score(g.sureTruth))
		}
		s.Parts = append(s.Parts, samples(part.title, spec, x, part.gs, part.mark, caption)...)
	}
	return nil
}

// inputs are the first input of the guesses' examples, [guesses …].
func inputs(ds data.Dataset, gs []guess) (*tensor.Tensor, error) {
	idx := make([]int, len(gs))
	for i, g := range gs {
		idx[i] = g.example
	}
	x, y := ds.Spec().Tensors(len(idx))
	if err := ds.Fill(idx, x, y); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return x[0], nil
}

// samples shows examples as what they are: pictures, curves of series, or rows of values.
func samples(title string, spec data.Spec, x *tensor.Tensor, gs []guess, mark int, caption func(g guess) (head, note string)) []Part {
	sh := spec.Inputs[0].Shape
	size := sh.Size()
	switch {
	case x.DType() == dtype.F32 && len(sh) == 3 && (sh[2] == 1 || sh[2] == 3):
		p := &Pictures{Title: title}
		for i, g := range gs {
			head, note := caption(g)
			p.Pictures = append(p.Pictures, Picture{Image: picture(x.F32()[i*size:(i+1)*size], sh[0], sh[1], sh[2]), Alt: fmt.Sprintf("test example %d: %s", g.example, head), Caption: head, Note: note, Mark: mark})
		}
		return []Part{p}
	case x.DType() == dtype.F32 && len(sh) == 2 && sh[0] > 1:
		var out []Part
		for i, g := range gs[:min(len(gs), 6)] {
			head, note := caption(g)
			word := map[int]string{1: "✓ ", -1: "✗ "}[mark]
			l := &Lines{Title: word + head + " (" + note + ")", X: "time"}
			for c := range min(sh[1], 6) {
				ser := Series{Name: "channel " + strconv.Itoa(c)}
				step := max(1, sh[0]/200)
				for t := 0; t < sh[0]; t += step {
					ser.X, ser.Y = append(ser.X, float64(t)), append(ser.Y, float64(x.F32()[i*size+t*sh[1]+c]))
				}
				l.Series = append(l.Series, ser)
			}
			out = append(out, l)
		}
		return out
	}
	t := &Table{Title: title, Columns: []string{"example", "result", ""}, Right: []bool{true}}
	wide := min(size, 8)
	if len(sh) > 1 {
		wide = 0
	}
	for k := range wide {
		t.Columns, t.Right = append(t.Columns, "input "+strconv.Itoa(k)), append(t.Right, false)
	}
	for i, g := range gs {
		head, note := caption(g)
		row := []string{strconv.Itoa(g.example), head, note}
		for k := range wide {
			row = append(row, Quantity(x.At(i*size+k), ""))
		}
		t.Rows = append(t.Rows, row)
	}
	return []Part{t}
}

// picture makes an image of values in [0, 1], [h, w, c]; values outside are brought there by the picture's own least and greatest.
func picture(v []float32, h, w, c int) image.Image {
	lo, hi := float32(0), float32(1)
	for _, x := range v {
		lo, hi = min(lo, x), max(hi, x)
	}
	at := func(i int) uint8 { return uint8((v[i]-lo)/(hi-lo)*255 + 0.5) }
	if c == 1 {
		m := image.NewGray(image.Rect(0, 0, w, h))
		for i := range v {
			m.Pix[i] = at(i)
		}
		return m
	}
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range h * w {
		m.SetNRGBA(i%w, i/w, color.NRGBA{at(i * c), at(i*c + 1), at(i*c + 2), 255})
	}
	return m
}

func regressionParts(s *Section, spec data.Spec, test data.Dataset, gs []guess) error {
	p := &Points{Title: "Prediction against truth", X: "truth", Y: "prediction", Diagonal: true}
	var sq, abs float64
	for i, g := range gs {
		d := g.pred - g.target
		sq, abs = sq+d*d, abs+math.Abs(d)
		if step := max(1, len(gs)/400); i%step == 0 {
			p.Points = append(p.Points, Point{X: g.target, Y: g.pred})
		}
	}
	n := float64(len(gs))
	s.Text += fmt.Sprintf(" Root mean squared error %s, mean absolute error %s.", Quantity(math.Sqrt(sq/n), ""), Quantity(abs/n, ""))
	s.Parts = append(s.Parts, p)
	sorted := slices.Clone(gs)
	slices.SortStableFunc(sorted, func(a, b guess) int {
		return cmp.Compare(math.Abs(b.pred-b.target), math.Abs(a.pred-a.target))
	})
	k := min(len(sorted), 8)
	for _, part := range []struct {
		title string
		gs    []guess
	}{{"The greatest errors", sorted[:k]}, {"The least errors", sorted[len(sorted)-k:]}} {
		x, err := inputs(test, part.gs)
		if err != nil {
			return err
		}
		s.Parts = append(s.Parts, samples(part.title, spec, x, part.gs, 0, func(g guess) (string, string) {
			return Quantity(g.pred, ""), "truth " + Quantity(g.target, "")
		})...)
	}
	return nil
}
