package nn

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
)

// Description is what is known of a model before it runs.
type Description struct {
	Name              string             `json:"name"`
	Layers            []LayerDescription `json:"layers"`
	Trainable         int64              `json:"trainable"`     // parameters that training changes
	NonTrainable      int64              `json:"non_trainable"` // the others, such as moving averages, and weights of few bits with their scales
	TrainableBytes    int64              `json:"trainable_bytes"`
	NonTrainableBytes int64              `json:"non_trainable_bytes"`
	FLOPs             int64              `json:"flops"` // of the prediction for one example
}

// LayerDescription is one layer of a Description.
type LayerDescription struct {
	Name         string      `json:"name"`
	Class        string      `json:"class"`
	Output       shape.Shape `json:"output"` // of its first application, without the batch
	Uses         int         `json:"uses"`   // how often it is applied
	Trainable    int64       `json:"trainable"`
	NonTrainable int64       `json:"non_trainable"`
	Bytes        int64       `json:"bytes"` // of its parameters
	FLOPs        int64       `json:"flops"` // of all its applications for one example
}

// Describe lists the model's layers with their shapes, parameters and FLOPs, for inputs of the given types (without the batch).
func (m *Model) Describe(input []graph.Type) (Description, error) {
	d := Description{Name: m.Name}
	at := map[string]int{}
	call := &Call{}
	g, err := graph.Build(func(g *graph.Graph) {
		call.G = g
		call.seen = func(l *Layer, y *graph.Node) {
			i, old := at[l.name]
			if !old {
				i = len(d.Layers)
				at[l.name] = i
				d.Layers = append(d.Layers, LayerDescription{Name: l.name, Class: l.class, Output: y.Shape()[1:].Clone()})
			}
			d.Layers[i].Uses++
		}
		types, err := m.Inputs(1, input)
		if err != nil {
			g.Fail("model", nil, "%v", err)
		}
		var x []*graph.Node
		for i, t := range types {
			x = append(x, g.Input(fmt.Sprint("x", i), t))
		}
		for i, y := range m.Call(call, x) {
			g.Output(fmt.Sprint("y", i), y)
		}
	})
	if err != nil {
		return Description{}, err
	}
	for _, p := range call.Params {
		i, _ := ownerOf(at, p.Name)
		l, n, bytes := &d.Layers[i], int64(cmp.Or(p.Weights, p.Type.Shape.Size())), int64(p.Type.Bytes())
		l.Bytes += bytes
		if p.Trainable {
			l.Trainable += n
			d.Trainable += n
			d.TrainableBytes += bytes
		} else {
			l.NonTrainable += n
			d.NonTrainable += n
			d.NonTrainableBytes += bytes
		}
	}
	for _, n := range g.Nodes() {
		if i, ok := ownerOf(at, n.Scope()); ok {
			f := flops(n)
			d.Layers[i].FLOPs += f
			d.FLOPs += f
		}
	}
	return d, nil
}

// ownerOf is the layer that a name belongs to: it is the layer's, or the layer's with parts and a parameter behind. Names of layers may have slashes too.
func ownerOf(layers map[string]int, name string) (i int, ok bool) {
	for {
		if i, ok = layers[name]; ok {
			return i, true
		}
		end := strings.LastIndexByte(name, '/')
		if end < 0 {
			return 0, false
		}
		name = name[:end]
	}
}

// flops is what graph.Op.FLOPs counts, with its rule for ops that do not say.
func flops(n *graph.Node) int64 {
	o := n.Op()
	if o.FLOPs != nil {
		in := make([]graph.Type, len(n.Inputs()))
		for i, x := range n.Inputs() {
			in[i] = x.Type()
		}
		return o.FLOPs(n.Attrs(), in, n.Types())
	}
	if o.Kind == graph.Leaf || o.Kind == graph.Movement {
		return 0
	}
	var f int64
	for _, t := range n.Types() {
		f += int64(t.Shape.Size())
	}
	return f
}

// Params is the number of all parameters.
func (d Description) Params() int64 { return d.Trainable + d.NonTrainable }

// String is a table in the manner of Keras's summary.
func (d Description) String() string {
	rows := [][]string{{"Layer (type)", "Output Shape", "Param #", "FLOPs"}}
	for _, l := range d.Layers {
		dims := []string{"None"}
		for _, n := range l.Output {
			dims = append(dims, strconv.Itoa(n))
		}
		rows = append(rows, []string{
			fmt.Sprintf("%s (%s)", l.Name, l.Class),
			"(" + strings.Join(dims, ", ") + ")",
			thousands(l.Trainable + l.NonTrainable),
			thousands(l.FLOPs),
		})
	}
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Model: %q\n", d.Name)
	for k, r := range rows {
		fmt.Fprintf(&b, "%-*s  %-*s  %*s  %*s\n", width[0], r[0], width[1], r[1], width[2], r[2], width[3], r[3])
		if k == 0 {
			b.WriteString(strings.Repeat("-", width[0]+width[1]+width[2]+width[3]+6) + "\n")
		}
	}
	for _, t := range []struct {
		what     string
		n, bytes int64
	}{{"Total params", d.Params(), d.TrainableBytes + d.NonTrainableBytes}, {"Trainable params", d.Trainable, d.TrainableBytes}, {"Non-trainable params", d.NonTrainable, d.NonTrainableBytes}} {
		fmt.Fprintf(&b, "%s: %s (%s)\n", t.what, thousands(t.n), size(t.bytes))
	}
	fmt.Fprintf(&b, "FLOPs for one example: %s\n", thousands(d.FLOPs))
	return b.String()
}

// thousands is n with commas: 1,234,567.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size is a number of bytes in units of 1024, as Keras prints it.
func size(bytes int64) string {
	v, unit := float64(bytes), 0
	for v >= 1024 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.2f %s", v, [...]string{"B", "KB", "MB", "GB", "TB"}[unit])
}
