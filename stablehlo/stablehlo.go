// Package stablehlo writes programs as StableHLO text (github.com/openxla/stablehlo, the dialect that XLA's plugins compile). Ops of the table say with it what they are there.
//
// # Terminology
//
// A Value is the result of an instruction: a name, an element type and a shape. A Builder writes the instructions of one function, in MLIR's generic form, which does not change with the
// version of the dialect's pretty syntax. Its methods infer result types; operands must fit, as the specification says, since the ops that call them have checked their own: what does not
// fit is refused by the compiler that reads the text.
package stablehlo

import (
	"fmt"
	"math"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Elem is an element type by its name in MLIR: "f32", "ui8", "i1", …
type Elem string

// Element types that have no dtype of their own; only lowerings use them.
const (
	U32 Elem = "ui32"
	U64 Elem = "ui64"
)

// Element types of dtypes.
const (
	F32  Elem = "f32"
	F64  Elem = "f64"
	BF16 Elem = "bf16"
	I8   Elem = "i8"
	U8   Elem = "ui8"
	I32  Elem = "i32"
	I64  Elem = "i64"
	Bool Elem = "i1"
)

// Of is the element type of a dtype.
func Of(dt dtype.Type) Elem {
	switch dt {
	case dtype.U8:
		return U8
	case dtype.Bool:
		return Bool
	}
	return Elem(dt.String())
}

// IsFloat reports whether e is a float.
func (e Elem) IsFloat() bool { return e == F32 || e == F64 || e == BF16 }

// Value is a result of an instruction, or an argument.
type Value struct {
	name  string
	Elem  Elem
	Shape shape.Shape
}

// Type is the value's type as MLIR writes it.
func (v Value) Type() string { return TypeText(v.Elem, v.Shape) }

// TypeText is a tensor type as MLIR writes it: tensor<2x3xf32>.
func TypeText(e Elem, sh shape.Shape) string {
	var b strings.Builder
	b.WriteString("tensor<")
	for _, d := range sh {
		fmt.Fprintf(&b, "%dx", d)
	}
	return b.String() + string(e) + ">"
}

// Builder writes a function. The zero value is ready.
type Builder struct {
	text, before strings.Builder
	next         int
	args         []string
}

// Declare adds a line to the module, before its function.
func (b *Builder) Declare(line string) { b.before.WriteString(line + "\n") }

func (b *Builder) fresh(e Elem, sh shape.Shape) Value {
	b.next++
	return Value{fmt.Sprintf("%%v%d", b.next), e, sh}
}

// Arg adds an argument to the function, with MLIR attributes ("" for none).
func (b *Builder) Arg(e Elem, sh shape.Shape, attrs string) Value {
	v := Value{fmt.Sprintf("%%arg%d", len(b.args)), e, sh}
	if attrs != "" {
		attrs = " {" + attrs + "}"
	}
	b.args = append(b.args, fmt.Sprintf("%s: %s%s", v.name, v.Type(), attrs))
	return v
}

// Module is the whole program, which gives results; attrs are MLIR attributes of the module and of each result.
func (b *Builder) Module(name, attrs string, results []Value, resultAttrs []string) string {
	types := make([]string, len(results))
	for i, r := range results {
		if types[i] = r.Type(); resultAttrs != nil && resultAttrs[i] != "" {
			types[i] += " {" + resultAttrs[i] + "}"
		}
	}
	if attrs != "" {
		attrs = " attributes {" + attrs + "}"
	}
	return fmt.Sprintf("module @%s%s {\n%sfunc.func public @main(%s) -> (%s) {\n%s\"func.return\"(%s) : (%s) -> ()\n}\n}\n",
		name, attrs, b.before.String(), strings.Join(b.args, ", "), strings.Join(types, ", "), b.text.String(), names(results), typesOf(results))
}

func names(vs []Value) string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = v.name
	}
	return strings.Join(out, ", ")
}

func typesOf(vs []Value) string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = v.Type()
	}
	return strings.Join(out, ", ")
}

// Region is the body of an instruction: its arguments' element types and shapes (their names are given), and what it computes from them, written to a Builder of its own.
type Region struct {
	Args []Value
	Body func(b *Builder, in []Value) []Value
}

// Emit writes an instruction. op is the name without "stablehlo.", unless it has a dialect; attrs are its attributes as MLIR text; results say the types of what it gives; region may be nil.
func (b *Builder) Emit(op, attrs string, results []Value, region *Region, in ...Value) []Value {
	if region == nil {
		return b.emit(op, attrs, results, nil, in)
	}
	return b.emit(op, attrs, results, []*Region{region}, in)
}

