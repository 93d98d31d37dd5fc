package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/format/csvlog"
)

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func epoch(n int64, loss float64) Epoch {
	return Epoch{Epoch: n, Seconds: 1.5, Joules: 40, Metrics: []csvlog.Value{{Name: "loss", Value: loss}}}
}

// finished makes a whole run.
func finished(t *testing.T, s *Store, info Info, results Values) Info {
	t.Helper()
	r := must(s.Create(info))(t)
	for e := range int64(2) {
		if err := r.Append(epoch(e+1, 1/float64(e+1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Finish(Outcome{State: Done, Results: results}); err != nil {
		t.Fatal(err)
	}
	return r.Info()
}

func TestRun(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "deep", "runs %20?#"))
	if l := must(s.List(Query{}))(t); len(l.Runs) != 0 || len(l.Problems) != 0 {
		t.Error(l)
	}
	if _, err := os.Stat(s.Root()); err == nil {
		t.Error("looking made a folder")
	}
	r := must(s.Create(Info{Name: "mnist", Spec: "model:\n  - dense: 10\n", Seed: math.MaxUint64, ISA: "avx2", Threads: 2}))(t)
	id := r.Info().ID
	if _, err := os.Stat(filepath.Join(s.Root(), indexName)); err == nil {
		t.Error("the start of a run has opened the index")
	}
	if got := must(s.Get("last"))(t); got.State != Running || got.Host == "" || time.Since(got.Start) > time.Minute {
		t.Errorf("%+v", got)
	}
	if l := must(s.List(Query{}))(t); len(l.Runs) != 1 || l.Runs[0].State != Running {
		t.Errorf("%+v", l)
	}
	for _, e := range []Epoch{epoch(1, 0.5), epoch(2, math.NaN())} {
		if err := r.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	results := Values{"test_accuracy": 0.99, "test_loss": math.NaN(), "joules": math.Inf(1)}
	bad := Outcome{State: Failed, Ledger: json.RawMessage("{")}
	if r.Finish(bad) == nil || r.Finish(Outcome{State: Running}) == nil {
		t.Error("a bad outcome was taken")
	}
	err := r.Finish(Outcome{State: Failed, Error: errors.New("loss is NaN"), Results: results,
		Ledger: json.RawMessage(`{"lines": [1]}`), Artifacts: map[string]string{"model": "model.safetensors"}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Finish(Outcome{State: Done}) == nil || r.Append(epoch(3, 1)) == nil {
		t.Error("a run that has ended goes on")
	}
	l := must(s.List(Query{}))(t)
	got := must(s.Get(id))(t)
	for _, i := range []*Info{&l.Runs[0], got} {
		var ledger struct{ Lines []int }
		if err := json.Unmarshal(i.Ledger, &ledger); err != nil || len(ledger.Lines) != 1 {
			t.Errorf("ledger %s, %v", i.Ledger, err)
		}
		if i.ID != id || i.Dir != filepath.Join(s.Root(), id) || i.State != Failed || i.Error != "loss is NaN" || i.Seed != math.MaxUint64 ||
			i.Artifacts["model"] == "" || i.Spec != "model:\n  - dense: 10\n" || i.Duration() <= 0 || len(i.Results) != 3 {
			t.Errorf("%+v", i)
		}
		if !math.IsNaN(i.Results["test_loss"]) || !math.IsInf(i.Results["joules"], 1) || i.Results["test_accuracy"] != 0.99 {
			t.Error(i.Results)
		}
		h := must(i.History())(t)
		if !reflect.DeepEqual(h.Columns, []string{"seconds", "joules", "loss"}) || len(h.Rows) != 2 || h.Column("loss")[0] != 0.5 {
			t.Errorf("%+v", h)
		}
	}
}

func TestResume(t *testing.T) {
	s := Open(t.TempDir())
	r := must(s.Create(Info{Name: "a"}))(t)
	if _, err := s.Resume("last"); !errors.Is(err, ErrRunning) {
		t.Errorf("a run in progress was taken up: %v", err)
	}
	if _, err := s.Delete("last"); !errors.Is(err, ErrRunning) {
		t.Errorf("a run in progress was deleted: %v", err)
	}
	for e := range int64(3) {
		r.Append(epoch(e+1, 1))
	}
	if err := r.Finish(Outcome{State: Interrupted}); err != nil {
		t.Fatal(err)
	}
	r = must(s.Resume(r.Info().ID))(t)
	if err := r.Append(epoch(3, 9)); err != nil { // epoch 3 again
		t.Fatal(err)
	}
	if l := must(s.List(Query{State: Running}))(t); len(l.Runs) != 1 || l.Runs[0].Resumed != 1 {
		t.Errorf("%+v", l)
	}
	if err := r.Finish(Outcome{State: Done}); err != nil {
		t.Fatal(err)
	}
	i := r.Info()
	if got := must(i.History())(t).Column("loss"); !reflect.DeepEqual(got, []float64{1, 1, 9}) {
		t.Error(got)
	}
	if l := must(s.List(Query{}))(t); l.Runs[0].State != Done {
		t.Errorf("%+v", l)
	}
}

func TestFind(t *testing.T) {
	s := Open(t.TempDir())
	if _, err := s.Get("last"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), s.Root()) {
		t.Error(err)
	}
	var ids []string
	for range 3 {
		ids = append(ids, finished(t, s, Info{}, nil).ID)
		time.Sleep(2 * time.Millisecond) // ids are ordered by the millisecond
	}
	os.Mkdir(filepath.Join(s.Root(), "20not-a-run"), 0o777)
	os.WriteFile(filepath.Join(s.Root(), "notes"), nil, 0o666)
	for ref, want := range map[string]string{
		"last": ids[2], ids[0]: ids[0], ids[1][:len(ids[1])-1]: ids[1], filepath.Join(s.Root(), ids[1]): ids[1],
		"runs/" + ids[0] + "/": ids[0],
	} {
		if got, err := s.Get(ref); err != nil || got.ID != want {
			t.Errorf("%q: %v, %v, want %s", ref, got, err, want)
		}
	}
	// What a run has made on its way is not what someone means by last, unless that run is gone.
	time.Sleep(2 * time.Millisecond)
	part := finished(t, s, Info{Of: ids[1]}, nil).ID
	if got, err := s.Get("last"); err != nil || got.ID != ids[1] {
		t.Errorf("last is %v, %v, want %s", got, err, ids[1])
	}
	if got, err := s.Get(part); err != nil || got.ID != part || got.Of != ids[1] {
		t.Errorf("%s: %+v, %v", part, got, err)
	}
	must(s.Delete(part))(t)
	time.Sleep(2 * time.Millisecond)
	orphan := finished(t, s, Info{Of: "20200101-000000.000-0000"}, nil).ID
	if got, err := s.Get("last"); err != nil || got.ID != orphan {
		t.Errorf("last is %v, %v, want %s", got, err, orphan)
	}
	must(s.Delete(orphan))(t)
	for ref, want := range map[string]error{
		"20": ErrAmbiguous, "": ErrNotFound, "x": ErrNotFound, "20not-a-run": ErrNotFound, "..": ErrNotFound, "../..": ErrNotFound, "/": ErrNotFound, ".": ErrNotFound,
	} {
		if _, err := s.Get(ref); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", ref, err, want)
		}
		if _, err := s.Delete(ref); !errors.Is(err, want) {
			t.Errorf("deleting %q: %v, want %v", ref, err, want)
		}
	}
}

func names(l *Listing) string {
	var out []string
	for _, r := range l.Runs {
		out = append(out, r.Name)
	}
	return strings.Join(out, " ")
}

func TestList(t *testing.T) {
	s := Open(t.TempDir())
	for i, v := range []Values{{"acc": 0.5, "joules": 3}, {"acc": 0.9}, {"joules": 1}, {"acc": math.NaN(), "joules": 2}, {"acc": 0.7, "joules": math.Inf(1)}} {
		finished(t, s, Info{Name: string(rune('a' + i)), Threads: 10 - i}, v)
		time.Sleep(2 * time.Millisecond)
	}
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{}, "e d c b a"},
		{Query{Ascending: true}, "a b c d e"},
		{Query{Limit: 2}, "e d"},
		{Query{Sort: "acc"}, "b e a d c"},
		{Query{Sort: "acc", Ascending: true}, "a e b c d"},
		{Query{Sort: "joules", Ascending: true, Limit: 3}, "c d a"},
		{Query{Sort: "joules"}, "e a d c b"},
		{Query{Sort: "name", Ascending: true}, "a b c d e"},
		{Query{Sort: "threads"}, "a b c d e"},
		{Query{State: Failed}, ""},
		{Query{State: Done, Limit: 1}, "e"},
	} {
		if got := names(must(s.List(c.q))(t)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.q, got, c.want)
		}
	}
	for _, col := range Columns {
		must(s.List(Query{Sort: col}))(t)
	}
	for _, bad := range []string{"accuracy", "info; DROP TABLE runs", "stamp"} {
		if _, err := s.List(Query{Sort: bad}); err == nil || !strings.Contains(err.Error(), "there are start, name") || !strings.Contains(err.Error(), "acc, joules") {
			t.Errorf("sort by %q: %v", bad, err)
		}
	}
	// Folders are the truth: one that is removed by hand is gone, one that comes back is back.
	id := must(s.Get("last"))(t).ID
	away := filepath.Join(t.TempDir(), id)
	os.Rename(filepath.Join(s.Root(), id), away)
	if got := names(must(s.List(Query{}))(t)); got != "d c b a" {
		t.Error(got)
	}
	os.Rename(away, filepath.Join(s.Root(), id))
	if got := names(must(s.List(Query{}))(t)); got != "e d c b a" {
		t.Error(got)
	}
	if got := must(s.Delete("last"))(t); got != id {
		t.Error(got)
	}
	if got := names(must(s.List(Query{}))(t)); got != "d c b a" {
		t.Error(got)
	}
	entries, _ := os.ReadDir(s.Root())
	if len(entries) != 5 { // four runs and the index
		t.Error(entries)
	}
}

