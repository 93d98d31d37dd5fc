package pool

// What is done to one window: rows×cols pixels of c = len(y) channels that follow each other, the rows at a distance of
// stride elements.

// maxWindow sets y to the greatest pixel of x, channel by channel.
func maxWindow(y, x []float32, rows, cols, stride int) {
	c := len(y)
	copy(y, x)
	for i := range rows {
		for j := range cols {
			px := x[i*stride+j*c:][:c]
			for k, v := range px {
				if v > y[k] {
					y[k] = v
				}
			}
		}
	}
}

// sumWindow sets y to share times the sum of x's pixels.
func sumWindow(y, x []float32, rows, cols, stride int, share float32) {
	c := len(y)
	clear(y)
	for i := range rows {
		for j := range cols {
			px := x[i*stride+j*c:][:c]
			for k, v := range px {
				y[k] += v
			}
		}
	}
	for k := range y {
		y[k] *= share
	}
}

// spreadWindow adds share times dy to each pixel of dx.
func spreadWindow(dx, dy []float32, rows, cols, stride int, share float32) {
	c := len(dy)
	for i := range rows {
		for j := range cols {
			px := dx[i*stride+j*c:][:c]
			for k, v := range dy {
				px[k] += float32(v * share) // rounded, as the vector versions do
			}
		}
	}
}

// greatest is where the first greatest pixel of channel k of x stands.
func greatest(x []float32, c, k, rows, cols, stride int) int {
	at, best := k, x[k]
	for i := range rows {
		for j := range cols {
			if v := x[i*stride+j*c+k]; v > best {
				at, best = i*stride+j*c+k, v
			}
		}
	}
	return at
}

// pickWindow sets y to the elements of v where x is greatest.
func pickWindow(y, x, v []float32, rows, cols, stride int) {
	for k := range y {
		y[k] = v[greatest(x, len(y), k, rows, cols, stride)]
	}
}

// scatterWindow adds dy to dx where x is greatest.
func scatterWindow(dx, x, dy []float32, rows, cols, stride int) {
	for k, d := range dy {
		dx[greatest(x, len(dy), k, rows, cols, stride)] += d
	}
}
