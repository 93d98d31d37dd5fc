// Package gemm multiplies matrices of float32 on the CPU.
//
// Terminology. A product is C[M,N] = A[M,K]·B[K,N], all row-major. A tile is the block of C whose elements are kept in
// registers while K is walked once: up to 8 rows of up to 4 vectors. A panel is NR columns of B. A is the side whose elements
// are broadcast one at a time, B the side that is read a vector at a time.
//
// There is one kernel, Tile, in versions for each height and width of tile; everything else here decides in which order it
// visits the matrices and what is copied ("packed") beforehand. The convolutions call Tile too.
package gemm
