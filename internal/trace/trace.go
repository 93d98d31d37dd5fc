// Package trace records what threads do, as spans of time, for a timeline that Perfetto and Chrome open.
//
// Recording is off unless Start was called, and then costs one atomic load where a span could begin. The backend books a span for each node, the pool one for each thread's
// share of a piece of work.
package trace

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Tracks of a timeline: Steps and Nodes are the program's, and a thread of the pool has Thread + its number.
const (
	Steps  = 1
	Nodes  = 2
	Thread = 10
)

// Span is a stretch of time on one track.
type Span struct {
	Name       string
	Category   string // the phase of a node
	Track      int
	Start, End time.Time
	Args       map[string]any
}

// Recorder gathers spans. Its methods may be called from any goroutine.
type Recorder struct {
	mu    sync.Mutex
	spans []Span
	label string // of the node that runs now
	phase string
}

var current atomic.Pointer[Recorder]

// Start begins recording; it replaces a recorder that was there.
func Start() *Recorder {
	r := &Recorder{}
	current.Store(r)
	return r
}

// Stop ends recording.
func Stop() { current.Store(nil) }

// Current is the recorder, nil while nothing is recorded.
func Current() *Recorder { return current.Load() }

// Add records a span.
func (r *Recorder) Add(s Span) {
	r.mu.Lock()
	r.spans = append(r.spans, s)
	r.mu.Unlock()
}

// Label says what the work that threads do from now on belongs to.
func (r *Recorder) Label(name, phase string) {
	r.mu.Lock()
	r.label, r.phase = name, phase
	r.mu.Unlock()
}

// Work records what a thread has done of a piece of work: so many chunks since start.
func (r *Recorder) Work(thread, chunks int, start time.Time) {
	if chunks == 0 {
		return
	}
	end := time.Now()
	r.mu.Lock()
	r.spans = append(r.spans, Span{Name: r.label, Category: r.phase, Track: Thread + thread, Start: start, End: end, Args: map[string]any{"chunks": chunks}})
	r.mu.Unlock()
}

// Spans are what has been recorded, by their beginnings.
func (r *Recorder) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.spans)
	slices.SortStableFunc(out, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return out
}

// event is an entry of the trace event format (Google, Trace Event Format, 2016): times in microseconds.
type event struct {
	Name  string         `json:"name"`
	Cat   string         `json:"cat,omitempty"`
	Phase string         `json:"ph"`
	TS    float64        `json:"ts"`
	Dur   float64        `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   int            `json:"tid"`
	Args  map[string]any `json:"args,omitempty"`
}

// Write writes the timeline as JSON in the trace event format.
func (r *Recorder) Write(w io.Writer, process string) error {
	spans := r.Spans()
	tracks := map[int]string{Steps: "steps", Nodes: "nodes"}
	for _, s := range spans {
		if s.Track >= Thread {
			tracks[s.Track] = fmt.Sprintf("thread %d", s.Track-Thread)
		}
	}
	events := []event{{Name: "process_name", Phase: "M", PID: 1, Args: map[string]any{"name": process}}}
	for _, t := range slices.Sorted(maps.Keys(tracks)) {
		events = append(events, event{Name: "thread_name", Phase: "M", PID: 1, TID: t, Args: map[string]any{"name": tracks[t]}},
			event{Name: "thread_sort_index", Phase: "M", PID: 1, TID: t, Args: map[string]any{"sort_index": t}})
	}
	for _, s := range spans {
		events = append(events, event{Name: s.Name, Cat: s.Category, Phase: "X", TS: float64(s.Start.Sub(spans[0].Start).Nanoseconds()) / 1e3,
			Dur: float64(s.End.Sub(s.Start).Nanoseconds()) / 1e3, PID: 1, TID: s.Track, Args: s.Args})
	}
	text, err := json.Marshal(map[string]any{"traceEvents": events, "displayTimeUnit": "ns"})
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}
