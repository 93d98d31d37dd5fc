package conv

import "github.com/jouleml/joule/internal/isa"

// The rules that choose an algorithm stand here, all of them.

func (s Spec) chooseForward() product {
	if s.tilesPay() {
		if t := newTileProduct(s, Forward); t != nil {
			return t
		}
	}
	switch {
	case s.depthwise():
		return newDepthwiseForward(s)
	case s.winogradPays(s.OH(), s.OW(), s.realTaps()):
		return newWinogradForward(s)
	}
	return newDirectForward(s)
}

func (s Spec) chooseBackward() product {
	if s.tilesPay() {
		if t := newTileProduct(s, BackwardInput); t != nil {
			return t
		}
	}
	switch {
	case s.depthwise():
		return newDepthwiseBackward(s)
	case s.winogradPays(s.H, s.W, s.realTaps()):
		return newWinogradBackward(s)
	case s.Groups == 1 && s.Cin <= 3 && s.KH*s.KW > 1:
		// A vector of dx would be mostly empty.
		return newSpread(s)
	}
	return newDirectBackward(s)
}

func (s Spec) chooseFilter() filterGrad {
	if t := newTileFilter(s); t != nil {
		return t
	}
	switch {
	case s.depthwise():
		return newDepthwiseFilter(s)
	case s.winogradPays(s.OH(), s.OW(), s.N*s.OH()*s.OW()*s.KH*s.KW):
		return newWinogradFilter(s)
	case s.patchesFit():
		return newPatchFilter(s)
	case s.pointwise() && min(s.Cin, s.Cout) >= pointwiseColumns:
		return newPointwiseFilter(s)
	}
	return newDirectFilter(s)
}

// Images of few channels and so many elements, x and y together, are a matter of memory, and AMX gains nothing: of 40 shapes with two threads on a Xeon of the Sapphire Rapids kind, 128 to 512
// channels of 25088 pixels took up to a sixth longer, forward or backward, and those of 18816 about as long. The others took from a tenth longer to a third less time, most of them a sixth less. The
// gradient for the filters gains everywhere.
const (
	tileChannels = 128
	tileImages   = 10 << 20
)

// tilesPay reports whether what package tgemm takes pays for the two products.
func (s Spec) tilesPay() bool {
	return min(s.Cin, s.Cout) > tileChannels || s.SizeX()+s.SizeY() <= tileImages
}

// winogradFits reports whether Winograd's algorithm can compute the convolution: its transforms work on at least one vector.
func (s Spec) winogradFits() bool {
	strided := s.StrideH == 2 && s.StrideW == 2 && s.KH == 3
	return (s.KH == 3 || s.KH == 5) && s.KW == s.KH && (s.StrideH == 1 && s.StrideW == 1 || strided) && s.DilH == 1 && s.DilW == 1 &&
		s.Groups == 1 && s.Cin >= 16 && s.Cout >= 16 && s.N > 0
}

// winogradPays reports whether it is faster, too, than the direct algorithm, for results of height×width pixels and a direct
// algorithm that multiplies the given number of taps for each pair of channels. A tile costs 36 multiplies (25 at stride 2) and its transforms
// about 5 more (6), and the transform of a filter as much as about 65 for each line. The figures
// come from 17 shapes of 16 to 512 channels on one AVX-512 core; the wrong choices there cost up to a quarter.
func (s Spec) winogradPays(height, width, taps int) bool {
	if isa.Current() == isa.Portable || !s.winogradFits() {
		return false
	}
	m, cost := 7-s.KH, 41
	if s.StrideH == 2 {
		height, width = s.OH(), s.OW()
		m, cost = 2, 31
	}
	tiles := s.N * ((height + m - 1) / m) * ((width + m - 1) / m)
	return cost*tiles+65*s.KH < taps
}

// realTaps is the number of pairs of a pixel of y and a tap that meets a pixel of x, not padding.
func (s Spec) realTaps() int {
	count := func(a axis) (n int) {
		for _, c := range a.classes {
			n += c.n * len(c.outs)
		}
		return n
	}
	return s.N * count(forwardAxis(s.H, s.OH(), s.KH, s.StrideH, s.PadTop, s.DilH)) *
		count(forwardAxis(s.W, s.OW(), s.KW, s.StrideW, s.PadLeft, s.DilW))
}
