package report

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
)

// Run is what a report is made of. Info alone is enough; with a model and data the report shows predictions too.
type Run struct {
	Info    *runs.Info
	History *csvlog.Table
	Model   *train.Model // nil: no predictions
	Set     *data.Set
	// Missing says why there is no model or no data.
	Missing string
	// Limit is the most test examples that are predicted; 0: DefaultLimit.
	Limit int
	// More are sections to show before the account, such as those of a compression.
	More []Section
}

// DefaultLimit is the most test examples that a report predicts.
const DefaultLimit = 10000

// OfRun makes the report of a run, as far as the run has come: curves, predictions or texts, the account, the predicted and the real bill, settings and machine.
func OfRun(ctx context.Context, r Run) (*Page, error) {
	i := r.Info
	p := &Page{Title: i.Name, State: string(i.State), Bad: i.State == runs.Failed || i.State == runs.Interrupted}
	p.Subtitle = fmt.Sprintf("Run %s · %s", i.ID, i.Start.Local().Format("2 January 2006, 15:04"))
	if i.Resumed > 0 {
		p.Subtitle += fmt.Sprintf(" · resumed %d times", i.Resumed)
	}
	var l *energy.Ledger
	if len(i.Ledger) > 0 {
		l = &energy.Ledger{}
		if err := json.Unmarshal(i.Ledger, l); err != nil {
			return nil, fmt.Errorf("report: the account of run %s: %w", i.ID, err)
		}
	}
	p.Tiles = tiles(i, l)
	if i.Error != "" {
		p.Sections = append(p.Sections, Section{Title: "Error", Parts: []Part{&Text{Body: i.Error, Mono: true}}})
	}
	more, err := r.predictions(ctx)
	if err != nil {
		return nil, err
	}
	if i.State == runs.Done && (r.History == nil || len(r.History.Rows) == 0) { // no training, but a search or what came out of one
		p.Sections = append(append(p.Sections, r.More...), more...)
	} else {
		p.Sections = append(append(append(p.Sections, Curves(r.History)), more...), r.More...)
	}
	if l != nil {
		var order []string
		if r.Model != nil {
			for _, layer := range r.Model.Net.Layers() {
				order = append(order, layer.Name())
			}
		}
		p.Sections = append(p.Sections, Ledger(l, order))
	}
	if b, ok := bill(i, l); ok {
		p.Sections = append(p.Sections, b)
	}
	p.Sections = append(p.Sections, r.settings())
	p.Foot = "Made by joule " + i.Version + ". Arithmetic is what the model asks for; executed is what ran after fusing and choosing algorithms. A layer whose time is 0 ran inside another's kernel. " +
		"Figures of energy that begin with ≈ or have an interval are estimates and never measurements."
	return p, nil
}

// tiles are the figures at the top.
func tiles(i *runs.Info, l *energy.Ledger) []Tile {
	var out []Tile
	add := func(name, key, unit string) {
		if v, ok := i.Results[key]; ok && finite(v) {
			out = append(out, Tile{Name: name, Value: Quantity(v, unit)})
		}
	}
	names := slices.Sorted(maps.Keys(i.Results))
	for _, k := range names { // metrics before the loss
		if n, ok := strings.CutPrefix(k, "test_"); ok && n != "loss" && n != "accuracy" && len(out) < 3 {
			add("test "+strings.ReplaceAll(n, "_", " "), k, "")
		}
	}
	if v, ok := i.Results["test_accuracy"]; ok && finite(v) {
		out = append([]Tile{{Name: "test accuracy", Value: fmt.Sprintf("%.2f%%", 100*v)}}, out...)
	}
	add("test loss", "test_loss", "")
	if v, ok := i.Results["seconds"]; ok {
		t := Tile{Name: "time", Value: Quantity(v, "s")}
		if ms, ok := i.Results["step_ms_median"]; ok && ms > 0 {
			t.Note = fmt.Sprintf("%s steps, median %s", thousands(int64(i.Results["steps"])), Quantity(ms*1e-3, "s"))
			if mean, ok := i.Results["step_ms_mean"]; ok {
				t.Note += ", mean " + Quantity(mean*1e-3, "s")
			}
		}
		out = append(out, t)
	}
	if l != nil {
		t := Tile{Name: "energy", Value: energy.SI(l.Joules.Value, "J"), Note: l.Joules.Source.String()}
		if !l.Joules.Source.Measured {
			t.Value = "≈" + t.Value
			t.Note = fmt.Sprintf("%s to %s, %v", energy.SI(l.Joules.Low, "J"), energy.SI(l.Joules.High, "J"), l.Joules.Source)
		}
		out = append(out, t, Tile{Name: "arithmetic", Value: energy.SI(float64(l.Cost.FLOPs), "FLOP")})
	}
	add("peak memory", "peak_rss_bytes", "B")
	return out
}

