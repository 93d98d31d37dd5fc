package conv

// The rules that choose an algorithm stand here, all of them.

func (s Spec) chooseForward() product {
	if s.depthwise() {
		return newDepthwiseForward(s)
	}
	return newDirectForward(s)
}

func (s Spec) chooseBackward() product {
	if s.depthwise() {
		return newDepthwiseBackward(s)
	}
	return newDirectBackward(s)
}

func (s Spec) chooseFilter() filterGrad {
	if s.depthwise() {
		return newDepthwiseFilter(s)
	}
	return newDirectFilter(s)
}
