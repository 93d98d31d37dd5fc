package trace

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func TestTimeline(t *testing.T) {
	if Current() != nil {
		t.Fatal("something is recorded before Start")
	}
	r := Start()
	defer Stop()
	begin := time.Now()
	at := func(us int) time.Time { return begin.Add(time.Duration(us) * time.Microsecond) }
	r.Add(Span{Name: "dense", Category: "forward", Track: Nodes, Start: at(5), End: at(9)})
	r.Add(Span{Name: "step 1", Track: Steps, Start: at(0), End: at(10), Args: map[string]any{"batch": 32}})
	r.Label("dense", "forward")
	r.Work(1, 0, begin) // did nothing: no span
	r.Work(1, 3, begin)
	var b bytes.Buffer
	if err := r.Write(&b, "joule"); err != nil {
		t.Fatal(err)
	}
	var out struct {
		TraceEvents []event `json:"traceEvents"`
	}
	if err := json.Unmarshal(b.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, e := range out.TraceEvents {
		if e.Phase == "M" && e.Name == "thread_name" {
			names[e.Args["name"].(string)] = e.TID
		}
		if e.Phase == "X" && e.Name == "dense" && e.TID == Nodes && (e.TS != 5 || e.Dur != 4) {
			t.Errorf("dense from %g for %g µs", e.TS, e.Dur)
		}
	}
	if len(names) != 3 || names["thread 1"] != Thread+1 {
		t.Errorf("tracks %v", names)
	}
	if s := r.Spans(); len(s) != 3 || s[2].Name != "dense" && s[2].Name != "step 1" {
		t.Errorf("%d spans", len(s))
	}
}
