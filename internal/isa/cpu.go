package isa

import (
	"bufio"
	"os"
	"runtime"
	"strings"
)

// CPU is the processor's name as the system tells it, such as "AMD EPYC 9654 96-Core Processor"; where it does not, the architecture.
func CPU() string {
	if s := cpuName(); s != "" {
		return strings.Join(strings.Fields(s), " ")
	}
	return runtime.GOARCH
}

// cpuField is the first value of one of the names in a file like /proc/cpuinfo.
func cpuField(path string, names ...string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		k, v, ok := strings.Cut(s.Text(), ":")
		for _, n := range names {
			if ok && strings.TrimSpace(k) == n {
				return strings.TrimSpace(v)
			}
		}
	}
	return ""
}

// Features are what the CPU has, whatever JOULE_DEBUG=isa caps: the levels' names (avxvnni only of a CPU without avx512, which has more than that), and vnni, bf16 and amx where it has them.
func Features() []string {
	var out []string
	for _, l := range ByteLevels() {
		if l != AVXVNNI || Best() == AVX2 {
			out = append(out, l.String())
		}
	}
	return append(out, extras()...)
}