func (b *Builder) emit(op, attrs string, results []Value, regions []*Region, in []Value) []Value {
	if !strings.Contains(op, ".") {
		op = "stablehlo." + op
	}
	var bodies []string
	for _, region := range regions {
		inner := &Builder{next: b.next}
		args, decl := make([]Value, len(region.Args)), make([]string, len(region.Args))
		for i, a := range region.Args {
			args[i] = inner.fresh(a.Elem, a.Shape)
			decl[i] = args[i].name + ": " + a.Type()
		}
		r := region.Body(inner, args)
		bodies = append(bodies, fmt.Sprintf("{\n^bb0(%s):\n%s\"stablehlo.return\"(%s) : (%s) -> ()\n}", strings.Join(decl, ", "), inner.text.String(), names(r), typesOf(r)))
		b.next = inner.next
	}
	body := ""
	if len(bodies) > 0 {
		body = " (" + strings.Join(bodies, ", ") + ")"
	}
	out := make([]Value, len(results))
	for i, r := range results {
		out[i] = b.fresh(r.Elem, r.Shape)
	}
	if attrs != "" {
		attrs = " <{" + attrs + "}>"
	}
	fmt.Fprintf(&b.text, "%s = \"%s\"(%s)%s%s : (%s) -> (%s)\n", names(out), op, names(in), attrs, body, typesOf(in), typesOf(out))
	return out
}

// one is Emit for an instruction of one result.
func (b *Builder) one(op, attrs string, e Elem, sh shape.Shape, in ...Value) Value {
	return b.Emit(op, attrs, []Value{{Elem: e, Shape: sh}}, nil, in...)[0]
}

// scalarText is a number as MLIR writes it in a constant: floats by their bits, so that every value, NaN and infinities included, is exact.
func scalarText(e Elem, v float64) string {
	switch e {
	case F32:
		return fmt.Sprintf("0x%08X", math.Float32bits(float32(v)))
	case F64:
		return fmt.Sprintf("0x%016X", math.Float64bits(v))
	case BF16:
		return fmt.Sprintf("0x%04X", uint16(dtype.ToBFloat16(float32(v))))
	case Bool:
		return fmt.Sprint(v != 0)
	case U32, U64:
		return fmt.Sprint(uint64(v))
	}
	return fmt.Sprint(tensor.Whole(v))
}

// Fill is a constant of one number everywhere.
func (b *Builder) Fill(e Elem, v float64, sh shape.Shape) Value {
	return b.dense(e, sh, scalarText(e, v))
}

// Word is a constant of an unsigned integer, which float64 could not hold.
func (b *Builder) Word(e Elem, v uint64, sh shape.Shape) Value { return b.dense(e, sh, fmt.Sprint(v)) }

// Scalar is a constant of rank 0.
func (b *Builder) Scalar(e Elem, v float64) Value { return b.Fill(e, v, shape.Shape{}) }

// Like is a constant of x's type.
func (b *Builder) Like(x Value, v float64) Value { return b.Fill(x.Elem, v, x.Shape) }

func (b *Builder) dense(e Elem, sh shape.Shape, text string) Value {
	return b.one("constant", fmt.Sprintf("value = dense<%s> : %s", text, TypeText(e, sh)), e, sh)
}

// Tensor is a constant.
func (b *Builder) Tensor(t *tensor.Tensor) Value {
	e := Of(t.DType())
	switch {
	case t.Len() == 0:
		return b.dense(e, t.Shape(), "")
	case t.Len() == 1 && t.DType() != dtype.I64:
		return b.Fill(e, t.At(0), t.Shape())
	case t.DType() == dtype.Bool || t.DType() == dtype.I64 && t.Len() < 1024: // Booleans are packed in MLIR's raw form
		return b.dense(e, t.Shape(), nested(t, t.Shape(), new(int)))
	}
	return b.dense(e, t.Shape(), fmt.Sprintf("\"0x%X\"", t.Bytes())) // little-endian, as every machine that Joule runs on
}

func nested(t *tensor.Tensor, sh shape.Shape, at *int) string {
	if len(sh) == 0 {
		*at++
		if t.DType() == dtype.I64 {
			return fmt.Sprint(tensor.Data[int64](t)[*at-1])
		}
		return scalarText(Of(t.DType()), t.At(*at-1))
	}
	parts := make([]string, sh[0])
	for i := range parts {
		parts[i] = nested(t, sh[1:], at)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// List is an attribute of integers: array<i64: 1, 2>.
func List[T int | bool](xs ...T) string {
	var z T
	elem := "i64"
	if _, ok := any(z).(bool); ok {
		elem = "i1"
	}
	if len(xs) == 0 {
		return "array<" + elem + ">"
	}
	out := make([]string, len(xs))
	for i, x := range xs {
		out[i] = fmt.Sprint(x)
	}
	return "array<" + elem + ": " + strings.Join(out, ", ") + ">"
}

// axes is a list in the attributes of dimension numbers: [0, 1].
func axes(xs []int) string {
	out := make([]string, len(xs))
	for i, x := range xs {
		out[i] = fmt.Sprint(x)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// pads is an attribute of paddings, two for each axis.
func pads(p [][2]int) string {
	out := make([]string, len(p))
	for i, x := range p {
		out[i] = fmt.Sprintf("[%d, %d]", x[0], x[1])
	}
	return fmt.Sprintf("dense<[%s]> : tensor<%dx2xi64>", strings.Join(out, ", "), len(p))
}
