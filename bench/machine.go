package bench

import (
	"bufio"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/peak"
)

// Report is everything that a run of the benchmarks found.
type Report struct {
	Date    string   `json:"date"`
	Machine string   `json:"machine"` // the processor's name, as the system gives it
	CPUs    int      `json:"cpus"`
	ISA     string   `json:"isa"`      // the instruction set that Joule's kernels used
	Best    string   `json:"isa_best"` // the best that the processor has
	Capped  []string `json:"capped,omitempty"`
	Threads int      `json:"threads"`
	Peak    float64  `json:"peak_flops"`
	Peak1   float64  `json:"peak_flops_1_thread"` // what a second thread can add at best
	Go      string   `json:"go"`
	MPI     string   `json:"mpi,omitempty"` // through which Joule's ranks spoke
	Rows    []Row    `json:"rows"`
	Skipped []Skip   `json:"skipped,omitempty"`
}

func newReport(threads int) *Report {
	levels := isa.ByteLevels() // works on bytes are among those that are measured
	return &Report{Date: time.Now().UTC().Format(time.DateOnly), Machine: processor(), CPUs: runtime.NumCPU(), ISA: isa.Bytes().String(), Best: levels[len(levels)-1].String(),
		Threads: threads, Peak: peak.FLOPS(threads), Peak1: peak.FLOPS(1), Go: runtime.Version()}
}

// processor is the processor's name, or the architecture where the system tells no more.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}
