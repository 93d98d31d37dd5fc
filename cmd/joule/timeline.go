package main

import (
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/train"
)

// timelineSteps is how many steps a timeline shows: the first compile, the rest is what a training looks like.
const timelineSteps = 40

// timeline gathers spans of this rank.
type timeline struct {
	mu    sync.Mutex
	start time.Time
	spans []train.Span
}

func (t *timeline) add(s train.Span) {
	if s.Step > timelineSteps {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, s)
}

// event is one of the Trace Event Format (Google, "Trace Event Format", 2016): a stretch of time in microseconds.
type event struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	Begin float64        `json:"ts"`
	Took  float64        `json:"dur"`
	Rank  int            `json:"pid"`
	Lane  string         `json:"tid"`
	Args  map[string]any `json:"args,omitempty"`
}

// write gathers all ranks' spans and, on rank 0, writes them. Clocks of several machines may differ.
func (t *timeline) write(path string, c *dist.Comm) error {
	t.mu.Lock()
	own := t.spans
	t.mu.Unlock()
	all := [][]train.Span{own}
	if c != nil && c.Size() > 1 {
		var err error
		if all, err = dist.Gather(c, own); err != nil || c.Rank() != 0 {
			return err
		}
	}
	events := []event{}
	for r, spans := range all {
		for _, s := range spans {
			lane := "compute"
			if len(s.What) > 6 && s.What[:6] == "bucket" {
				lane = "sums"
			}
			events = append(events, event{s.What, "X", s.Begin.Sub(t.start).Seconds() * 1e6, s.End.Sub(s.Begin).Seconds() * 1e6, r, lane, map[string]any{"step": s.Step}})
		}
	}
	text, err := json.Marshal(map[string]any{"traceEvents": events})
	if err != nil {
		return err
	}
	if path == "-" {
		_, err = os.Stdout.Write(append(text, '\n'))
		return err
	}
	return atomicfile.WriteBytes(path, text)
}
