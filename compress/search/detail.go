package search

import (
	"math/bits"

	"github.com/jouleml/joule/compress/prune"
	"github.com/jouleml/joule/train"
)

// Layer is what is known of a layer of a model.
type Layer struct {
	Name  string `json:"name"`
	Class string `json:"class"`
	// Bits is how many bits a weight of its kernels takes, or needs where few values are shared; 0 of layers without.
	Bits int `json:"bits,omitempty"`
	// Values is how many distinct values the weights of its largest kernel have, 0 if more than 4096.
	Values   int     `json:"values,omitempty"`
	Sparsity float64 `json:"sparsity"` // share of its kernels' weights that are zero
	FLOPs    int64   `json:"flops"`    // of an example
	Bytes    int     `json:"bytes"`    // of its parameters
}

// detail lists a model's layers.
func detail(m *train.Model) ([]Layer, error) {
	d, err := m.Summary()
	if err != nil {
		return nil, err
	}
	_, sparse, err := prune.Sparsity(m)
	if err != nil {
		return nil, err
	}
	formats, err := m.Formats()
	if err != nil {
		return nil, err
	}
	var out []Layer
	for _, l := range d.Layers {
		row := Layer{Name: l.Name, Class: l.Class, FLOPs: l.FLOPs}
		zeros, weights, largest := 0.0, 0.0, 0
		for _, p := range m.Params() {
			if !train.Matches(l.Name, p.Name) {
				continue
			}
			row.Bytes += p.Type.Bytes()
			if few, ok := formats[p.Name]; ok {
				row.Bits = few.Bits
				continue
			}
			s, kernel := sparse[p.Name]
			if !kernel {
				continue
			}
			n := p.Type.Shape.Size()
			zeros, weights = zeros+s*float64(n), weights+float64(n)
			if n > largest {
				largest = n
				v, err := m.State().Get(p.Name)
				if err != nil {
					return nil, err
				}
				row.Bits = 8 * p.Type.DType.Size()
				if row.Values = distinct(v.Bytes(), p.Type.DType.Size()); row.Values > 0 && 3*row.Values <= n {
					row.Bits = min(row.Bits, max(1, bits.Len(uint(row.Values-1))))
				}
			}
		}
		if weights > 0 {
			row.Sparsity = zeros / weights
		}
		out = append(out, row)
	}
	return out, nil
}

// distinct counts the values of elements of so many bytes, 0 where there are more than 4096.
func distinct(b []byte, size int) int {
	seen := map[string]bool{}
	for ; len(b) >= size; b = b[size:] {
		if seen[string(b[:size])] = true; len(seen) > 4096 {
			return 0
		}
	}
	return len(seen)
}
