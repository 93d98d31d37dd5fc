package cpu

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/vec"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Elementwise work runs block by block: the instructions of a region, one per node, are run over a block of elements that stays in
// the L1 cache before the next block is begun, so that values between nodes never reach memory.
const (
	blockLen  = 1024          // elements of a block: 4 kB of f32
	chunkLen  = 16 * blockLen // elements that one thread takes at a time
	maxInline = 8             // axes of a broadcast after merging
)

// source says where an instruction finds an operand.
type source struct {
	kind  sourceKind
	b     *buf    // memory, scalarBuf
	reg   int     // register: byte offset in the worker's scratch
	value float64 // constant
	dt    dtype.Type
}

type sourceKind uint8

const (
	inMemory   sourceKind = iota // an operand of the region, of its shape
	inRegister                   // the result of an earlier instruction
	isConst                      // the same number everywhere
	isScalar                     // an operand of one element
)

// at is the operand's elements [lo, lo+n).
func (s *source) at(w *blockWorker, lo, n int) []byte {
	size := s.dt.Size()
	if s.kind == inRegister {
		return w.scratch[s.reg:][:n*size]
	}
	return s.b.raw[lo*size:][:n*size]
}

func (s *source) f32(w *blockWorker, lo, n int) []float32 { return cast[float32](s.at(w, lo, n), n) }

func (s *source) isNumber() bool { return s.kind == isConst || s.kind == isScalar }

// number is the value of a constant or scalar.
func (s *source) number() float32 {
	if s.kind == isScalar {
		return cast[float32](s.b.raw, 1)[0]
	}
	return float32(s.value)
}

// instr computes a block of one node.
type instr func(w *blockWorker, lo, n int)

type blockWorker struct {
	scratch []byte
	wide    [4][]float64 // operands and result of instructions that run on references
	in, out []graph.Value
}

// regionRun is a compiled region; it implements par.Body.
type regionRun struct {
	n       int
	code    []instr
	workers []blockWorker
}

func (r *regionRun) Chunk(i, worker int) {
	w := &r.workers[worker]
	end := min(r.n, (i+1)*chunkLen)
	for lo := i * chunkLen; lo < end; lo += blockLen {
		n := min(blockLen, end-lo)
		for _, f := range r.code {
			f(w, lo, n)
		}
	}
}

// regionCompiler turns a body into instructions.
type regionCompiler struct {
	k       *call
	r       *regionRun
	at      map[*graph.Node]source
	lastUse map[*graph.Node]int
	free    map[int][]int // by element size: registers
	used    int           // bytes of registers
	wide    bool          // some instruction runs on its reference
	outs    map[*graph.Node]*buf
}

// makeRegion compiles a region, or a single elementwise node.
func makeRegion(k *call) (string, func(), error) {
	rc := &regionCompiler{k: k, r: &regionRun{n: k.out[0].n}, at: map[*graph.Node]source{}, lastUse: map[*graph.Node]int{}, free: map[int][]int{}, outs: map[*graph.Node]*buf{}}
	var todo []*graph.Node
	name := k.n.Op().Name
	if a, ok := k.n.Attrs().(op.RegionAttrs); ok {
		name = "region"
		todo = a.Body.Nodes()
		for i, x := range a.Body.Inputs() {
			rc.operand(x, k.in[i])
		}
		for i, y := range a.Body.Outputs() {
			rc.outs[y.Node] = k.out[i]
		}
	} else {
		todo = []*graph.Node{k.n}
		for i, x := range k.n.Inputs() {
			rc.operand(x, k.in[i])
		}
		rc.outs[k.n] = k.out[0]
	}
	for i, n := range todo {
		for _, x := range n.Inputs() {
			rc.lastUse[x] = i
		}
	}
	rc.replaceable(todo)
	for i, n := range todo {
		switch {
		case n.Op() == graph.OpInput:
		case n.Op() == graph.OpConst:
			rc.at[n] = source{kind: isConst, value: graph.ConstOf(n).At(0), dt: n.DType()}
		case n.Op() == op.BroadcastOp:
			rc.broadcast(n)
		default:
			rc.emit(n)
		}
		for _, x := range n.Inputs() { // registers that nobody reads any more
			if s, ok := rc.at[x]; ok && s.kind == inRegister && rc.lastUse[x] == i {
				rc.free[s.dt.Size()] = append(rc.free[s.dt.Size()], s.reg)
				s.kind = inMemory // never read again: a second operand naming x must not free it twice
				rc.at[x] = s
			}
		}
	}
	rc.r.workers = make([]blockWorker, k.pool.Threads())
	for i := range rc.r.workers {
		w := &rc.r.workers[i]
		w.scratch = tensor.AlignedBytes(rc.used)
		if rc.wide {
			for j := range w.wide {
				w.wide[j] = make([]float64, blockLen)
			}
			w.in, w.out = make([]graph.Value, 3), make([]graph.Value, 1)
		}
	}
	if rc.wide {
		name += " (some on the reference)"
	}
	k.scratch = int64(rc.used * len(rc.r.workers))
	chunks := (rc.r.n + chunkLen - 1) / chunkLen
	return name, func() { k.pool.Run(chunks, rc.r) }, nil
}

