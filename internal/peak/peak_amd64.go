package peak

import "github.com/jouleml/joule/internal/isa"

func fma(n int) {
	switch isa.Current() {
	case isa.AVX512:
		fmaAVX512(n)
	case isa.AVX2:
		fmaAVX2(n)
	default:
		fmaGo(n)
	}
}

// read loads all of buf, whose length is a multiple of 512.
func read(buf []byte) {
	switch isa.Current() {
	case isa.AVX512:
		readAVX512(&buf[0], len(buf)/512)
	case isa.AVX2:
		readAVX2(&buf[0], len(buf)/512)
	default:
		readGo(buf)
	}
}
