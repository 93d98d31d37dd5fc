package energy

import "strings"

// Sum is a meter that adds up others which count different things, such as a processor and GPUs. Of none it is nil, of one that one.
func Sum(ms ...Meter) Meter {
	switch len(ms) {
	case 0:
		return nil
	case 1:
		return ms[0]
	}
	return sum(ms)
}

type sum []Meter

// Source implements Meter: it is measured where all are.
func (s sum) Source() Source {
	out := Source{Measured: true}
	var names []string
	for _, m := range s {
		src := m.Source()
		out.Measured = out.Measured && src.Measured
		names = append(names, src.Name)
	}
	out.Name = strings.Join(names, " + ")
	return out
}

// Joules implements Meter.
func (s sum) Joules() (float64, error) {
	total := 0.0
	for _, m := range s {
		j, err := m.Joules()
		if err != nil {
			return 0, err
		}
		total += j
	}
	return total, nil
}