func (rc *regionCompiler) operand(x *graph.Node, b *buf) {
	s := source{kind: inMemory, b: b, dt: b.t.DType}
	if b.n == 1 && rc.r.n != 1 {
		s.kind = isScalar
	}
	rc.at[x] = s
}

// replaceable tells the planner which results may lie on which operands: one whose last reader among the instructions is not later than the
// instruction that writes the result, of the same shape and element size.
func (rc *regionCompiler) replaceable(todo []*graph.Node) {
	inputs := rc.k.n.Inputs()
	if a, ok := rc.k.n.Attrs().(op.RegionAttrs); ok {
		inputs = a.Body.Inputs()
	}
	pos := map[*graph.Node]int{}
	for i, n := range todo {
		pos[n] = i
	}
	for y, b := range rc.outs {
		o := slices.Index(rc.k.out, b)
		for i, x := range inputs {
			if rc.at[x].kind == inMemory && x.Type().Equal(y.Type()) && rc.lastUse[x] <= pos[y] {
				rc.k.mayReplace(o, i)
			}
		}
	}
}

// result is where node n's instruction writes: the region's result if it is one, else a register.
func (rc *regionCompiler) result(n *graph.Node) source {
	if b := rc.outs[n]; b != nil {
		return source{kind: inMemory, b: b, dt: n.DType()}
	}
	return rc.register(n.DType())
}

func (rc *regionCompiler) register(dt dtype.Type) source {
	size := dt.Size()
	s := source{kind: inRegister, dt: dt}
	if f := rc.free[size]; len(f) > 0 {
		s.reg = f[len(f)-1]
		rc.free[size] = f[:len(f)-1]
		return s
	}
	s.reg = rc.used
	rc.used += blockLen * size
	return s
}

func (rc *regionCompiler) add(f instr) { rc.r.code = append(rc.r.code, f) }

// broadcast gives a repeated operand: a scalar stays one; anything else is spread into a register.
func (rc *regionCompiler) broadcast(n *graph.Node) {
	src := rc.at[n.Input(0)]
	if src.isNumber() {
		rc.at[n] = src
		return
	}
	if n.Input(0).Shape().Size() == 1 {
		src.kind = isScalar
		rc.at[n] = src
		return
	}
	dst := rc.result(n)
	rc.at[n] = dst
	sp := newSpread(n.Input(0).Shape(), n.Shape(), src.dt.Size())
	b := src.b
	rc.add(func(w *blockWorker, lo, n int) { sp.fill(dst.at(w, lo, n), b.raw, lo, n) })
}

// solid is a source that is an array: a number is spread into a register first.
func (rc *regionCompiler) solid(s source) source {
	if !s.isNumber() {
		return s
	}
	dst := rc.register(s.dt)
	size := s.dt.Size()
	if s.kind == isConst {
		one := make([]byte, size)
		narrowOne(s.dt, one, s.value)
		rc.add(func(w *blockWorker, lo, n int) { repeat(dst.at(w, lo, n), one) })
	} else {
		rc.add(func(w *blockWorker, lo, n int) { repeat(dst.at(w, lo, n), s.b.raw[:size]) })
	}
	return dst
}

