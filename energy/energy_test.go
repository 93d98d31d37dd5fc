package energy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"
)

// tree is a powercap folder of two sockets as Linux shows it: packages, their parts, DRAM on one, and psys, which contains all.
func tree() fstest.MapFS {
	t := fstest.MapFS{}
	add := func(dir, name string, energy, span uint64) {
		t[dir+"/name"] = &fstest.MapFile{Data: []byte(name + "\n")}
		t[dir+"/energy_uj"] = &fstest.MapFile{Data: []byte(fmt.Sprintln(energy))}
		t[dir+"/max_energy_range_uj"] = &fstest.MapFile{Data: []byte(fmt.Sprintln(span))}
	}
	add("intel-rapl:0", "package-0", 1_000_000, 262_143_328_850)
	add("intel-rapl:0:0", "core", 500_000, 262_143_328_850)
	add("intel-rapl:0:1", "dram", 200_000, 65_712_999_613)
	add("intel-rapl:1", "package-1", 262_143_000_000, 262_143_328_850)
	add("intel-rapl:2", "psys", 9_000_000, 262_143_328_850)
	t["intel-rapl/enabled"] = &fstest.MapFile{Data: []byte("1\n")}
	return t
}

func set(t fstest.MapFS, dir string, energy uint64) {
	t[dir+"/energy_uj"] = &fstest.MapFile{Data: []byte(fmt.Sprintln(energy))}
}

func TestRAPL(t *testing.T) {
	f := tree()
	m, err := OpenRAPL(f)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Source().String(); got != "measured (RAPL package+dram)" {
		t.Errorf("source %q", got)
	}
	set(f, "intel-rapl:0", 4_000_000)   // 3 J
	set(f, "intel-rapl:0:0", 3_000_000) // part of the package
	set(f, "intel-rapl:0:1", 700_000)   // 0.5 J
	set(f, "intel-rapl:1", 671_150)     // wrapped: 0.328850 + 0.671150 = 1 J
	set(f, "intel-rapl:2", 99_000_000)  // contains all
	if j, err := m.Joules(); err != nil || math.Abs(j-4.5) > 1e-9 {
		t.Fatalf("%v J, error %v; want 4.5", j, err)
	}
	set(f, "intel-rapl:1", 1_671_150)
	if j, _ := m.Joules(); math.Abs(j-5.5) > 1e-9 {
		t.Fatalf("%v J, want 5.5", j)
	}
}

// denied refuses to open the counters, as Linux does to all but root.
type denied struct{ tree fstest.MapFS }

func (d denied) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, "energy_uj") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return d.tree.Open(name)
}

func TestRAPLRefuses(t *testing.T) {
	garbage := tree()
	garbage["intel-rapl:0/energy_uj"] = &fstest.MapFile{Data: []byte("many")}
	only := fstest.MapFS{"intel-rapl:0/name": tree()["intel-rapl:2/name"]}
	for _, c := range []struct {
		fs   fs.FS
		want string
	}{{denied{tree()}, "chmod"}, {garbage, "no number"}, {only, "no package"}, {fstest.MapFS{}, "no package"}} {
		if _, err := OpenRAPL(c.fs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
	if _, err := OpenRAPL(denied{tree()}); !errors.Is(err, fs.ErrPermission) {
		t.Error("the error does not wrap fs.ErrPermission")
	}
}

// Whatever is booked, the lines add up to the total; with a measurement the total is that.
func TestLinesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger(CPU, 2)
		for i := range rapid.IntRange(1, 30).Draw(t, "lines") {
			k := Key{Layer: fmt.Sprint("l", i%7), Op: fmt.Sprint("o", i%3), Phase: "forward"}
			c := Cost{FLOPs: rapid.Int64Range(0, 1e12).Draw(t, "flops"), Read: rapid.Int64Range(0, 1e9).Draw(t, "read")}
			c.Executed = c.FLOPs
			l.Book(k, 1, time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "ns")), c, rapid.Bool().Draw(t, "fits"))
		}
		var m *Joules
		if rapid.Bool().Draw(t, "measured") {
			m = &Joules{Source: Source{true, "test"}}
			m.Value = rapid.Float64Range(0.001, 1e6).Draw(t, "joules")
			m.Low, m.High = m.Value, m.Value
		}
		l.Close(time.Minute, m)
		sum, sec := 0.0, 0.0
		var cost Cost
		for _, e := range l.Lines {
			sum += e.Joules.Value
			sec += e.Seconds
			cost = cost.Add(e.Cost)
		}
		if sum != l.Joules.Value || sec != l.Seconds || cost != l.Cost {
			t.Fatalf("lines add up to %v J, %v s, %+v; the total is %v, %v, %+v", sum, sec, cost, l.Joules.Value, l.Seconds, l.Cost)
		}
		if m != nil && math.Abs(l.Joules.Value-m.Value) > 1e-12*m.Value {
			t.Fatalf("total %v, measured %v", l.Joules.Value, m.Value)
		}
		if m == nil && (l.Joules.Source.Measured || l.Joules.Low > l.Joules.Value || l.Joules.High < l.Joules.Value) {
			t.Fatalf("estimate %v", l.Joules)
		}
	})
}

