package nvml

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/internal/dl"
)

// imitation is NVML as far as the meter knows it, of GPUS devices whose counters a test moves. What fails is compiled in.
const imitation = `
#include <stdio.h>
static unsigned long long counter[8] = {5000000000ULL, 70000, 900};
static int lost = 0;
struct device { int index; };
static struct device devices[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = GPUS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, struct device **d) { if (i >= GPUS) return 2; *d = &devices[i]; return 0; }
int nvmlDeviceGetName(struct device *d, char *s, unsigned n) { snprintf(s, n, "Imitation %d", d->index); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(struct device *d, unsigned long long *mj) {
	if (d->index < MUTE) return 3;
	if (lost) return 15;
	*mj = counter[d->index];
	return 0;
}
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : code == 15 ? "GPU is lost" : "Other"; }
void imitate_add(int i, long long mj) { counter[i] += mj; }
void imitate_loss(void) { lost = 1; }
`

// library compiles the imitation.
func library(t *testing.T, defines ...string) string {
	t.Helper()
	if !dl.Available() {
		t.Skip(dl.ErrUnavailable)
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler (cc) to make an imitation of NVML with")
	}
	dir := t.TempDir()
	src, lib := filepath.Join(dir, "nvml.c"), filepath.Join(dir, "libnvidia-ml.so.1")
	if err := os.WriteFile(src, []byte(imitation), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-shared", "-fPIC", "-o", lib, src}, defines...)
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return lib
}

// controls move the imitation's counters.
func controls(t *testing.T, path string) (add func(i int32, mJ int64), lose func()) {
	t.Helper()
	l, err := dl.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Func(&add, "imitate_add"), l.Func(&lose, "imitate_loss")); err != nil {
		t.Fatal(err)
	}
	return add, lose
}

func TestSeveralGPUs(t *testing.T) {
	path := library(t, "-DINIT=0", "-DGPUS=3", "-DMUTE=1")
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Source().String(); got != "measured (NVML, 2 of 3 GPUs)" {
		t.Errorf("source %q", got)
	}
	add, lose := controls(t, path)
	if j, err := m.Joules(); err != nil || j != 0 {
		t.Errorf("before anything was used: %g J, %v", j, err)
	}
	add(0, 1000) // has no counter for us
	add(1, 1500)
	add(2, 250)
	if j, err := m.Joules(); err != nil || math.Abs(j-1.75) > 1e-12 {
		t.Errorf("%g J, %v, want 1.75", j, err)
	}
	add(2, 1_000_000)
	if j, err := m.Joules(); err != nil || math.Abs(j-1001.75) > 1e-9 {
		t.Errorf("%g J, %v, want 1001.75", j, err)
	}
	add(1, -71_000)
	if _, err := m.Joules(); err == nil || !strings.Contains(err.Error(), "GPU 1 (Imitation 1) went from 71500 back to 500") {
		t.Errorf("a counter that went back: %v", err)
	}
	add(1, 71_000)
	lose()
	if _, err := m.Joules(); err == nil || !strings.Contains(err.Error(), "GPU is lost (code 15)") {
		t.Errorf("a lost GPU: %v", err)
	}
}

func TestOneGPU(t *testing.T) {
	m, err := Open("libjoulenothere.so", library(t, "-DINIT=0", "-DGPUS=1", "-DMUTE=0"))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Source().String(); got != "measured (NVML, Imitation 0)" {
		t.Errorf("source %q", got)
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct{ init, gpus, mute, want string }{
		{"9", "1", "0", "Driver Not Loaded (code 9): load the driver"},
		{"0", "0", "0", "no GPU is visible"},
		{"0", "2", "2", "GPU 0 (Imitation 0), GPU 1 (Imitation 1): no counter of energy"},
	} {
		if _, err := Open(library(t, "-DINIT="+c.init, "-DGPUS="+c.gpus, "-DMUTE="+c.mute)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if _, err := Open("libjoulenothere.so.1"); err == nil || dl.Available() && !strings.Contains(err.Error(), "no driver of NVIDIA") {
		t.Errorf("%v", err)
	}
}
