package isa

// Bits of MXCSR (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, 10.2.3).
const (
	flushToZero      = 1 << 15
	denormalsAreZero = 1 << 6
	modeBits         = flushToZero | denormalsAreZero
)

// Flush makes this thread's vector arithmetic take numbers below the least normal one (1.2e-38 for f32) as zero, and returns the mode that SetMode needs to undo it. The caller must have
// locked its goroutine to the thread. Such numbers cost some processors over a hundred cycles each, and gradients that fade along a long sequence are full of them.
func Flush() (before uint32) {
	before = mxcsr()
	setMXCSR(before | modeBits)
	return before
}

// Mode is this thread's mode of arithmetic, for SetMode.
func Mode() uint32 { return mxcsr() & modeBits }

// SetMode gives this thread a mode that Mode or Flush returned.
func SetMode(m uint32) {
	setMXCSR(mxcsr()&^modeBits | m&modeBits)
}

//go:noescape
func mxcsr() uint32

//go:noescape
func setMXCSR(v uint32)
