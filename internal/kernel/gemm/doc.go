// Package gemm multiplies matrices of float32 on the CPU.
//
// Terminology. A product is C[M,N] = A[M,K]·B[K,N], all row-major. A tile is the block of C whose elements are kept in
// registers while K is walked once: up to 8 rows of up to 4 vectors. A panel is NR columns of B. A is the side whose elements
// are broadcast one at a time, B the side that is read a vector at a time. A chunk is what one thread does at a time.
//
// Almost all arithmetic is done by one kernel, Tile, in versions for each height and width of tile; the rest of the package
// decides in which order it visits the matrices and what is copied ("packed") beforehand. The convolutions call Tile too.
//
// What is particular here:
//   - A is seldom copied (a transposed one that many columns use is). A tile reads its rows through a table of offsets, at a constant distance between K indices, so rows,
//     columns (a transposed A) and patches of an image are all the same to it. Wide tiles use each element of A for up to 64
//     columns, which leaves the memory system time enough.
//   - B is read in place where its rows are near each other, and else copied to panels by the chunk that uses them; there is
//     no packing phase with a barrier.
//   - Many rows are computed a tile's height at a time in their whole length, with B in the L2 cache: each thread packs the panels
//     of its columns once and keeps them from chunk to chunk. So C is written in long runs, which with few K indices (the gradient
//     of a dense layer's weights) is most of the work.
//   - With B stored by columns and few rows of A, the product is turned over: Cᵀ = Bᵀ·Aᵀ reads B in place, once.
//   - A row or a few times a large matrix is bound by reading the matrix: dot products, all rows with each vector of the matrix, or
//     sums of its rows, in long runs.
//   - Some 16 rows times a large packed matrix take as long as reading it from the third-level cache: all rows are computed at once, a vector of columns at a time,
//     so that each line of B is read once, forwards, while the next ones are fetched.
//   - A deep product with a small result is cut along K into parts that are added up at the end, in a fixed order.
//
// Function choose holds the whole selection rule. It knows the shape and the instruction set, not the number of threads:
// results are the same bits for any pool.
package gemm
