package backendtest

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/nearest"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Case names one run of the suite: a sample of an op, with an instruction set and a number of threads. Its text is the line that a failure prints and that joule repro takes.
type Case struct {
	Op, Sample string
	ISA        string
	Threads    int
}

func (c Case) String() string {
	return fmt.Sprintf("%s/%s isa=%s threads=%d", c.Op, c.Sample, c.ISA, c.Threads)
}

// ParseCase is the inverse of String. Without isa it is the current one, without threads one.
func ParseCase(line string) (Case, error) {
	c := Case{ISA: isa.Bytes().String(), Threads: 1}
	rest := strings.TrimSpace(line)
	for {
		i := strings.LastIndexByte(rest, ' ')
		key, value, ok := strings.Cut(rest[i+1:], "=")
		if i < 0 || !ok || key != "isa" && key != "threads" {
			break
		}
		if key == "isa" {
			if _, err := isa.Parse(value); err != nil {
				return c, fmt.Errorf("repro: %w", err)
			}
			c.ISA = value
		} else if n, err := strconv.Atoi(value); err != nil || n < 1 || n > 1024 {
			return c, fmt.Errorf("repro: threads=%s is no number from 1 to 1024", value)
		} else {
			c.Threads = n
		}
		rest = strings.TrimSpace(rest[:i])
	}
	var ok bool
	if c.Op, c.Sample, ok = strings.Cut(rest, "/"); !ok {
		return c, fmt.Errorf("repro: %q is no case: want OP/SAMPLE isa=… threads=…, as a failing test prints it", line)
	}
	_, _, err := c.find()
	return c, err
}

// find is the case's op and the number of its sample.
func (c Case) find() (*graph.Op, int, error) {
	var names []string
	for _, o := range op.All() {
		if o.Name != c.Op {
			names = append(names, o.Name)
			continue
		}
		var samples []string
		for k, s := range o.Samples {
			if s.Name == c.Sample && s.Bad == "" {
				return o, k, nil
			}
			samples = append(samples, s.Name)
		}
		return nil, 0, fmt.Errorf("repro: op %s has no sample %q%s; it has %s", c.Op, c.Sample, nearest.Hint(c.Sample, samples), strings.Join(samples, ", "))
	}
	return nil, 0, fmt.Errorf("repro: there is no op %q%s", c.Op, nearest.Hint(c.Op, names))
}

// Run runs the case on b as the suite does, and once more with one thread, and compares with the reference. It gives the kernels that ran.
func (c Case) Run(b backend.Backend) (kernels []string, err error) {
	o, k, err := c.find()
	if err != nil {
		return nil, err
	}
	level, err := isa.Parse(c.ISA)
	if err != nil {
		return nil, err
	}
	defer isa.Use(level)()
	s := o.Samples[k]
	g, err := Single(o, s.Attrs, s.In)
	if err != nil {
		return nil, err
	}
	in := Operands(s, uint64(k)+1)
	want, err := execute(ref.Backend{}, g, in, 1, false)
	if err != nil {
		return nil, err
	}
	st, err := b.NewState(nil)
	if err != nil {
		return nil, err
	}
	e, err := b.Compile(g, st, backend.Options{Threads: c.Threads})
	if err != nil {
		return nil, err
	}
	for _, n := range e.Profile() {
		kernels = append(kernels, fmt.Sprintf("%v: %s", n.Node, n.Kernel))
	}
	var first []*tensor.Tensor
	for _, n := range []int{1, c.Threads} {
		if first, err = compare(b, g, s, in, want, n, first); err != nil {
			return kernels, err
		}
	}
	return kernels, nil
}

// compare runs g with n threads: results agree with want, and have the bits of first, if that is not nil. It gives the bits to compare the next with.
func compare(b backend.Backend, g *graph.Graph, s graph.Sample, in, want []*tensor.Tensor, n int, first []*tensor.Tensor) ([]*tensor.Tensor, error) {
	got, err := execute(b, g, in, n, true)
	if err != nil {
		return nil, err
	}
	tol := s.Tol
	if tol == 0 {
		tol = 2e-5
	}
	for i := range want {
		if err := Close(got[i], want[i], tol); err != nil {
			return nil, fmt.Errorf("%d threads, result %d of %v %+v: %w", n, i, s.In, s.Attrs, err)
		}
	}
	if first == nil {
		return got, nil
	}
	for i := range got {
		if string(got[i].Bytes()) != string(first[i].Bytes()) {
			return nil, fmt.Errorf("%d threads give other bits than before", n)
		}
	}
	return first, nil
}
