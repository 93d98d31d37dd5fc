package conv

import "github.com/jouleml/joule/internal/isa"

// The rules that choose an algorithm stand here, all of them.

func (s Spec) chooseForward() product {
	switch {
	case s.depthwise():
		return newDepthwiseForward(s)
	case s.winograd():
		return newWinogradForward(s)
	}
	return newDirectForward(s)
}

func (s Spec) chooseBackward() product {
	switch {
	case s.depthwise():
		return newDepthwiseBackward(s)
	case s.winograd():
		return newWinogradBackward(s)
	case s.Groups == 1 && s.Cin <= 3 && s.KH*s.KW > 1:
		// A vector of dx would be mostly empty.
		return newSpread(s)
	}
	return newDirectBackward(s)
}

func (s Spec) chooseFilter() filterGrad {
	switch {
	case s.depthwise():
		return newDepthwiseFilter(s)
	case s.winograd():
		return newWinogradFilter(s)
	}
	return newDirectFilter(s)
}

// winogradFits reports whether Winograd's algorithm can compute the convolution: its transforms work on whole vectors.
func (s Spec) winogradFits() bool {
	return (s.KH == 3 || s.KH == 5) && s.KW == s.KH && s.StrideH == 1 && s.StrideW == 1 && s.DilH == 1 && s.DilW == 1 && s.Groups == 1 &&
		s.Cin%16 == 0 && s.Cout%16 == 0 && s.N > 0
}

// winograd reports whether it is the faster way, too: it was with all measured numbers of channels from 16 up, unless there
// are so few pixels that the transforms of the filters cost more than they save.
func (s Spec) winograd() bool {
	return s.winogradFits() && isa.Current() != isa.Portable && s.N*s.OH()*s.OW() >= 36
}