func TestLedgerSurvivesJSON(t *testing.T) {
	l := NewLedger(CPU, 2)
	l.Book(Key{"conv2d", "conv", "forward"}, 3, time.Second, Cost{FLOPs: 100, Executed: 80, Read: 10, Written: 20}, true)
	l.Close(2*time.Second, nil)
	j, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var back Ledger
	if err := json.Unmarshal(j, &back); err != nil {
		t.Fatal(err)
	}
	if back.Joules != l.Joules || len(back.Lines) != 2 || back.Lines[0] != l.Lines[0] {
		t.Fatalf("%+v\n%+v", back, l)
	}
	back.Merge(l)
	if math.Abs(back.Joules.Value-2*l.Joules.Value) > 1e-9 || len(back.Lines) != 2 {
		t.Fatalf("merged: %+v", back)
	}
}

func ExampleSI() {
	fmt.Println(SI(0.0123, "J"), SI(1234567, "FLOP"), SI(999.9, "s"), SI(0, "B"))
	// Output: 12.3 mJ 1.23 MFLOP 1.00 ks 0 B
}

func ExampleMachine_Bound() {
	m := Machine{FLOPS: 200e9, Bandwidth: 20e9}
	s, by := m.Bound(Cost{FLOPs: 2e9, Executed: 2e9, Read: 1e6})
	fmt.Println(SI(s, "s"), by)
	// Output: 10.0 ms compute
}

// counted is a meter of a fixed amount.
type counted struct {
	source Source
	joules float64
	err    error
}

func (c counted) Source() Source           { return c.source }
func (c counted) Joules() (float64, error) { return c.joules, c.err }

func TestSum(t *testing.T) {
	if Sum() != nil {
		t.Error("a sum of nothing is a meter")
	}
	a, b := counted{Source{true, "RAPL package"}, 2, nil}, counted{Source{true, "NVML, 2 GPUs"}, 40, nil}
	m := Sum(a, b)
	if j, err := m.Joules(); j != 42 || err != nil || m.Source().String() != "measured (RAPL package + NVML, 2 GPUs)" {
		t.Errorf("%g J, %v, %v", j, err, m.Source())
	}
	b.err = errors.New("lost")
	if _, err := Sum(a, b).Joules(); err == nil {
		t.Error("an error of one meter is swallowed")
	}
}

// A product of f32 in parts of bf16 is bound as one of f32.
func TestBoundInParts(t *testing.T) {
	m := Machine{FLOPS: 1e9, Bandwidth: 1e9}
	if s, by := m.Bound(Cost{FLOPs: 2e9, Executed: 12e9, BF16: 12e9, Read: 1e9}); s != 2 || by != "compute" {
		t.Errorf("%v s by %s, want 2 by compute", s, by)
	}
	if s, _ := m.Bound(Cost{FLOPs: 2e9, Executed: 1e9, Read: 1}); s != 1 {
		t.Errorf("%v s of arithmetic that an algorithm saves half of, want 1", s)
	}
}

// The energy of an operation depends on its type: bytes at most as f32, and less with an instruction for them.
func TestEstimateByType(t *testing.T) {
	wide := Cost{FLOPs: 1e9, Executed: 1e9}
	bytes, halves := wide, wide
	bytes.Int8, halves.BF16 = 1e9, 1e9
	for _, has := range []bool{false, true} {
		m, tiles := processor(has, has, false, false), processor(has, has, has, has)
		if has != (tiles.Int8.Value < m.Int8.Value) || tiles.Int8.Low > m.Int8.Low || tiles.BF16.Value > m.BF16.Value {
			t.Errorf("with tiles %v: bytes take %v, without %v", has, tiles.Int8, m.Int8)
		}
		f, h, b := m.Estimate(wide, 0, 1, true), m.Estimate(halves, 0, 1, true), m.Estimate(bytes, 0, 1, true)
		if b.Value >= f.Value || h.Value > f.Value || has != (h.Value < f.Value) {
			t.Errorf("with instructions %v: f32 %v, bf16 %v, bytes %v", has, f, h, b)
		}
		for _, j := range []Joules{f, h, b} {
			if !(j.Low <= j.Value && j.Value <= j.High) {
				t.Errorf("%v is outside its interval", j)
			}
		}
	}
	if c := bytes.Run(25e7); c.Executed != 25e7 || c.Int8 != 25e7 || c.FLOPs != 1e9 {
		t.Errorf("a quarter ran: %+v", c)
	}
}
