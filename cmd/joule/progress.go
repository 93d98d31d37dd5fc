package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/peak"
	"github.com/jouleml/joule/train"
)

// progress shows a training: one line that is written over and over on a terminal, a line for each epoch elsewhere, JSON if asked for.
type progress struct {
	train.Hooks
	j     *job
	w     io.Writer
	live  bool // a terminal: the line is rewritten
	width int

	meter        energy.Meter
	peak         func() float64 // FLOP/s that the machine reaches at best
	flops        float64        // of an example in a train step
	last         time.Time
	lastStep     time.Time
	firstStep    time.Time // when the first step of this session had ended
	rateFrom     time.Time
	examples     int64 // trained on in this session
	seen         int64 // of the epoch, up to the last step
	joulesBefore float64
	stepTimes    []float64 // milliseconds, of the steps so far: up to stepTimesCap, then every so many
	stride       int64
	steps, inAll float64 // how many, and their milliseconds
	drawn        bool
}

const stepTimesCap = 1 << 14

func newProgress(j *job, m energy.Meter) *progress {
	p := &progress{j: j, w: j.out, meter: m, stride: 1}
	if f, ok := j.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && j.f.talks() && os.Getenv("TERM") != "dumb" {
		p.live = true
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			p.width = w
		}
	}
	// The peak is measured (for 50 ms) only if the line that shows it is drawn at all.
	p.peak = sync.OnceValue(func() float64 { return peak.FLOPS(j.model.Cores()) })
	if p.width == 0 {
		p.width = 100
	}
	if j.past != nil {
		p.joulesBefore = j.past.Joules.Value
	}
	return p
}

// Begin implements train.Callback.
func (p *progress) Begin(t *train.Training) error {
	p.flops = float64(t.Model.StepCost(t.BatchSize).FLOPs) / float64(t.BatchSize)
	now := time.Now()
	p.last, p.lastStep, p.rateFrom, p.seen = now, now, now, t.Examples
	if !p.j.f.json && !p.j.f.quiet {
		fmt.Fprintf(p.w, "%s: %d training and %d test examples, %d parameters, %s%d threads, %s\n", p.j.spec.Name, p.j.set.Train.Len(), p.j.set.Test.Len(), t.Model.ParamCount(), p.ranks(), t.Model.Cores(), p.j.source())
		if t.Steps > 0 {
			fmt.Fprintf(p.w, "resumed at epoch %d, step %d\n", t.Epoch, t.Step)
		}
	}
	return nil
}

// ranks says how many there are, if several.
func (p *progress) ranks() string {
	if n := p.j.ranks.size(); n > 1 {
		return fmt.Sprintf("%d ranks (%s) of ", n, p.j.ranks.comm.Name())
	}
	return ""
}

// AfterStep implements train.Callback.
func (p *progress) AfterStep(t *train.Training) error {
	now := time.Now()
	ms := now.Sub(p.lastStep).Seconds() * 1e3
	p.lastStep = now
	p.steps++
	p.inAll += ms
	if p.firstStep.IsZero() {
		p.firstStep = now
	}
	if t.Step == 1 {
		p.seen = 0
	}
	p.examples += t.Examples - p.seen
	p.seen = t.Examples
	if t.Steps%p.stride == 0 {
		if p.stepTimes = append(p.stepTimes, ms); len(p.stepTimes) == stepTimesCap {
			for i := range stepTimesCap / 2 {
				p.stepTimes[i] = p.stepTimes[2*i]
			}
			p.stepTimes = p.stepTimes[:stepTimesCap/2]
			p.stride *= 2
		}
	}
	if p.j.guess == nil && len(p.stepTimes) == billSteps {
		if err := p.j.predict(p.stepTimes); err != nil {
			return err
		}
	}
	if p.live && now.Sub(p.last) > 100*time.Millisecond {
		p.last = now
		p.draw(p.line(t, now))
	}
	return nil
}

// line is the running state of the training.
func (p *progress) line(t *train.Training, now time.Time) string {
	perSecond := float64(p.examples) / now.Sub(p.rateFrom).Seconds()
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d/%d %3.0f%%", t.Epoch, t.Epochs, 100*float64(t.Step)/float64(t.EpochSteps))
	for _, l := range t.Logs() {
		fmt.Fprintf(&b, "  %s %.4f", l.Name, l.Value)
	}
	fmt.Fprintf(&b, "  %.0f/s  %s (%.0f%% of peak)", perSecond, energy.SI(perSecond*p.flops, "FLOP/s"), 100*perSecond*p.flops/p.peak())
	if l, err := p.j.ledger(); err == nil && l.Seconds > 0 {
		mark := "≈"
		if l.Joules.Source.Measured {
			mark = ""
		}
		fmt.Fprintf(&b, "  %s%s %s%s", mark, energy.SI(l.Joules.Value/l.Seconds, "W"), mark, energy.SI(l.Joules.Value, "J"))
		if n := p.j.ranks.size(); n > 1 {
			fmt.Fprintf(&b, " (rank 0 of %d, %.0f%% waiting)", n, 100*t.Model.Exchange().Waiting/l.Seconds)
		}
	}
	left := float64(t.Epochs)*float64(t.EpochSteps) - float64(t.Epoch-1)*float64(t.EpochSteps) - float64(t.Step)
	if perSecond > 0 {
		fmt.Fprintf(&b, "  %v left", time.Duration(left*float64(t.BatchSize)/perSecond*1e9).Round(time.Second))
	}
	return b.String()
}

func (p *progress) draw(line string) {
	if r := []rune(line); len(r) >= p.width {
		line = string(r[:p.width-1])
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	p.drawn = true
}

// clear takes the running line away.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

// AfterEpoch implements train.Callback.
func (p *progress) AfterEpoch(t *train.Training) error {
	e := t.History.Epochs[len(t.History.Epochs)-1]
	p.lastStep = time.Now() // evaluation is no step
	switch {
	case p.j.f.json:
		out := map[string]any{"epoch": e.Epoch, "seconds": e.Seconds, "rate": e.Rate}
		for _, l := range e.Logs {
			out[l.Name] = l.Value
			if l.Value-l.Value != 0 {
				out[l.Name] = nil
			}
		}
		text, err := json.Marshal(out)
		if err != nil {
			return err
		}
		fmt.Fprintln(p.w, string(text))
	case !p.j.f.quiet:
		p.clear()
		var b strings.Builder
		fmt.Fprintf(&b, "epoch %2d/%d  %6s", e.Epoch, t.Epochs, energy.SI(e.Seconds, "s"))
		for _, l := range e.Logs {
			fmt.Fprintf(&b, "  %s %.4f", l.Name, l.Value)
		}
		rate := float64(p.j.set.Train.Len()) / e.Seconds
		fmt.Fprintf(&b, "  %.0f examples/s", rate)
		fmt.Fprintln(p.w, b.String())
	}
	return nil
}

// meanStep is the mean time of a step, in milliseconds: rare slow steps count in it.
func (p *progress) meanStep() float64 { return p.inAll / max(p.steps, 1) }

// medianStep is the median time of a step, in milliseconds.
func (p *progress) medianStep() float64 {
	if len(p.stepTimes) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(p.stepTimes))
	return s[len(s)/2]
}