// TestIndexTables: what SQL users see.
func TestIndexTables(t *testing.T) {
	s := Open(t.TempDir())
	finished(t, s, Info{Name: "a"}, Values{"acc": 0.5})
	x := must(s.openIndex())(t)
	defer x.Close()
	for query, want := range map[string]string{
		"SELECT count(*) FROM runs WHERE state = 'done' AND \"end\" >= start AND duration >= 0":         "1",
		"SELECT value FROM results WHERE name = 'acc'":                                                  "0.5",
		"SELECT group_concat(value) FROM (SELECT value FROM epochs WHERE name = 'loss' ORDER BY epoch)": "1.0,0.5",
		"SELECT sum(value) FROM epochs WHERE name = 'joules'":                                           "80",
		"PRAGMA integrity_check": "ok",
	} {
		var got string
		if err := x.QueryRow(query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", query, got, err, want)
		}
	}
}

// TestDamagedIndex: whatever happened to the index, the list is complete and says what was wrong.
func TestDamagedIndex(t *testing.T) {
	s := Open(t.TempDir())
	finished(t, s, Info{Name: "a"}, Values{"acc": 1})
	path := filepath.Join(s.Root(), indexName)
	good := must(os.ReadFile(path))(t)
	tail := append(append([]byte{}, good[:100]...), make([]byte, len(good)-100)...)
	for what, damage := range map[string]func(){
		"garbage":   func() { os.WriteFile(path, []byte(strings.Repeat("garbage ", 1000)), 0o666) },
		"truncated": func() { os.WriteFile(path, good[:len(good)/2], 0o666) },
		"zeroed":    func() { os.WriteFile(path, tail, 0o666) },
		"a folder":  func() { os.Remove(path); os.Mkdir(path, 0o777) },
	} {
		damage()
		l := must(s.List(Query{Sort: "acc"}))(t)
		if names(l) != "a" || len(l.Problems) != 1 || !strings.Contains(l.Problems[0].Error(), path) {
			t.Errorf("%s: %+v", what, l)
		}
		r := must(s.Create(Info{Name: "b"}))(t)
		if err := r.Finish(Outcome{State: Done}); (err != nil) != (what == "a folder") {
			t.Errorf("%s: %v", what, err)
		}
		must(s.Delete("last"))(t)
		os.Remove(path)
	}
	for what, damage := range map[string]func(){
		"empty":         func() { os.WriteFile(path, nil, 0o666) },
		"missing":       func() { os.Remove(path) },
		"other version": func() { x := must(s.openIndex())(t); x.Exec("PRAGMA user_version = 99; DROP TABLE results"); x.Close() },
	} {
		damage()
		if l := must(s.List(Query{Sort: "acc"}))(t); names(l) != "a" || len(l.Problems) != 0 {
			t.Errorf("%s: %+v", what, l)
		}
	}
}

