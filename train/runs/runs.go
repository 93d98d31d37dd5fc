// Package runs keeps the history of trainings: one folder for each run, and an index over all of them.
//
//	runs/
//	  history.db                         the index: SQLite, made from the folders, may be deleted at any time
//	  20261124-041530.123-9f3a/          a run; the name is its id: when it began (UTC) and four random digits
//	    run.json                         what was run, where, how it ended, its results and its ledger (type Info)
//	    history.csv                      one row an epoch
//	    .lock                            locked by the process that trains
//	    …                                checkpoints, event files, the model, the report: whatever the training puts there
//
// The folders are the truth. A training writes only into its own folder and opens the index once, when it ends, so that neither
// its start nor its steps wait for a database, any number of trainings run side by side, and a folder can be copied elsewhere or deleted
// by hand. The index is brought up to date whenever it is read; a damaged one is set aside and made anew.
//
// A run whose process ended without saying how (a kill, a loss of power) is Interrupted: its lock is free.
package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/internal/atomicfile"
)

// DefaultRoot is the folder of all runs when none is given.
const DefaultRoot = "runs"

// Names of files in a run's folder.
const (
	infoName    = "run.json"
	historyName = "history.csv"
	lockName    = ".lock"
)

// maxInfo is the longest run.json that is read, in bytes.
const maxInfo = 64 << 20

// State is how far a run has come.
type State string

// The states of a run.
const (
	Running     State = "running"
	Done        State = "done"
	Interrupted State = "interrupted" // stopped by the user or killed; can be resumed
	Failed      State = "failed"
)

// Errors to be found with errors.Is.
var (
	ErrNotFound  = errors.New("no such run")
	ErrAmbiguous = errors.New("more than one run is meant")
	ErrRunning   = errors.New("the run is in progress")
	ErrDamaged   = errors.New("run.json cannot be read")
)

// Values are numbers by name. NaN and infinities are kept, in JSON as strings.
type Values map[string]float64

