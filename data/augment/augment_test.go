package augment_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/augment"
	"github.com/jouleml/joule/shape"
)

// same is n equal pictures.
func same(t testing.TB, n int, image shape.Shape, pix []float32) data.Dataset {
	t.Helper()
	ds, err := data.FromSlices(slices.Repeat(pix, n), image, make([]int32, n), shape.Of(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// variants are the pictures that the transforms make of n equal ones.
func variants(t testing.TB, n int, image shape.Shape, pix []float32, ts ...data.Transform) [][]float32 {
	t.Helper()
	l, err := data.NewLoader(same(t, n, image, pix), data.LoaderConfig{Batch: n, Transforms: ts, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := l.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(slices.Chunk(slices.Clone(b.X[0].F32()), len(pix)))
}

func TestFlipHorizontal(t *testing.T) {
	pix := []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12} // 2 rows of 3 pixels of 2 channels
	flipped := []float32{5, 6, 3, 4, 1, 2, 11, 12, 9, 10, 7, 8}
	image := shape.Of(2, 3, 2)
	for _, c := range []struct {
		p        float64
		low, top int // 1000 draws at 0.5 are within 5 standard deviations, 79, of 500
	}{{0, 0, 0}, {1, 1000, 1000}, {0.5, 421, 579}} {
		n := 0
		for _, v := range variants(t, 1000, image, pix, augment.FlipHorizontal(c.p)) {
			switch {
			case slices.Equal(v, flipped):
				n++
			case !slices.Equal(v, pix):
				t.Fatalf("p=%v makes %v", c.p, v)
			}
		}
		if n < c.low || n > c.top {
			t.Errorf("p=%v: %d of 1000 flipped", c.p, n)
		}
	}
}

// TestRandomCrop compares each result with the crops of a picture that is really padded, and wants all of them to occur.
func TestRandomCrop(t *testing.T) {
	for _, c := range []struct{ h, w, ch, pad int }{{3, 4, 1, 1}, {3, 2, 2, 2}, {2, 2, 1, 3}, {3, 3, 1, 0}} {
		pix := make([]float32, c.h*c.w*c.ch)
		for i := range pix {
			pix[i] = float32(i + 1)
		}
		crops := map[string]int{}
		for dy := range 2*c.pad + 1 {
			for dx := range 2*c.pad + 1 {
				crop := make([]float32, 0, len(pix))
				for y := range c.h {
					for x := range c.w {
						for k := range c.ch {
							sy, sx := y+dy-c.pad, x+dx-c.pad
							if sy < 0 || sy >= c.h || sx < 0 || sx >= c.w {
								crop = append(crop, 0)
							} else {
								crop = append(crop, pix[(sy*c.w+sx)*c.ch+k])
							}
						}
					}
				}
				crops[fmt.Sprint(crop)] = 0
			}
		}
		for _, v := range variants(t, 2000, shape.Of(c.h, c.w, c.ch), pix, augment.RandomCrop(c.pad)) {
			if _, ok := crops[fmt.Sprint(v)]; !ok {
				t.Fatalf("%+v: %v is no crop", c, v)
			}
			crops[fmt.Sprint(v)]++
		}
		for crop, n := range crops {
			if n == 0 {
				t.Errorf("%+v: %s never occurs", c, crop)
			}
		}
	}
}

func TestRotate(t *testing.T) {
	// A blob on one side: its centre of mass must turn about the picture's centre, by angles that fill ±90 degrees.
	const n = 41
	pix := make([]float32, n*n)
	mass := 0.0
	for y := range n {
		for x := range n {
			v := math.Exp(-(math.Pow(float64(x)-32, 2) + math.Pow(float64(y)-20, 2)) / 8)
			pix[y*n+x] = float32(v)
			mass += v
		}
	}
	low, top := 0.0, 0.0
	for _, v := range variants(t, 300, shape.Of(n, n, 1), pix, augment.Rotate(90)) {
		var m, my, mx float64
		for i, w := range v {
			m += float64(w)
			my += float64(w) * float64(i/n-20)
			mx += float64(w) * float64(i%n-20)
		}
		// Interpolation of so smooth a blob keeps its mass and its distance (12) within a percent.
		if math.Abs(m-mass) > 0.01*mass || math.Abs(math.Hypot(my, mx)/m-12) > 0.12 {
			t.Fatalf("mass %v of %v at distance %v", m, mass, math.Hypot(my, mx)/m)
		}
		angle := math.Atan2(-my, mx) * 180 / math.Pi
		low, top = min(low, angle), max(top, angle)
	}
	if low < -91 || top > 91 || low > -75 || top < 75 {
		t.Errorf("angles from %v to %v", low, top)
	}
	for _, v := range variants(t, 3, shape.Of(2, 2, 1), []float32{1, 2, 3, 4}, augment.Rotate(0)) {
		if !slices.Equal(v, []float32{1, 2, 3, 4}) {
			t.Errorf("no angle changes the picture to %v", v)
		}
	}
}

func TestNormalizeLast(t *testing.T) {
	n := data.Norm{Mean: []float32{1, 2}, Std: []float32{2, 4}}
	for _, v := range variants(t, 2, shape.Of(1, 2, 2), []float32{1, 2, 3, 6}, augment.FlipHorizontal(1), augment.Normalize(n)) {
		if !slices.Equal(v, []float32{1, 1, 0, 0}) {
			t.Errorf("%v", v)
		}
	}
}

func TestRefuse(t *testing.T) {
	image, flat := same(t, 2, shape.Of(2, 2, 1), []float32{1, 2, 3, 4}), same(t, 2, shape.Of(4), []float32{1, 2, 3, 4})
	norm := data.Norm{Mean: []float32{1, 2}, Std: []float32{2, 4}}
	for want, c := range map[string]struct {
		ds data.Dataset
		t  data.Transform
	}{
		"FlipHorizontal needs f32 pictures": {flat, augment.FlipHorizontal(0.5)},
		"RandomCrop needs f32 pictures":     {flat, augment.RandomCrop(1)},
		"Rotate needs f32 pictures":         {flat, augment.Rotate(1)},
		"FlipHorizontal(2)":                 {image, augment.FlipHorizontal(2)},
		"RandomCrop(-1)":                    {image, augment.RandomCrop(-1)},
		"Rotate(NaN)":                       {image, augment.Rotate(math.NaN())},
		"2 means":                           {image, augment.Normalize(norm)},
	} {
		_, err := data.NewLoader(c.ds, data.LoaderConfig{Transforms: []data.Transform{c.t}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v", want, err)
		}
	}
}

func BenchmarkAll(b *testing.B) {
	l, err := data.NewLoader(same(b, 320, shape.Of(28, 28, 1), make([]float32, 784)), data.LoaderConfig{
		Transforms: []data.Transform{augment.FlipHorizontal(0.5), augment.RandomCrop(2), augment.Rotate(10)}})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Next(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func Example() {
	picture := []float32{1, 2, 3, 4, 5, 6} // 2 rows of 3 grey pixels
	ds, err := data.FromSlices(picture, shape.Of(2, 3, 1), []int32{0}, shape.Of(), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	batches, err := data.NewLoader(ds, data.LoaderConfig{Seed: 1, Transforms: []data.Transform{augment.FlipHorizontal(0.5), augment.RandomCrop(1)}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer batches.Close()
	for range 3 {
		b, err := batches.Next(context.Background())
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("epoch", b.Epoch, b.X[0].F32())
	}
	// Output:
	// epoch 0 [2 3 0 5 6 0]
	// epoch 1 [5 4 0 0 0 0]
	// epoch 2 [0 1 2 0 4 5]
}

// Pictures that are normalised already are changed as if they were not: what comes in from outside is black.
func TestWithin(t *testing.T) {
	n := data.Norm{Mean: []float32{0.5}, Std: []float32{0.25}}
	normalised := []float32{2, 2, 2, 2} // white
	black := float32(-2)
	seen := false
	for _, v := range variants(t, 100, shape.Of(2, 2, 1), normalised, augment.Within(n, augment.RandomCrop(1))...) {
		for _, p := range v {
			if p != 2 && p != black {
				t.Fatalf("%v: a pixel is neither white nor black", v)
			}
			seen = seen || p == black
		}
	}
	if !seen {
		t.Error("no picture was shifted")
	}
	if augment.Within(n) != nil {
		t.Error("nothing to be done is done")
	}
}
