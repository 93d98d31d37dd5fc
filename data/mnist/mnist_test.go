package mnist

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"testing"

	"github.com/jouleml/joule/data"
)

// The SHA-256 of the four original IDX files, uncompressed.
var original = map[string]string{
	"train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
	"train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
	"t10k-images":  "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
	"t10k-labels":  "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

// TestEqualsOriginal puts every value that Fill gives back into the original files.
func TestEqualsOriginal(t *testing.T) {
	digits, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	const batch = 100
	x, y := digits.Spec().Tensors(batch)
	for part, ds := range map[string]data.Dataset{"train": digits.Train, "t10k": digits.Test} {
		n := ds.Len()
		images, labels := sha256.New(), sha256.New()
		images.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte{0, 0, 8, 3}, uint32(n)), side), side))
		labels.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 8, 1}, uint32(n)))
		raw := make([]byte, batch*pixels)
		idx := make([]int, batch)
		for lo := 0; lo < n; lo += batch {
			for k := range idx {
				idx[k] = lo + k
			}
			x[0].F32()[0] = float32(math.NaN()) // Fill must overwrite zeros too
			if err := ds.Fill(idx, x, y); err != nil {
				t.Fatal(err)
			}
			for p, v := range x[0].F32() {
				raw[p] = byte(math.Round(float64(v) * 255))
				if float32(raw[p])/255 != v {
					t.Fatalf("%s %d: value %v is no byte/255", part, lo+p/pixels, v)
				}
			}
			images.Write(raw)
			for k, l := range y[0].I32() {
				labels.Write([]byte{byte(l)})
				if ds.(data.Labeler).Label(lo+k) != int(l) {
					t.Fatalf("%s %d: Label differs from the target %d", part, lo+k, l)
				}
			}
		}
		for name, sum := range map[string][]byte{"images": images.Sum(nil), "labels": labels.Sum(nil)} {
			if got := hex.EncodeToString(sum); got != original[part+"-"+name] {
				t.Errorf("%s-%s: SHA-256 %s, want %s", part, name, got, original[part+"-"+name])
			}
		}
	}
}

func TestDamaged(t *testing.T) {
	for name, file := range map[string][]byte{
		"empty":     nil,
		"magic":     append([]byte("x"), testFile[1:]...),
		"truncated": testFile[:len(testFile)-1],
		"head only": testFile[:12],
	} {
		if _, err := newStore("f", file); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	digits, err := Load()
	if err != nil {
		b.Fatal(err)
	}
	const batch = 32
	x, y := digits.Spec().Tensors(batch)
	idx := make([]int, batch)
	i := 0
	for b.Loop() {
		for k := range idx {
			idx[k] = i % digits.Train.Len()
			i += 7919
		}
		digits.Train.Fill(idx, x, y)
	}
	b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "images/s")
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		Load()
	}
}

func Example() {
	digits, err := Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(digits.Train.Len(), digits.Test.Len(), digits.Spec().Inputs[0].Shape, digits.Spec().Classes)

	x, y := digits.Spec().Tensors(1)
	if err := digits.Test.Fill([]int{0}, x, y); err != nil {
		fmt.Println(err)
		return
	}
	for row := 6; row < 28; row += 3 {
		for _, v := range x[0].F32()[row*28 : (row+1)*28] {
			fmt.Print(string(".:#"[int(v*2.99)]))
		}
		fmt.Println()
	}
	fmt.Println("label", y[0].I32()[0])
	// Output:
	// 60000 10000 [28 28 1] 10
	// ............................
	// .......:.::##########:......
	// ..................##........
	// ................:##.........
	// ...............##...........
	// .............##.............
	// ...........###..............
	// ............................
	// label 7
}