func TestDamagedRun(t *testing.T) {
	s := Open(t.TempDir())
	good := finished(t, s, Info{Name: "good"}, nil)
	bad := finished(t, s, Info{Name: "bad"}, nil)
	path := filepath.Join(bad.Dir, infoName)
	for _, content := range []string{"", "{", "[]", `{"state":"asleep"}`, `{"state":"done","results":{"a":"x"}}`, `{"state":"done","results":{"a":[]}}`} {
		os.WriteFile(path, []byte(content), 0o666)
		l := must(s.List(Query{}))(t)
		if names(l) != "good" || len(l.Problems) != 1 || !errors.Is(l.Problems[0], ErrDamaged) || !strings.Contains(l.Problems[0].Error(), path) {
			t.Errorf("%q: %+v", content, l)
		}
		if _, err := s.Get(bad.ID); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", content, err)
		}
		if _, err := s.Resume(bad.ID); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", content, err)
		}
	}
	if err := os.Truncate(path, maxInfo+1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(bad.ID); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "limit") {
		t.Error(err)
	}
	must(s.Delete(bad.ID))(t)
	// A history that cannot be read does not hide the run.
	os.WriteFile(filepath.Join(good.Dir, historyName), []byte("epoch,loss\nx,y\n"), 0o666)
	l := must(s.List(Query{}))(t)
	if names(l) != "good" || len(l.Problems) != 1 || !errors.Is(l.Problems[0], csvlog.ErrFormat) {
		t.Errorf("%+v", l)
	}
	if _, err := s.Resume(good.ID); !errors.Is(err, csvlog.ErrFormat) {
		t.Error(err)
	}
}