func narrowOne(dt dtype.Type, raw []byte, v float64) {
	one := [1]float64{v}
	narrow(dt, raw, one[:])
}

// repeat fills dst with copies of one element.
func repeat(dst, one []byte) {
	if len(dst) == 0 {
		return
	}
	n := copy(dst, one)
	for n < len(dst) {
		n += copy(dst[n:], dst[:n])
	}
}

// emit adds the instruction of an elementwise node.
func (rc *regionCompiler) emit(n *graph.Node) {
	args := make([]source, len(n.Inputs()))
	for i, x := range n.Inputs() {
		args[i] = rc.at[x]
	}
	if f := fastInstr(rc, n, args); f != nil {
		rc.add(f)
		return
	}
	// Any other op or type runs on its reference, through float64.
	rc.wide = true
	for i := range args {
		args[i] = rc.solid(args[i])
	}
	dst := rc.result(n)
	rc.at[n] = dst
	o, attrs := n.Op(), n.Attrs()
	var in, out [3]graph.Type
	for i, x := range n.Inputs() {
		in[i] = graph.T(x.DType(), blockLen)
	}
	out[0] = graph.T(n.DType(), blockLen)
	rc.add(func(w *blockWorker, lo, n int) {
		for i := range args {
			widen(w.wide[i][:n], args[i].dt, args[i].at(w, lo, n))
			w.in[i] = graph.Value{Type: in[i], Data: w.wide[i][:n]}
		}
		w.out[0] = graph.Value{Type: out[0], Data: w.wide[3][:n]}
		o.Ref(attrs, w.in[:len(args)], w.out)
		narrow(dst.dt, dst.at(w, lo, n), w.wide[3][:n])
	})
}

var (
	unaryKernels = map[*graph.Op]vec.UnaryOp{}
	binaryKernel = map[*graph.Op]vec.BinaryOp{}
	compares     = map[*graph.Op]vec.CompareOp{}
)

func init() {
	for o, k := range map[*graph.Op]vec.UnaryOp{
		op.NegOp: vec.Neg, op.AbsOp: vec.Abs, op.SignOp: vec.Sign, op.ExpOp: vec.Exp, op.Expm1Op: vec.Expm1, op.LogOp: vec.Log, op.Log1pOp: vec.Log1p,
		op.SqrtOp: vec.Sqrt, op.RsqrtOp: vec.Rsqrt, op.TanhOp: vec.Tanh, op.SigmoidOp: vec.Sigmoid, op.ErfOp: vec.Erf, op.SinOp: vec.Sin, op.CosOp: vec.Cos,
		op.FloorOp: vec.Floor, op.CeilOp: vec.Ceil, op.RoundOp: vec.Round, op.ReluOp: vec.Relu,
	} {
		unaryKernels[o] = k
	}
	for o, k := range map[*graph.Op]vec.BinaryOp{
		op.AddOp: vec.Add, op.SubOp: vec.Sub, op.MulOp: vec.Mul, op.DivOp: vec.Div, op.MaxOp: vec.Max, op.MinOp: vec.Min, op.PowOp: vec.Pow, op.ReluGradOp: vec.ReluGrad,
	} {
		binaryKernel[o] = k
	}
	for o, k := range map[*graph.Op]vec.CompareOp{op.EqOp: vec.Eq, op.NeOp: vec.Ne, op.LtOp: vec.Lt, op.LeOp: vec.Le, op.GtOp: vec.Gt, op.GeOp: vec.Ge} {
		compares[o] = k
	}
}

