package dist

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// onMachines runs f as every rank of a job whose rank i is on the machine of layout's letter i: each machine has a folder of its own for common memory.
func onMachines(t *testing.T, layout string, deadline time.Duration, f func(c *Comm) error) []error {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("processes share memory on Linux alone")
	}
	top, err := os.MkdirTemp(shmFolder, "test-joule-")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(top)
	if mem, name, err := makeMemory(top, sharedSize(len(layout))); err != nil {
		t.Skipf("%s has no room for common memory of %d ranks: %v", shmFolder, len(layout), err)
	} else {
		removeMemory(top, name)
		closeMemory(mem)
	}
	defer runtime.GC() // and with it the memory that f's Comms leave
	for _, m := range layout {
		if err := os.MkdirAll(filepath.Join(top, string(m)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	errs := make([]error, len(layout))
	var wg sync.WaitGroup
	for i, tr := range Local(len(layout)) {
		wg.Go(func() {
			c := New(tr, deadline)
			c.folder = filepath.Join(top, layout[i:i+1])
			errs[i] = f(c)
		})
	}
	wg.Wait()
	if left, _ := filepath.Glob(filepath.Join(top, "*", "*")); len(left) > 0 {
		t.Errorf("%s: files are left: %v", layout, left)
	}
	return errs
}

// layouts are jobs on several machines: equal ones in a row, whose ranks make nodes of the tree or do not; uneven ones, one of each, mixed ones, more than ManyRanks.
var layouts = []string{"aabb", "aaabbb", "aab", "abc", "aaab", "abbb", "abab", "abcabc", "abba", "aabbcc", "aaaabbbbb", "aabbccdd", "a" + strings.Repeat("b", 5), "aabbccddeeffgghhiijjkkllmmnnooppqq", "aabbccddeeffgghhiijjkkllmmnnooppq"}

// Whatever the machines, sums of all kinds have the bits of one process.
func TestMachines(t *testing.T) {
	for _, layout := range layouts {
		n := len(layout)
		sizes := []int{0, 1, 17, 1000, 5000}
		if n < 6 {
			sizes = append(sizes, chunk+1000)
		}
		for _, size := range sizes {
			var xs [][]float32
			for r := range n {
				xs = append(xs, summand(r, size))
			}
			want := treeSum(xs)
			for r, err := range onMachines(t, layout, 0, func(c *Comm) error {
				of, err := c.Machines()
				if err != nil {
					return err
				}
				for i := range of {
					for k := range of {
						if (of[i] == of[k]) != (layout[i] == layout[k]) {
							return fmt.Errorf("ranks are taken to be on %v", of)
						}
					}
				}
				if err := c.AllReduce(make([]float32, small)); err != nil { // from here on small sums know of memory too
					return err
				}
				if c.Shared() != (layout != "abc") {
					return fmt.Errorf("memory is shared: %v", c.Shared())
				}
				p := NewPlan(n, n)
				for turn := range 3 {
					x := slices.Clone(xs[c.Rank()])
					if err := c.SumTree(p, [][]float32{x}, x); err != nil {
						return err
					}
					y := slices.Clone(xs[c.Rank()])
					if err := c.ReduceScatter(p, [][]float32{y}, y); err != nil {
						return err
					}
					if lo, hi := c.Segment(size); !slices.Equal(y[lo:hi], want[lo:hi]) {
						return fmt.Errorf("turn %d: other bits in a scattered sum", turn)
					}
					if err := c.AllGatherSegments(y); err != nil {
						return err
					}
					if !slices.Equal(x, want) || !slices.Equal(y, want) {
						return fmt.Errorf("turn %d: other bits", turn)
					}
					if c.Rank() == turn%n {
						time.Sleep(time.Millisecond) // the others are ahead
					}
				}
				return nil
			}) {
				if err != nil {
					t.Fatalf("%s, %d numbers: rank %d: %v", layout, size, r, err)
				}
			}
		}
	}
}

// Ranks that bring several nodes each send messages.
func TestMachinesWithManyLeaves(t *testing.T) {
	const size, leaves = 3000, 12
	var xs [][]float32
	for l := range leaves {
		xs = append(xs, summand(l, size))
	}
	want := treeSum(xs)
	for _, layout := range []string{"aabb", "aaabb"} {
		p := NewPlan(leaves, len(layout))
		for r, err := range onMachines(t, layout, 0, func(c *Comm) error {
			for range 2 {
				var own [][]float32
				for _, r := range p.Own[c.Rank()] {
					own = append(own, treeSum(xs[r.Lo:r.Hi]))
				}
				if err := c.SumTree(p, own, own[0]); err != nil || !slices.Equal(own[0], want) {
					return fmt.Errorf("other bits, or %w", err)
				}
			}
			return nil
		}) {
			if err != nil {
				t.Errorf("%s: rank %d: %v", layout, r, err)
			}
		}
	}
}

// Windows over several machines, whole and piece by piece.
func TestWindowOnMachines(t *testing.T) {
	const size, turns = 5000, 4
	for _, layout := range layouts {
		n := len(layout)
		for r, err := range onMachines(t, layout, 0, func(c *Comm) error {
			w, err := c.NewWindow(size)
			if err != nil || (w == nil) != (layout == "abc") {
				return fmt.Errorf("a window: %v, %v", w != nil, err)
			}
			if w == nil {
				return nil
			}
			if w.Whole() {
				return errors.New("all ranks are said to see one memory")
			}
			out, p := make([]float32, size), NewPlan(n, n)
			for turn := range turns {
				if err := w.Free(); err != nil {
					return err
				}
				copy(floatsIn(w.Own()), summand(turn*n+c.Rank(), size))
				if c.Rank() == turn%n {
					time.Sleep(time.Millisecond)
				}
				if turn%2 == 0 {
					if _, err := w.Sum(p, out); err != nil {
						return err
					}
				} else {
					for _, piece := range [][2]int{{1777, size}, {30, 1777}, {0, 30}} {
						if _, err := w.SumAt(p, piece[0], out[piece[0]:piece[1]]); err != nil {
							return err
						}
					}
					w.End()
				}
				var xs [][]float32
				for r := range n {
					xs = append(xs, summand(turn*n+r, size))
				}
				if !slices.Equal(out, treeSum(xs)) {
					return fmt.Errorf("turn %d: other bits", turn)
				}
			}
			if _, err := w.SumAt(p, 100, out); err == nil {
				return errors.New("numbers behind the end were taken")
			}
			return nil
		}) {
			if err != nil {
				t.Fatalf("%s: rank %d: %v", layout, r, err)
			}
		}
	}
}

// Groups of ranks know their machines too, and what they send is counted once, by the machines of the job.
func TestGroupsOnMachines(t *testing.T) {
	const size = 1 << 12
	for r, err := range onMachines(t, "aabbcc", 0, func(c *Comm) error {
		if _, err := c.Machines(); err != nil {
			return err
		}
		before := c.Stats().Across
		pair, err := c.Sub([]int{c.Rank() / 2 * 2, c.Rank()/2*2 + 1}, 1)
		if err != nil {
			return err
		}
		x := make([]float32, size)
		x[7] = float32(c.Rank())
		if err := pair.AllReduce(x); err != nil {
			return err
		}
		if s := c.Stats(); !pair.Shared() || x[7] != float32(c.Rank()/2*4+1) || s.Across != before || s.Sent < 4*size {
			return fmt.Errorf("in a machine: %g, shared %v, %+v", x[7], pair.Shared(), s)
		}
		row, err := c.Sub([]int{c.Rank() % 2, c.Rank()%2 + 2, c.Rank()%2 + 4}, 2)
		if err != nil {
			return err
		}
		x[7] = float32(c.Rank())
		if err := row.AllReduce(x); err != nil {
			return err
		}
		if s := c.Stats(); row.Shared() || x[7] != float32(6+3*(c.Rank()%2)) || s.Across-before < 4*size {
			return fmt.Errorf("across: %g, shared %v, %+v", x[7], row.Shared(), s)
		}
		return nil
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

// A machine whose ranks make nodes of the tree sends the least bytes to others: 2·(M-1)/M of the numbers for M machines, whatever its ranks, and less than messages do. The figures are those that docs/distributed.md states.
func TestBytesAcross(t *testing.T) {
	const size = 96 << 10
	vector := float64(4 * size)
	type sent struct{ sum, scattered float64 } // vectors that all machines send together, for a sum and for a scattered one whose results are gathered
	for layout, want := range map[string]struct{ memory, messages sent }{
		"aabb":     {sent{2, 2}, sent{2, 4}},
		"aabbcc":   {sent{4, 4}, sent{8, 8}},
		"aaaabbbb": {sent{2, 2}, sent{2, 8}},
		"aaabbb":   {sent{3, 3}, sent{6, 6}},
		"aaab":     {sent{2.5, 2.25}, sent{3, 3}},
		"abab":     {sent{3, 3}, sent{4, 4}},
	} {
		n := len(layout)
		for _, messages := range []bool{false, true} {
			var mu sync.Mutex
			sum, scattered := 0.0, 0.0
			for r, err := range onMachines(t, layout, 0, func(c *Comm) error {
				x := make([]float32, size)
				if _, err := c.Machines(); err != nil {
					return err
				}
				c.met = messages
				if err := c.AllReduce(x); err != nil {
					return err
				}
				a := c.Stats().Across
				if err := c.AllReduce(x); err != nil {
					return err
				}
				b := c.Stats().Across
				if err := c.ReduceScatter(NewPlan(n, n), [][]float32{x}, x); err != nil {
					return err
				}
				if err := c.AllGatherSegments(x); err != nil {
					return err
				}
				mu.Lock()
				sum += float64(b-a) / vector
				scattered += float64(c.Stats().Across-b) / vector
				mu.Unlock()
				return nil
			}) {
				if err != nil {
					t.Fatalf("%s: rank %d: %v", layout, r, err)
				}
			}
			expected := want.memory
			if messages {
				expected = want.messages
			}
			if math.Abs(sum-expected.sum) > 0.01 || math.Abs(scattered-expected.scattered) > 0.01 {
				t.Errorf("%s (messages alone: %v): sums send %.3f vectors to other machines, scattered ones %.3f, not %v", layout, messages, sum, scattered, expected)
			}
		}
	}
}

// However ranks lie on machines, sums send no more to others than messages do.
func TestNeverMoreThanMessages(t *testing.T) {
	const size = 24 << 10
	across := func(layout string, messages bool) (sum, scattered int64) {
		var mu sync.Mutex
		for r, err := range onMachines(t, layout, 0, func(c *Comm) error {
			if _, err := c.Machines(); err != nil {
				return err
			}
			c.met = messages
			x := make([]float32, size)
			if err := c.AllReduce(x); err != nil { // finds the memory
				return err
			}
			a := c.Stats()
			if err := c.AllReduce(x); err != nil {
				return err
			}
			b := c.Since(a).Across
			if err := c.ReduceScatter(NewPlan(len(layout), len(layout)), [][]float32{x}, x); err != nil {
				return err
			}
			if err := c.AllGatherSegments(x); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			sum, scattered = sum+b, scattered+c.Since(a).Across-b
			return nil
		}) {
			if err != nil {
				t.Fatalf("%s: rank %d: %v", layout, r, err)
			}
		}
		return sum, scattered
	}
	var all []string
	var layouts func(layout string, machines, n int) // of n ranks, each once
	layouts = func(layout string, machines, n int) {
		if len(layout) == n {
			all = append(all, layout)
			return
		}
		for m := range machines + 1 {
			layouts(layout+string(rune('a'+m)), max(machines, m+1), n)
		}
	}
	layouts("", 0, 4)
	layouts("", 0, 5)
	all = append(all, "aaaaaabb", "abbbbbbb", "aabbaabb", "abbaabba", "aaabbbcc", "abcdabcd", "aaaaabbbbbccccc")
	for _, layout := range all {
		sum, scattered := across(layout, false)
		most, mostScattered := across(layout, true)
		if sum > most || scattered > mostScattered {
			t.Errorf("%s: sums send %d bytes to other machines, by messages %d; scattered ones %d and %d", layout, sum, most, scattered, mostScattered)
		}
	}
}

// A rank that goes is an error on all machines, as soon as one that misses it ends the job.
func TestLostOnMachines(t *testing.T) {
	for _, layout := range []string{"aabb", "aaab", "abab"} {
		errs := onMachines(t, layout, time.Minute, func(c *Comm) (err error) {
			defer func() {
				if errors.Is(err, ErrLost) {
					c.Abort(1)
				}
			}()
			x := make([]float32, 5000)
			if err := c.AllReduce(x); err != nil {
				return err
			}
			if c.Rank() == 3 {
				return c.Close()
			}
			return c.AllReduce(x)
		})
		for r, err := range errs {
			if r != 3 && !errors.Is(err, ErrLost) {
				t.Errorf("%s: rank %d: %v", layout, r, err)
			}
		}
	}
}

// A rank that goes while memory is sought leaves none behind, neither in files (onMachines looks for them) nor mapped.
func TestLostBeforeMemory(t *testing.T) {
	var found sync.WaitGroup // by all, before one goes
	found.Add(3)
	for r, err := range onMachines(t, "aab", time.Minute, func(c *Comm) error {
		_, err := c.Machines()
		found.Done()
		if found.Wait(); err != nil {
			return err
		}
		if c.Rank() == 1 {
			return c.Close()
		}
		if _, err := c.NewWindow(5000); !errors.Is(err, ErrLost) {
			return fmt.Errorf("not lost, but %v", err)
		}
		c.Abort(1) // or rank 2 may wait for what rank 0 no longer sends
		if maps, err := os.ReadFile("/proc/self/maps"); err != nil || strings.Contains(string(maps), c.folder+"/") {
			return fmt.Errorf("memory is still mapped, or %v", err)
		}
		return nil
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

// A rank that does nothing is named by all others, on its machine and elsewhere.
func TestStoppedOnMachines(t *testing.T) {
	for _, layout := range []string{"aabb", "aaabbb", "abab"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel() // each waits for its deadline
			var wg sync.WaitGroup
			wg.Add(len(layout) - 1)
			for r, err := range onMachines(t, layout, 5*time.Second, func(c *Comm) error {
				c.beat = 100 * time.Millisecond
				x := make([]float32, 5000)
				err := c.AllReduce(x)
				if c.Rank() == 2 {
					wg.Wait()
					return nil
				}
				defer wg.Done()
				if err != nil {
					return fmt.Errorf("before anybody stopped: %w", err)
				}
				return c.AllReduce(x)
			}) {
				var late *LateError
				if r != 2 && (!errors.As(err, &late) || !slices.Equal(late.Ranks, []int{2})) {
					t.Errorf("rank %d: %v", r, err)
				}
			}
		})
	}
}

// Files of one name in folders of two machines are told apart by their marks, and a rank that may not have memory leaves all with messages.
func TestMarks(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes share memory on Linux alone")
	}
	a, b := t.TempDir(), t.TempDir()
	name, err := makeMark(a, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b, name), []byte("87654321"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !hasMark(a, name, 1<<40) || hasMark(b, name, 1<<40) || hasMark(a, name, 1<<41) || hasMark(a, "none", 1<<40) {
		t.Error("marks are not told apart")
	}
	if err := os.WriteFile(filepath.Join(b, name), []byte("8"), 0o600); err != nil {
		t.Fatal(err)
	}
	if hasMark(b, name, '8') {
		t.Error("half a mark was taken")
	}
	// Of files that are left those are removed that are old, and have names that ranks give.
	old := time.Now().Add(-2 * time.Hour)
	for _, f := range []string{"joule-12345", "joule-12a", "joule"} {
		if err := os.WriteFile(filepath.Join(b, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(b, f), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := makeMark(b, 1); err != nil {
		t.Fatal(err)
	}
	for f, kept := range map[string]bool{"joule-12345": false, "joule-12a": true, "joule": true, name: true} {
		if _, err := os.Stat(filepath.Join(b, f)); (err == nil) != kept {
			t.Errorf("%s: %v", f, err)
		}
	}
	for r, err := range each(4, 0, func(c *Comm) error {
		if c.Rank() == 2 {
			c.folder = a + "/none"
		}
		x := []float32{2000: 1}
		if err := c.AllReduce(x); err != nil || x[2000] != 4 || c.Shared() {
			return fmt.Errorf("%v, %v, %v", err, x[2000], c.Shared())
		}
		of, err := c.Machines()
		if err != nil || !slices.Equal(of, []int{0, 0, 0, 0}) { // by its name it is one machine
			return fmt.Errorf("ranks on %v: %v", of, err)
		}
		return nil
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

// A machine that has no room for common memory leaves all with messages. What was sent before the machines were known is counted by machines too.
func TestNoRoomOnMachines(t *testing.T) {
	for r, err := range onMachines(t, "aabb", 0, func(c *Comm) error {
		x := []float32{small - 2: 1}
		if err := c.AllReduce(x); err != nil { // two messages of the whole, of which one goes to the other machine
			return err
		}
		before := c.Stats()
		if err := c.AllReduce(x); err != nil {
			return err
		}
		if before.Across != 0 || before.Sent != 8*int64(len(x)) {
			return fmt.Errorf("before the machines are known: %+v", before)
		}
		w, err := c.NewWindow(1 << 44)
		if w != nil || err != nil || c.Shared() {
			return fmt.Errorf("a window of 2^46 bytes: %v, %v", w != nil, err)
		}
		all, since := c.Stats(), c.Since(before)
		cards := all.Across - 8*int64(len(x))
		if since.Sent != all.Sent-before.Sent || since.Across != all.Across-4*int64(len(x)) || cards <= 0 || cards > 1000 {
			return fmt.Errorf("%+v, and %+v since", all, since)
		}
		return c.Barrier()
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

func TestPretended(t *testing.T) {
	for setting, want := range map[string]string{"": "000000", "1": "000000", "2": "000111", "4": "011233", "9": "012345", "ab": "ababab", "aabbaa": "aabbaa", "aaaabbbbcccc": "aaaabb"} {
		for r := range 6 {
			m, err := pretended(setting, r, 6)
			if w := int(want[r]); err != nil || m != w && m != w-'0' {
				t.Errorf("machines=%s: rank %d of 6 is on %d, %v", setting, r, m, err)
			}
		}
	}
	for _, setting := range []string{"0", "-1", "a2", "two machines"} {
		if _, err := pretended(setting, 0, 2); err == nil || !strings.Contains(err.Error(), "machines="+setting) {
			t.Errorf("machines=%s: %v", setting, err)
		}
	}
}
