package data

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// FromTensors is a data set over tensors whose first axis counts the examples: x one for each input and y one for each target of spec.
// It keeps the tensors and copies nothing. With spec.Classes > 0 the first target must hold integer classes in [0, Classes).
func FromTensors(spec Spec, x, y []*tensor.Tensor) (Dataset, error) {
	if err := spec.Check(); err != nil {
		return nil, err
	}
	if len(x) != len(spec.Inputs) || len(y) != len(spec.Targets) {
		return nil, fmt.Errorf("data: %d inputs and %d targets given, the spec names %d and %d", len(x), len(y), len(spec.Inputs), len(spec.Targets))
	}
	m := &memory{spec: spec, x: x, y: y}
	for i, t := range append(append([]*tensor.Tensor{}, x...), y...) {
		f := Field{}
		if i < len(x) {
			f = spec.Inputs[i]
		} else {
			f = spec.Targets[i-len(x)]
		}
		if t.DType() != f.DType || t.Shape().Rank() == 0 || !t.Shape()[1:].Equal(f.Shape) {
			return nil, fmt.Errorf("data: field %q is %v%v for each example, but its tensor is %v%v with the examples as first axis", f.Name, f.DType, f.Shape, t.DType(), t.Shape())
		}
		if i == 0 {
			m.n = t.Shape()[0]
		} else if t.Shape()[0] != m.n {
			return nil, fmt.Errorf("data: field %q has %d examples, field %q has %d", f.Name, t.Shape()[0], spec.Inputs[0].Name, m.n)
		}
	}
	if spec.Classes > 0 {
		if len(y) == 0 || !spec.Targets[0].DType.IsInt() || spec.Targets[0].Shape.Size() != 1 {
			return nil, fmt.Errorf("data: a data set of %d classes needs one integer as its first target", spec.Classes)
		}
		for i := range m.n {
			if c := y[0].At(i); c < 0 || c >= float64(spec.Classes) {
				return nil, fmt.Errorf("data: example %d has class %v, outside [0, %d)", i, c, spec.Classes)
			}
		}
	}
	return m, nil
}

// FromSlices is a data set of len(y)/Size(yShape) examples with one input "x" and one target "y", whose elements stand in x and y one
// example after another; the slices are copied. With classes > 0, y holds class numbers in [0, classes).
func FromSlices[X, Y tensor.Elem](x []X, xShape shape.Shape, y []Y, yShape shape.Shape, classes int) (Dataset, error) {
	for _, s := range []shape.Shape{xShape, yShape} {
		if err := s.Check(); err != nil {
			return nil, fmt.Errorf("data: %w", err)
		}
		if s.Size() == 0 {
			return nil, fmt.Errorf("data: shape %v of an example has no elements", s)
		}
	}
	n := len(x) / xShape.Size()
	if len(x) != n*xShape.Size() || len(y) != n*yShape.Size() {
		return nil, fmt.Errorf("data: %d elements of x with shape %v and %d elements of y with shape %v are not the same whole number of examples", len(x), xShape, len(y), yShape)
	}
	spec := Spec{
		Inputs:  []Field{{"x", xShape.Clone(), tensor.TypeOf[X]()}},
		Targets: []Field{{"y", yShape.Clone(), tensor.TypeOf[Y]()}},
		Classes: classes,
	}
	batch := func(s shape.Shape) []int { return append([]int{n}, s...) }
	return FromTensors(spec, []*tensor.Tensor{tensor.Of(x, batch(xShape)...)}, []*tensor.Tensor{tensor.Of(y, batch(yShape)...)})
}

// memory is a data set over whole tensors.
type memory struct {
	spec Spec
	x, y []*tensor.Tensor
	n    int
}

func (m *memory) Spec() Spec { return m.spec }
func (m *memory) Len() int   { return m.n }

func (m *memory) Fill(idx []int, x, y []*tensor.Tensor) error {
	for i, t := range m.x {
		gather(x[i].Bytes(), t.Bytes(), idx, m.n)
	}
	for i, t := range m.y {
		gather(y[i].Bytes(), t.Bytes(), idx, m.n)
	}
	return nil
}

// gather copies rows idx of n equal rows.
func gather(dst, src []byte, idx []int, n int) {
	row := len(src) / max(n, 1)
	for k, i := range idx {
		copy(dst[k*row:(k+1)*row], src[i*row:(i+1)*row])
	}
}

// Label is the first target's value when there are classes.
func (m *memory) Label(i int) int {
	if m.spec.Classes == 0 {
		return 0
	}
	return int(m.y[0].At(i))
}

// FromPixels is a data set of 8-bit pictures of one shape, [height, width, channels], with a class each. The pixels stay as they are, one
// byte a value, and are handed out as f32 in [0, 1] (value/255) in input "image"; the classes are the i32 target "label". Both slices are
// kept, not copied. Classes must be below len(classNames).
func FromPixels(pixels []byte, image shape.Shape, labels []byte, classNames []string) (Dataset, error) {
	if err := image.Check(); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if len(labels)*image.Size() != len(pixels) {
		return nil, fmt.Errorf("data: %d labels, but %d bytes of pixels in pictures of shape %v", len(labels), len(pixels), image)
	}
	for i, c := range labels {
		if int(c) >= len(classNames) {
			return nil, fmt.Errorf("data: example %d has class %d, outside [0, %d)", i, c, len(classNames))
		}
	}
	return &pixelSet{spec: ImageSpec(image, classNames), pixels: pixels, labels: labels, size: image.Size()}, nil
}

// ImageSpec is the spec of pictures with one class each: f32 input "image" of the given shape, i32 target "label".
func ImageSpec(image shape.Shape, classNames []string) Spec {
	return Spec{
		Inputs:     []Field{{"image", image.Clone(), dtype.F32}},
		Targets:    []Field{{"label", shape.Of(), dtype.I32}},
		Classes:    len(classNames),
		ClassNames: classNames,
	}
}

// pixelSet keeps one byte a value, a quarter of f32.
type pixelSet struct {
	spec   Spec
	pixels []byte
	labels []byte
	size   int
}

func (p *pixelSet) Spec() Spec      { return p.spec }
func (p *pixelSet) Len() int        { return len(p.labels) }
func (p *pixelSet) Label(i int) int { return int(p.labels[i]) }

func (p *pixelSet) Fill(idx []int, x, y []*tensor.Tensor) error {
	image, label := x[0].F32(), y[0].I32()
	for k, i := range idx {
		label[k] = int32(p.labels[i])
		dst, src := image[k*p.size:(k+1)*p.size], p.pixels[i*p.size:(i+1)*p.size]
		for j, v := range src {
			dst[j] = Unit[v]
		}
	}
	return nil
}

// Unit maps an 8-bit value v to v/255, rounded to f32. A table load costs less than a division and, unlike a product with 1/255, gives
// the quotient rounded once.
var Unit = func() (t [256]float32) {
	for i := range t {
		t[i] = float32(i) / 255
	}
	return t
}()