// fastInstr is the instruction of a node on vector kernels, nil if there is none for its types.
func fastInstr(rc *regionCompiler, n *graph.Node, a []source) instr {
	o := n.Op()
	isF32 := n.DType() == dtype.F32
	inF32 := len(a) > 0 && a[0].dt == dtype.F32
	// finish makes the place of the result known before the closure that writes it is built.
	finish := func() source { d := rc.result(n); rc.at[n] = d; return d }
	if k, ok := unaryKernels[o]; ok && isF32 {
		x, f := rc.solid(a[0]), vec.Unary(k)
		d := finish()
		return func(w *blockWorker, lo, n int) { f(d.f32(w, lo, n), x.f32(w, lo, n)) }
	}
	if k, ok := binaryKernel[o]; ok && isF32 {
		x, y := a[0], a[1]
		if o == op.ReluGradOp { // the kernel takes the gradient first
			x, y = y, x
		}
		switch {
		case x.isNumber() && !y.isNumber():
			f := vec.BinarySV(k)
			d := finish()
			return func(w *blockWorker, lo, n int) { f(d.f32(w, lo, n), y.f32(w, lo, n), x.number()) }
		case y.isNumber() && !x.isNumber():
			f := vec.BinaryVS(k)
			d := finish()
			return func(w *blockWorker, lo, n int) { f(d.f32(w, lo, n), x.f32(w, lo, n), y.number()) }
		}
		x, y = rc.solid(x), rc.solid(y)
		f := vec.Binary(k)
		d := finish()
		return func(w *blockWorker, lo, n int) { f(d.f32(w, lo, n), x.f32(w, lo, n), y.f32(w, lo, n)) }
	}
	if k, ok := compares[o]; ok && inF32 {
		x, y := rc.solid(a[0]), rc.solid(a[1])
		f := vec.Compare(k)
		d := finish()
		return func(w *blockWorker, lo, n int) { f(d.at(w, lo, n), x.f32(w, lo, n), y.f32(w, lo, n)) }
	}
	switch {
	case o == op.SelectOp && isF32:
		m, x, y := rc.solid(a[0]), rc.solid(a[1]), rc.solid(a[2])
		f := vec.Select()
		d := finish()
		return func(w *blockWorker, lo, n int) { f(d.f32(w, lo, n), m.at(w, lo, n), x.f32(w, lo, n), y.f32(w, lo, n)) }
	case o == op.ConvertOp && isF32 && (a[0].dt == dtype.U8 || a[0].dt == dtype.Bool):
		x, f := rc.solid(a[0]), vec.FromUint8()
		d := finish()
		return func(w *blockWorker, lo, n int) { f(d.f32(w, lo, n), x.at(w, lo, n), 1) }
	case o == op.ConvertOp && isF32 && a[0].dt == dtype.I32:
		x, f := rc.solid(a[0]), vec.FromInt32()
		d := finish()
		return func(w *blockWorker, lo, n int) { f(d.f32(w, lo, n), cast[int32](x.at(w, lo, n), n)) }
	case o == op.ConvertOp && isF32 && a[0].dt == dtype.BF16:
		x, f := rc.solid(a[0]), vec.FromBFloat16()
		d := finish()
		return func(w *blockWorker, lo, n int) { f(d.f32(w, lo, n), cast[dtype.BFloat16](x.at(w, lo, n), n)) }
	case o == op.ConvertOp && n.DType() == dtype.BF16 && inF32:
		x, f := rc.solid(a[0]), vec.ToBFloat16()
		d := finish()
		return func(w *blockWorker, lo, n int) { f(cast[dtype.BFloat16](d.at(w, lo, n), n), x.f32(w, lo, n)) }
	}
	switch dt := n.DType(); {
	case len(a) == 2 && a[0].dt == dtype.F64:
		return plain[float64](rc, n, a)
	case len(a) == 2 && a[0].dt == dtype.I32:
		return plain[int32](rc, n, a)
	case len(a) == 2 && a[0].dt == dtype.I64:
		return plain[int64](rc, n, a)
	case len(a) == 2 && a[0].dt == dtype.U8:
		return plain[uint8](rc, n, a)
	case len(a) == 2 && a[0].dt == dtype.I8:
		return plain[int8](rc, n, a)
	case len(a) == 2 && dt == dtype.Bool && (o == op.AndOp || o == op.OrOp):
		f := vec.And
		if o == op.OrOp {
			f = vec.Or
		}
		x, y := rc.solid(a[0]), rc.solid(a[1])
		d := finish()
		return func(w *blockWorker, lo, n int) { f(d.at(w, lo, n), x.at(w, lo, n), y.at(w, lo, n)) }
	case o == op.NotOp:
		x := rc.solid(a[0])
		d := finish()
		return func(w *blockWorker, lo, n int) { vec.Not(d.at(w, lo, n), x.at(w, lo, n)) }
	case o == op.ConvertOp && isF32 && a[0].dt == dtype.I64:
		x := rc.solid(a[0])
		d := finish()
		return func(w *blockWorker, lo, n int) { vec.Convert(d.f32(w, lo, n), cast[int64](x.at(w, lo, n), n)) }
	case o == op.ConvertOp && isF32 && a[0].dt == dtype.F64:
		x := rc.solid(a[0])
		d := finish()
		return func(w *blockWorker, lo, n int) { vec.Convert(d.f32(w, lo, n), cast[float64](x.at(w, lo, n), n)) }
	}
	return nil
}

