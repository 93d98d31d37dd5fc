package par

// pause tells the CPU that this thread polls, for about 25 ns.
//
//go:noescape
func pause()
