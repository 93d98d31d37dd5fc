package isa

// Bits of MXCSR (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, 10.2.3).
const flushToZero, denormalsAreZero = 1 << 15, 1 << 6

// Flush makes this thread's vector arithmetic take numbers below the least normal one (1.2e-38 for f32) as zero, and returns what Unflush needs to undo it. The caller must have locked
// its goroutine to the thread. Such numbers cost some processors over a hundred cycles each, and gradients that fade along a long sequence are full of them.
func Flush() (before uint32) {
	before = mxcsr()
	setMXCSR(before | flushToZero | denormalsAreZero)
	return before
}

// Unflush gives the thread the mode that Flush found.
func Unflush(before uint32) { setMXCSR(before) }

//go:noescape
func mxcsr() uint32

//go:noescape
func setMXCSR(v uint32)