func TestCompare(t *testing.T) {
	s := Open(t.TempDir())
	a := finished(t, s, Info{Name: "mnist", Seed: 1, ISA: "avx2", Threads: 2}, Values{"acc": 0.5, "only_a": 1})
	b := finished(t, s, Info{Name: "mnist", Seed: 2, ISA: "avx2", Threads: 2}, Values{"acc": 0.75, "only_b": 2})
	c := must(s.Compare(a.ID, b.ID))(t)
	if !reflect.DeepEqual(c.Settings, []Difference{{"seed", "1", "2"}}) {
		t.Errorf("%+v", c.Settings)
	}
	if got, want := fmt.Sprint(c.Results), "[{acc 0.5 0.75} {only_a 1 NaN} {only_b NaN 2}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if len(c.HistoryA.Rows) != 2 || len(c.HistoryB.Rows) != 2 || c.A.ID != a.ID || c.B.ID != b.ID {
		t.Errorf("%+v", c)
	}
	if _, err := s.Compare("last", "none"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// A run that never began is gone, and the one before it is the last again.
func TestDiscard(t *testing.T) {
	s := Open(t.TempDir())
	a := finished(t, s, Info{Name: "a"}, nil)
	r := must(s.Create(Info{Name: "b"}))(t)
	if err := r.Discard(); err != nil {
		t.Fatal(err)
	}
	if i := must(s.Get("last"))(t); i.ID != a.ID {
		t.Errorf("the last is %s, want %s", i.ID, a.ID)
	}
	if all := must(s.List(Query{}))(t); len(all.Runs) != 1 {
		t.Errorf("%d runs", len(all.Runs))
	}
	if entries := must(os.ReadDir(s.Root()))(t); slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.Contains(e.Name(), r.Info().ID) }) {
		t.Error("left behind:", entries)
	}
	if r.Discard() == nil || r.Finish(Outcome{State: Done}) == nil {
		t.Error("a run was ended twice")
	}
}

func TestCreateFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	os.WriteFile(file, nil, 0o666)
	if _, err := Open(file).Create(Info{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
	if _, err := Open(file).List(Query{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
	if got := Open("").Root(); got != DefaultRoot {
		t.Error(got)
	}
}

// FuzzInfo: no run.json makes a reader panic, and what is read can be indexed.
func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"state":"done","start":"2026-11-24T04:15:30Z","results":{"acc":"NaN","joules":3},"ledger":{"a":[1]},"seed":18446744073709551615}`))
	f.Add([]byte(`{"state":"running"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := Open(t.TempDir())
		id := "20261124-041530.123-9f3a"
		os.Mkdir(filepath.Join(s.Root(), id), 0o777)
		if err := os.WriteFile(filepath.Join(s.Root(), id, infoName), b, 0o666); err != nil {
			t.Fatal(err)
		}
		i, err := s.Get(id)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		x, err := s.openDB(":memory:")
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		l, err := x.list(Query{})
		if err != nil || len(l) != 1 || l[0].Name != i.Name || l[0].State != i.State || !l[0].Start.Equal(i.Start) {
			t.Fatalf("%+v, %v; read %+v", l, err, i)
		}
	})
}
