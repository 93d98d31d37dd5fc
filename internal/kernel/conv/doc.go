// Package conv computes convolutions of float32 images on the CPU, and their two gradients.
//
// Terminology. Images are x [N,H,W,Cin], filters w [KH,KW,Cin/Groups,Cout], results y [N,OH,OW,Cout]. A tap is one position
// (ky,kx) of the filter. The three directions are Forward (y from x and w), BackwardInput (dx from w and dy; also the
// transposed convolution) and BackwardFilter (dw from x and dy). A product is one of the first two: both gather, for each
// pixel of their output, pixels of their input at a set of taps.
//
// A Plan is made once for a Spec and chooses an algorithm for each direction (choose.go has the rules):
//
//   - direct: the tile kernel of package gemm straight on the images, without a copy of the patches.
//   - winograd: 3×3 and 5×5 filters at stride 1 with a quarter or a third of the multiplies, 3×3 filters at stride 2 with two
//     thirds (strided.go); sums in another order. From 16 channels on, any number.
//   - patches, product: the gradient for many filters of few pixels, as one matrix product.
//   - product on AMX: filters of one pixel at stride 1, where package tgemm takes the product; executed as six products of bf16,
//     as exact as float32, but an infinite operand gives NaN.
//   - depthwise: vectors of channels, when each channel has a filter of its own.
//   - spread: BackwardInput to images of one to three channels.
//
// What is measured with BenchmarkConv is the arithmetic that the convolution asks for over the time it takes, so Winograd's
// algorithm goes past the peak of the machine and skipped padding does a little.
//
// Work is cut by the Spec alone and each element is added up in one order, so results are the same bits for any number of
// threads.
package conv

//go:generate sh -c "cd _asm && go run ."