// MarshalJSON writes an object of numbers, and of the strings "NaN", "+Inf" and "-Inf".
func (v Values) MarshalJSON() ([]byte, error) {
	out := make(map[string]any, len(v))
	for k, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			out[k] = strconv.FormatFloat(x, 'g', -1, 64)
		} else {
			out[k] = x
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (v *Values) UnmarshalJSON(b []byte) error {
	var in map[string]any
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	special := map[string]float64{"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1)}
	*v = make(Values, len(in))
	for k, x := range in {
		switch x := x.(type) {
		case float64:
			(*v)[k] = x
		case string:
			f, ok := special[x]
			if !ok {
				return fmt.Errorf("%s is %q, not a number", k, x)
			}
			(*v)[k] = f
		default:
			return fmt.Errorf("%s is %v, not a number", k, x)
		}
	}
	return nil
}

// Info describes a run; it is the content of run.json.
type Info struct {
	ID string `json:"id"`
	// Name is the preset, or the name of the spec's file.
	Name string `json:"name"`
	// Of is the id of the run that made this one on its way, such as a search its candidates; "" of others.
	Of string `json:"of,omitempty"`
	// Spec is the text of the specification that was run.
	Spec     string `json:"spec,omitempty"`
	Seed     uint64 `json:"seed"`
	Host     string `json:"host"`
	ISA      string `json:"isa,omitempty"` // the CPU's instruction set that was used, or the devices
	Threads  int    `json:"threads,omitempty"`
	CPU      string `json:"cpu,omitempty"`      // the processor's name, as the system tells it
	Platform string `json:"platform,omitempty"` // such as "linux/amd64, go1.26"
	// Settings are the hyperparameters, by name, with what the command line changed of the specification.
	Settings map[string]string `json:"settings,omitempty"`
	// Version is the program's.
	Version string    `json:"version,omitempty"`
	Start   time.Time `json:"start"`
	End     time.Time `json:"end,omitzero"`
	State   State     `json:"state"`
	// Resumed counts how often the run went on after it had stopped.
	Resumed int `json:"resumed,omitempty"`
	// Error says why a run failed.
	Error string `json:"error,omitempty"`
	// Results are the last metrics and totals, such as test_accuracy, test_loss, seconds and joules.
	Results Values `json:"results,omitempty"`
	// Ledger is the account of FLOPs, bytes, seconds and joules; this package does not look into it.
	Ledger json.RawMessage `json:"ledger,omitempty"`
	// Artifacts are files by what they are ("model", "report"), relative to the run's folder.
	Artifacts map[string]string `json:"artifacts,omitempty"`

	// Dir is the run's folder, as seen from the current one.
	Dir string `json:"-"`
}

// Duration is how long the run took: from Start to End, 0 while it has no end.
func (i *Info) Duration() time.Duration {
	if i.End.IsZero() {
		return 0
	}
	return i.End.Sub(i.Start)
}

// History reads the rows that the run has written so far, one an epoch. A run without rows has an empty table.
func (i *Info) History() (*csvlog.Table, error) {
	t, err := csvlog.Read(filepath.Join(i.Dir, historyName))
	if errors.Is(err, fs.ErrNotExist) {
		return &csvlog.Table{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	return t, nil
}

// Store is the runs in one folder. Its methods may be called by any number of goroutines and processes at once.
type Store struct{ root string }

// Open names the folder of all runs, DefaultRoot when it is empty. Nothing is read or made before a method needs it.
func Open(root string) *Store {
	if root == "" {
		root = DefaultRoot
	}
	return &Store{root: filepath.Clean(root)}
}

// Root is the folder of all runs.
func (s *Store) Root() string { return s.root }

// idLayout sorts by time. The digits after it keep two runs apart that begin in the same millisecond.
const idLayout = "20060102-150405.000"

var idPattern = regexp.MustCompile(`^\d{8}-\d{6}\.\d{3}-[0-9a-f]{4}$`)

// newID makes a run's folder.
func (s *Store) newID(start time.Time) (string, error) {
	if err := atomicfile.MkdirAll(s.root); err != nil {
		return "", err
	}
	for {
		id := fmt.Sprintf("%s-%04x", start.UTC().Format(idLayout), rand.IntN(1<<16))
		err := os.Mkdir(filepath.Join(s.root, id), 0o777)
		if errors.Is(err, fs.ErrExist) {
			start = time.Now()
			continue
		}
		if err != nil {
			return "", fmt.Errorf("%w%s", err, atomicfile.Remedy(err))
		}
		return id, atomicfile.OS.SyncDir(s.root)
	}
}

// ids lists the runs' folders, the newest first.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("runs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && idPattern.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	slices.Reverse(out) // ReadDir sorts by name
	return out, nil
}

// read reads a run's run.json.
func (s *Store) read(id string) (*Info, error) {
	dir := filepath.Join(s.root, id)
	path := filepath.Join(dir, infoName)
	damaged := func(err error) error {
		return fmt.Errorf("%w: %s: %w; delete the folder or mend the file", ErrDamaged, path, err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, damaged(err)
	}
	if st.Size() > maxInfo {
		return nil, damaged(fmt.Errorf("%d bytes, the limit is %d", st.Size(), maxInfo))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, damaged(err)
	}
	var i Info
	if err := json.Unmarshal(b, &i); err != nil {
		return nil, damaged(err)
	}
	i.ID, i.Dir = id, dir // a copied folder is a run of its own
	switch i.State {
	case Running:
		if free, err := lockIsFree(filepath.Join(dir, lockName)); err == nil && free {
			i.State = Interrupted
		}
	case Done, Interrupted, Failed:
	default:
		return nil, damaged(fmt.Errorf("unknown state %q", i.State))
	}
	return &i, nil
}

// find turns what a user typed into an id: "last", an id, its unique beginning, or a path to the run's folder.
func (s *Store) find(ref string) (string, error) {
	ids, err := s.ids()
	if err != nil {
		return "", err
	}
	if len(ids) == 0 {
		return "", fmt.Errorf("runs: %w: there are none in %s; joule train makes one, --out names another folder", ErrNotFound, s.root)
	}
	if ref == "last" {
		if i, err := s.read(ids[0]); err == nil && slices.Contains(ids, i.Of) {
			return i.Of, nil
		}
		return ids[0], nil
	}
	name := ref
	if strings.ContainsAny(ref, `/\`) {
		name = filepath.Base(filepath.Clean(ref))
	}
	var hits []string
	for _, id := range ids {
		if id == name {
			return id, nil
		}
		if name != "" && strings.HasPrefix(id, name) {
			hits = append(hits, id)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return "", fmt.Errorf("runs: %w: %q in %s; the newest is %s (or say last)", ErrNotFound, ref, s.root, ids[0])
	}
	return "", fmt.Errorf("runs: %w by %q: %s; give more of the id", ErrAmbiguous, ref, strings.Join(hits, ", "))
}

// Get finds one run: by its id, by a beginning of the id that no other has, by the path of its folder, or "last" for the one that began last (of runs that
// another has made on its way, that one).
// Errors wrap ErrNotFound, ErrAmbiguous or ErrDamaged.
func (s *Store) Get(ref string) (*Info, error) {
	id, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	i, err := s.read(id)
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	return i, nil
}

// Delete removes a run with all its files and returns its id. A run in progress is not removed (ErrRunning); a damaged one is.
func (s *Store) Delete(ref string) (string, error) {
	id, err := s.find(ref)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(s.root, id)
	l, err := acquire(filepath.Join(dir, lockName))
	if err != nil {
		return "", fmt.Errorf("runs: deleting %s: %w", dir, err)
	}
	l.release() // Windows renames no folder with an open file in it
	// Renamed first: a removal that is cut short must not leave half a run in the list.
	gone := filepath.Join(s.root, ".deleted-"+id)
	if err := os.Rename(dir, gone); err != nil {
		return "", fmt.Errorf("runs: %w%s", err, atomicfile.Remedy(err))
	}
	if err := os.RemoveAll(gone); err != nil {
		return "", fmt.Errorf("runs: %s is no longer a run, but its files could not be removed: %w%s", id, err, atomicfile.Remedy(err))
	}
	return id, nil
}
