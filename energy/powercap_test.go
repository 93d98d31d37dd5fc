package energy

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// linked writes a tree as sysfs lays it out: zones are folders inside their parents under devices/, and class/ holds links to them all. It returns class/.
func linked(t *testing.T, zones map[string]map[string]string) string {
	t.Helper()
	root := t.TempDir()
	class := filepath.Join(root, "class", "powercap")
	if err := os.MkdirAll(class, 0o755); err != nil {
		t.Fatal(err)
	}
	for zone, files := range zones {
		parts := strings.Split(zone, ":")
		dir := filepath.Join("devices", "virtual", "powercap", parts[0])
		for i := 2; i <= len(parts); i++ {
			dir = filepath.Join(dir, strings.Join(parts[:i], ":"))
		}
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(root, dir, name), []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(filepath.Join("..", "..", dir), filepath.Join(class, zone)); err != nil {
			t.Skip("this system makes no symbolic links: ", err)
		}
	}
	return class
}

func zone(name, energy, span string) map[string]string {
	return map[string]string{"name": name, "energy_uj": energy, "max_energy_range_uj": span}
}

// used opens the tree, sets counters to new values through the links, and gives what the meter says was used.
func used(t *testing.T, zones map[string]map[string]string, now map[string]string) (float64, error) {
	t.Helper()
	class := linked(t, zones)
	m, err := OpenRAPL(os.DirFS(class))
	if err != nil {
		t.Fatal(err)
	}
	for z, v := range now {
		if err := os.WriteFile(filepath.Join(class, z, "energy_uj"), []byte(v+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return m.Joules()
}

func TestRAPLThroughLinks(t *testing.T) {
	msr := map[string]map[string]string{
		"intel-rapl":     {"enabled": "1"},
		"intel-rapl:0":   zone("package-0", "1000000", "262143328850"),
		"intel-rapl:0:0": zone("core", "5", "262143328850"),
		"intel-rapl:0:1": zone("dram", "2000000", "65712999613"),
		"intel-rapl:1":   {"energy_uj": "7"}, // a zone without a name
	}
	mmio := map[string]map[string]string{"intel-rapl-mmio:0": zone("package-0", "1000000", "262143328850")}
	both := maps.Clone(msr)
	maps.Copy(both, mmio)
	for name, c := range map[string]struct {
		zones map[string]map[string]string
		now   map[string]string
		want  float64
	}{
		"package and dram":     {msr, map[string]string{"intel-rapl:0": "4000000", "intel-rapl:0:0": "900000000", "intel-rapl:0:1": "2500000"}, 3.5},
		"package twice":        {both, map[string]string{"intel-rapl:0": "4000000", "intel-rapl-mmio:0": "4000000"}, 3},
		"memory-mapped only":   {mmio, map[string]string{"intel-rapl-mmio:0": "4000000"}, 3},
		"a small range passed": {map[string]map[string]string{"intel-rapl:0": zone("package-0", "9000000", "10000000")}, map[string]string{"intel-rapl:0": "500000"}, 1.5},
	} {
		got, err := used(t, c.zones, c.now)
		if err != nil || math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v J, %v; want %v", name, got, err, c.want)
		}
	}
}

func TestRAPLCounterBeyondItsRange(t *testing.T) {
	got, err := used(t, map[string]map[string]string{"intel-rapl:0": zone("package-0", "20000000", "10000000")}, map[string]string{"intel-rapl:0": "5"})
	if err == nil || !strings.Contains(err.Error(), "cannot be trusted") {
		t.Errorf("%v J, error %v; want one that says the counter cannot be trusted", got, err)
	}
}