// plain is the instruction of a binary or comparing node on numbers of type T, nil if there is none.
func plain[T vec.Number](rc *regionCompiler, n *graph.Node, a []source) instr {
	two := func() (x, y, d source) {
		x, y = rc.solid(a[0]), rc.solid(a[1])
		if n.Op() == op.ReluGradOp { // the kernel takes the gradient first
			x, y = y, x
		}
		d = rc.result(n)
		rc.at[n] = d
		return x, y, d
	}
	if k, ok := binaryKernel[n.Op()]; ok && vec.BinaryOf[T](k) != nil {
		f := vec.BinaryOf[T](k)
		x, y, d := two()
		return func(w *blockWorker, lo, n int) {
			f(cast[T](d.at(w, lo, n), n), cast[T](x.at(w, lo, n), n), cast[T](y.at(w, lo, n), n))
		}
	}
	if k, ok := compares[n.Op()]; ok {
		f := vec.CompareOf[T](k)
		x, y, d := two()
		return func(w *blockWorker, lo, n int) {
			f(d.at(w, lo, n), cast[T](x.at(w, lo, n), n), cast[T](y.at(w, lo, n), n))
		}
	}
	return nil
}

// spread reads a small array as if it were repeated to a larger shape.
type spread struct {
	size   int // bytes of an element
	dims   []int
	stride []int // in elements of the source; 0 where it repeats
}

func newSpread(from, to shape.Shape, size int) *spread {
	st := make([]int, len(to))
	for i, s := range from.Strides() {
		if from[i] != 1 {
			st[i+len(to)-len(from)] = s
		}
	}
	sp := &spread{size: size}
	for i, d := range to {
		if d == 1 {
			continue
		}
		if k := len(sp.dims) - 1; k >= 0 && sp.stride[k] == st[i]*d { // runs on: one axis
			sp.dims[k] *= d
			sp.stride[k] = st[i]
			continue
		}
		sp.dims, sp.stride = append(sp.dims, d), append(sp.stride, st[i])
	}
	if len(sp.dims) == 0 { // one element
		sp.dims, sp.stride = []int{1}, []int{0}
	}
	if len(sp.dims) > maxInline {
		panic(fmt.Sprintf("cpu: a broadcast of %v to %v alternates too often", from, to))
	}
	return sp
}

// fill writes elements [lo, lo+n) of the spread array.
func (s *spread) fill(dst, src []byte, lo, n int) {
	last := len(s.dims) - 1
	var ix [maxInline]int
	rest := lo
	for a := last; a >= 0; a-- {
		ix[a] = rest % s.dims[a]
		rest /= s.dims[a]
	}
	for n > 0 {
		p := 0
		for a := 0; a <= last; a++ {
			p += ix[a] * s.stride[a]
		}
		run := min(s.dims[last]-ix[last], n)
		d := dst[:run*s.size]
		if s.stride[last] == 0 {
			repeat(d, src[p*s.size:][:s.size])
		} else { // after merging, the innermost axis either repeats or is contiguous
			copy(d, src[p*s.size:])
		}
		dst = dst[len(d):]
		n -= run
		ix[last] = 0
		for a := last - 1; a >= 0; a-- {
			if ix[a]++; ix[a] < s.dims[a] {
				break
			}
			ix[a] = 0
		}
	}
}