// predictions are the sections that need the model.
func (r Run) predictions(ctx context.Context) ([]Section, error) {
	if r.Model == nil || r.Set == nil {
		if r.Missing == "" {
			return nil, nil
		}
		return []Section{{Title: "Predictions", Text: "Not shown: " + r.Missing + "."}}, nil
	}
	limit := r.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	if r.Info.State == runs.Failed {
		return nil, nil
	}
	s, err := Predictions(ctx, r.Model, r.Set.Test, limit)
	if err != nil {
		return nil, err
	}
	if len(s.Parts) > 0 {
		return []Section{s}, nil
	}
	t, err := Answers(ctx, r.Model, r.Set, min(limit, scored))
	if err != nil {
		return nil, err
	}
	if len(t.Parts) == 0 {
		t, err = Texts(ctx, r.Model, r.Set.Test, 3, 240)
	}
	if err != nil || len(t.Parts) == 0 {
		return nil, err
	}
	return []Section{t}, nil
}

// bill sets what was predicted from the first steps beside what the run cost.
func bill(i *runs.Info, l *energy.Ledger) (Section, bool) {
	s := Section{Title: "Bill", Text: "Predicted for the whole training from its first steps, and what it came to."}
	if i.State != runs.Done {
		s.Text = "Predicted for the whole training from its first steps, and what the run has cost up to where it ended."
	}
	t := &Table{Columns: []string{"", "predicted", "real", "real / predicted"}, Right: []bool{false, true, true, true}}
	row := func(name string, p, r float64, unit string) {
		if finite(p) && p > 0 && finite(r) {
			t.Rows = append(t.Rows, []string{name, Quantity(p, unit), Quantity(r, unit), fmt.Sprintf("%.2f", r/p)})
		}
	}
	get := func(key string) float64 {
		if v, ok := i.Results[key]; ok {
			return v
		}
		return math.NaN()
	}
	row("time", get("predicted_seconds"), get("seconds"), "s")
	if l != nil {
		row("energy", get("predicted_joules"), l.Joules.Value, "J")
	}
	row("arithmetic", get("predicted_flops"), get("flops"), "FLOP")
	row("memory", get("predicted_bytes"), get("peak_rss_bytes"), "B")
	s.Parts = []Part{t}
	return s, len(t.Rows) > 0
}

func (r Run) settings() Section {
	i := r.Info
	s := Section{Title: "Settings and machine"}
	pairs := [][2]string{{"seed", fmt.Sprint(i.Seed)}}
	for _, k := range slices.Sorted(maps.Keys(i.Settings)) {
		pairs = append(pairs, [2]string{k, i.Settings[k]})
	}
	s.Parts = append(s.Parts, Settings("Hyperparameters", pairs...))
	end := ""
	if !i.End.IsZero() {
		end = i.End.Local().Format("2 January 2006, 15:04:05") + ", after " + i.Duration().Round(time.Second).String()
	}
	threads := ""
	if i.Threads > 0 {
		threads = fmt.Sprint(i.Threads)
	}
	s.Parts = append(s.Parts, Settings("Machine", [2]string{"host", i.Host}, [2]string{"processor", i.CPU}, [2]string{"system", i.Platform}, [2]string{"instruction set", i.ISA},
		[2]string{"threads", threads}, [2]string{"joule", i.Version}, [2]string{"ended", end}))
	if i.Spec != "" {
		s.Parts = append(s.Parts, &Text{Title: "Specification", Body: strings.TrimRight(i.Spec, "\n"), Mono: true})
	}
	return s
}
