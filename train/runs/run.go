package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/internal/atomicfile"
)

// Run is a run in progress, held by this process. Its methods may be called from several goroutines.
type Run struct {
	store *Store

	mu   sync.Mutex
	info Info
	lock *lock
	csv  *csvlog.Log
}

// Epoch is one row of the history.
type Epoch struct {
	Epoch   int64
	Seconds float64 // that the epoch took
	Joules  float64 // that it cost; NaN when not known
	// Metrics become columns of their own, in this order; "seconds" and "joules" are taken.
	Metrics []csvlog.Value
}

// Create makes the folder of a new run in state Running. Of info, the caller gives what is known beforehand (Name, Spec, Seed, ISA, Threads,
// Version); ID, Dir, Start, Host and State are set here. The run's folder is Info().Dir.
func (s *Store) Create(info Info) (*Run, error) {
	info.Start = time.Now()
	id, err := s.newID(info.Start)
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	info.ID, info.Dir, info.End, info.State = id, filepath.Join(s.root, id), time.Time{}, Running
	if info.Host == "" {
		if info.Host, err = os.Hostname(); err != nil {
			info.Host = "unknown"
		}
	}
	l, err := acquire(filepath.Join(info.Dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("runs: %s: %w", info.Dir, err)
	}
	return s.begin(info, l)
}

// Resume takes up a run that has ended in any way: its state is Running again and Append goes on behind the rows that are there.
// It fails with ErrRunning when another process holds the run.
func (s *Store) Resume(ref string) (*Run, error) {
	id, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	l, err := acquire(filepath.Join(s.root, id, lockName))
	if err != nil {
		return nil, fmt.Errorf("runs: %s: %w", filepath.Join(s.root, id), err)
	}
	info, err := s.read(id) // under the lock, so that nobody changes it any more
	if err != nil {
		l.release()
		return nil, fmt.Errorf("runs: %w", err)
	}
	info.State, info.End, info.Error = Running, time.Time{}, ""
	info.Resumed++
	return s.begin(*info, l)
}

// begin opens the history and writes run.json in a folder that l locks.
func (s *Store) begin(info Info, l *lock) (*Run, error) {
	r := &Run{store: s, info: info, lock: l}
	var err error
	if r.csv, err = csvlog.Open(r.Path(historyName), "epoch"); err == nil {
		err = r.write()
	}
	if err != nil {
		l.release()
		return nil, fmt.Errorf("runs: %w", err)
	}
	return r, nil
}

// Info is what is known of the run so far.
func (r *Run) Info() Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.info
}

// Path is where a file of the run lies.
func (r *Run) Path(name string) string { return filepath.Join(r.info.Dir, name) }

// write replaces run.json.
func (r *Run) write() error {
	b, err := json.MarshalIndent(r.info, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(r.Path(infoName), append(b, '\n'))
}

// Append writes a row of the history and flushes it to the disk. Rows of the same epoch or later ones are replaced: a resumed run comes to
// them a second time.
func (r *Run) Append(e Epoch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lock == nil {
		return fmt.Errorf("runs: %s has ended, its history takes no more rows", r.info.ID)
	}
	values := append([]csvlog.Value{{Name: "seconds", Value: e.Seconds}, {Name: "joules", Value: e.Joules}}, e.Metrics...)
	err := r.csv.Append(e.Epoch, values...)
	if err == nil {
		err = r.csv.Sync()
	}
	if err != nil {
		return fmt.Errorf("runs: %w", err)
	}
	return nil
}

// Discard lets go of a run that never began and removes its folder, so that it is not the last one.
func (r *Run) Discard() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lock == nil {
		return fmt.Errorf("runs: %s has ended before", r.info.ID)
	}
	r.csv.Close()
	r.lock.release()
	r.lock = nil
	_, err := r.store.Delete(r.info.ID)
	return err
}

// Outcome is how a run ended.
type Outcome struct {
	State     State // Done, Interrupted or Failed
	Error     error // why it failed
	Results   Values
	Ledger    json.RawMessage
	Artifacts map[string]string
	Settings  map[string]string // replace those of the beginning, if not nil
}

// Finish writes how the run ended, lets go of it, and brings the index up to date. A second Finish is an error.
// When only the index fails, the error says so; the run itself is saved then.
func (r *Run) Finish(o Outcome) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lock == nil {
		return fmt.Errorf("runs: %s has ended before", r.info.ID)
	}
	switch o.State {
	case Done, Interrupted, Failed:
	default:
		return fmt.Errorf("runs: a run cannot end in state %q", o.State)
	}
	if o.Ledger != nil && !json.Valid(o.Ledger) {
		return errors.New("runs: the ledger is not JSON")
	}
	r.info.End, r.info.State, r.info.Results, r.info.Ledger = time.Now(), o.State, o.Results, o.Ledger
	if o.Artifacts != nil {
		r.info.Artifacts = o.Artifacts
	}
	if o.Settings != nil {
		r.info.Settings = o.Settings
	}
	if o.Error != nil {
		r.info.Error = o.Error.Error()
	}
	err := r.write()
	r.csv.Close()
	r.lock.release()
	r.lock = nil
	if err != nil {
		return fmt.Errorf("runs: %w", err)
	}
	x, err := r.store.openIndex()
	if err == nil {
		x.Close()
		if x.inMemory {
			err = errors.Join(x.problems...)
		}
	}
	if err != nil {
		return fmt.Errorf("runs: the run is saved in %s, but the index of all runs was not updated: %w", r.info.Dir, err)
	}
	return nil
}
