// Package series reads labelled time series: the .ts files of the UEA archive (several dimensions, lengths that may differ) and the .tsv files of the UCR archive.
//
// An example has the input "series", f32 [time, dimensions], and the target "label", the number of its class. Where lengths differ, shorter series are filled up with zeros
// behind their end and there is a second input "length", an i32 that recurrent layers and attention take.
package series

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// example is one series: values[t·dims+d], and its label as the file has it.
type example struct {
	values []float32
	label  string
}

// part is one file.
type part struct {
	dims     int
	examples []example
}

// Open reads a training and a test file; the name's ending (.ts or .tsv) says the format. With normalise, each dimension is shifted and scaled to mean 0 and deviation 1 over
// the training part.
func Open(name, train, test string, normalise bool) (*data.Set, error) {
	var parts [2]*part
	for i, path := range []string{train, test} {
		var err error
		if parts[i], err = read(path); err != nil {
			return nil, err
		}
	}
	if a, b := parts[0].dims, parts[1].dims; a != b {
		return nil, fmt.Errorf("%s: series of %d dimensions, those of %s have %d", test, b, train, a)
	}
	var classes []string
	longest, shortest := 0, math.MaxInt
	for _, e := range parts[0].examples {
		if !slices.Contains(classes, e.label) {
			classes = append(classes, e.label)
		}
	}
	sortLabels(classes)
	for i, p := range parts {
		for k, e := range p.examples {
			if !slices.Contains(classes, e.label) {
				return nil, fmt.Errorf("%s: example %d is of class %q, which the training part does not have", []string{train, test}[i], k+1, e.label)
			}
			longest, shortest = max(longest, len(e.values)/p.dims), min(shortest, len(e.values)/p.dims)
		}
	}
	s := data.Spec{
		Inputs:  []data.Field{{Name: "series", Shape: shape.Of(longest, parts[0].dims), DType: dtype.F32}},
		Targets: []data.Field{{Name: "label", Shape: shape.Of(), DType: dtype.I32}}, Classes: len(classes), ClassNames: classes,
	}
	if shortest < longest {
		s.Inputs = append(s.Inputs, data.Field{Name: "length", Shape: shape.Of(), DType: dtype.I32})
	}
	if normalise {
		scale(parts)
	}
	set := &data.Set{Name: name}
	for i, to := range []*data.Dataset{&set.Train, &set.Test} {
		d, err := assemble(s, parts[i], longest, classes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", []string{train, test}[i], err)
		}
		*to = d
	}
	return set, nil
}

// sortLabels sorts numbers by value, other labels by their letters.
func sortLabels(labels []string) {
	slices.SortFunc(labels, func(a, b string) int {
		x, errX := strconv.ParseFloat(a, 64)
		y, errY := strconv.ParseFloat(b, 64)
		if errX == nil && errY == nil && x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
}

// scale normalises both parts by the first.
func scale(parts [2]*part) {
	dims := parts[0].dims
	for d := range dims {
		var n, sum, square float64
		for _, e := range parts[0].examples {
			for i := d; i < len(e.values); i += dims {
				n, sum = n+1, sum+float64(e.values[i])
			}
		}
		mean := sum / n
		for _, e := range parts[0].examples {
			for i := d; i < len(e.values); i += dims {
				v := float64(e.values[i]) - mean
				square += v * v
			}
		}
		deviation := math.Sqrt(square / n)
		if deviation == 0 {
			deviation = 1
		}
		for _, p := range parts {
			for _, e := range p.examples {
				for i := d; i < len(e.values); i += dims {
					e.values[i] = float32((float64(e.values[i]) - mean) / deviation)
				}
			}
		}
	}
}

func assemble(s data.Spec, p *part, longest int, classes []string) (data.Dataset, error) {
	n := len(p.examples)
	x, y := s.Tensors(n)
	for i, e := range p.examples {
		copy(x[0].F32()[i*longest*p.dims:], e.values)
		if len(x) > 1 {
			x[1].I32()[i] = int32(len(e.values) / p.dims)
		}
		y[0].I32()[i] = int32(slices.Index(classes, e.label))
	}
	return data.FromTensors(s, x, []*tensor.Tensor{y[0]})
}

func read(path string) (*part, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("series: %w", err)
	}
	defer f.Close()
	line := map[string]func(p *part, text string) error{".ts": tsLine, ".tsv": tsvLine}[strings.ToLower(filepath.Ext(path))]
	if line == nil {
		return nil, fmt.Errorf("series: %s: the name must end in .ts or .tsv, for the format", path)
	}
	p := &part{}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<26)
	body := strings.EqualFold(filepath.Ext(path), ".tsv")
	n := 0
	for in.Scan() {
		n++
		text := strings.TrimSpace(in.Text())
		switch {
		case text == "" || strings.HasPrefix(text, "#"):
		case !body && strings.HasPrefix(text, "@"):
			word, rest, _ := strings.Cut(strings.ToLower(text), " ")
			body = word == "@data"
			if word == "@timestamps" && strings.TrimSpace(rest) == "true" || word == "@missing" && strings.TrimSpace(rest) == "true" {
				return nil, fmt.Errorf("series: %s:%d: %s: files with time stamps or missing values are not supported", path, n, text)
			}
		case !body:
			return nil, fmt.Errorf("series: %s:%d: data before the line @data", path, n)
		default:
			if err := line(p, text); err != nil {
				return nil, fmt.Errorf("series: %s:%d: %w", path, n, err)
			}
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("series: %s:%d: %w", path, n+1, err)
	}
	if len(p.examples) == 0 {
		return nil, fmt.Errorf("series: %s: there is no series in it", path)
	}
	return p, nil
}

// tsLine reads dimensions with a colon between them, values with commas, and the label at the end.
func tsLine(p *part, text string) error {
	fields := strings.Split(text, ":")
	if len(fields) < 2 {
		return fmt.Errorf("want dimensions and a label with colons between them")
	}
	dims := len(fields) - 1
	if p.dims == 0 {
		p.dims = dims
	}
	if dims != p.dims {
		return fmt.Errorf("%d dimensions, the series before have %d", dims, p.dims)
	}
	e := example{label: strings.TrimSpace(fields[dims])}
	for d, f := range fields[:dims] {
		values := strings.Split(f, ",")
		if d == 0 {
			e.values = make([]float32, len(values)*dims)
		}
		if len(values)*dims != len(e.values) {
			return fmt.Errorf("dimension %d has %d values, the first %d", d+1, len(values), len(e.values)/dims)
		}
		for t, v := range values {
			if err := number(&e.values[t*dims+d], v); err != nil {
				return fmt.Errorf("dimension %d, value %d: %w", d+1, t+1, err)
			}
		}
	}
	p.examples = append(p.examples, e)
	return nil
}

// tsvLine reads the label and then values of one dimension, with tabs between them.
func tsvLine(p *part, text string) error {
	fields := strings.Split(text, "\t")
	if len(fields) < 2 {
		return fmt.Errorf("want a label and values with tabs between them")
	}
	p.dims = 1
	e := example{label: strings.TrimSpace(fields[0]), values: make([]float32, len(fields)-1)}
	for i, v := range fields[1:] {
		if err := number(&e.values[i], v); err != nil {
			return fmt.Errorf("value %d: %w", i+1, err)
		}
	}
	p.examples = append(p.examples, e)
	return nil
}

func number(to *float32, text string) error {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 32)
	if err != nil || v-v != 0 {
		return fmt.Errorf("%q is no finite number", text)
	}
	*to = float32(v)
	return nil
}
