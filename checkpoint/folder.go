package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/jouleml/joule/internal/atomicfile"
)

// ErrNone is wrapped when a folder holds no whole checkpoint.
var ErrNone = errors.New("no usable checkpoint")

// DefaultKeep is how many of the newest checkpoints a Folder keeps when it is not told.
const DefaultKeep = 3

// Folder is the checkpoints of one training, one file each: "000012-step-18750.safetensors" is the twelfth that was saved.
// The first number says which is newest, so that a run that went back to an older step is still in order.
// Only one process may save in a folder at a time; any number may read.
type Folder struct {
	// Dir is made when it is missing.
	Dir string
	// Keep is how many of the newest stay, DefaultKeep when 0. The one with the highest Score stays too.
	Keep int

	fsys atomicfile.FS // nil: the machine's
}

var fileName = regexp.MustCompile(`^(\d{6,18})-step-(\d{1,19})\.safetensors$`)

// saved is a checkpoint's file by its name alone.
type saved struct {
	path string
	seq  int64
}

// list gives the checkpoints in dir, newest first, and the temporary files that a kill has left.
func list(dir string) (all []saved, temps []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if m := fileName.FindStringSubmatch(e.Name()); m != nil {
			seq, err := strconv.ParseInt(m[1], 10, 64)
			if err == nil {
				all = append(all, saved{path, seq})
			}
		} else if atomicfile.IsTemp(e.Name()) {
			temps = append(temps, path)
		}
	}
	slices.SortStableFunc(all, func(a, b saved) int { return cmp.Compare(b.seq, a.seq) })
	return all, temps, nil
}

// Save writes s as the newest checkpoint and then deletes those that need not be kept, and what an earlier kill has left half-written.
// Nothing is deleted before the new file is safe on the disk. When the path is not empty, the checkpoint is saved, and an error
// beside it is about deleting an older file.
func (f Folder) Save(s *State) (path string, err error) {
	fsys := f.fsys
	if fsys == nil {
		fsys = atomicfile.OS
	}
	if err := atomicfile.MkdirAll(f.Dir); err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	all, temps, err := list(f.Dir)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w%s", err, atomicfile.Remedy(err))
	}
	next := saved{seq: 1}
	if len(all) > 0 {
		next.seq = all[0].seq + 1
	}
	next.path = filepath.Join(f.Dir, fmt.Sprintf("%06d-step-%d.safetensors", next.seq, s.Step))
	if err := save(fsys, next.path, s); err != nil {
		return "", err
	}
	for _, p := range append(f.surplus(all, s.Score), temps...) {
		if e := fsys.Remove(p); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("checkpoint: %s is saved, but an older file could not be deleted: %w", next.path, e))
		}
	}
	return next.path, err
}

// surplus is which of the older checkpoints (newest first) may go, given the newest's score: all but Keep-1 and the best.
// A file whose header cannot be read is neither counted nor deleted: somebody should see it.
func (f Folder) surplus(older []saved, newest float64) []string {
	keep := f.Keep
	if keep <= 0 {
		keep = DefaultKeep
	}
	best, score := "", newest
	var readable []string
	for _, o := range older {
		s, err := Peek(o.path)
		if err != nil {
			continue
		}
		readable = append(readable, o.path)
		if !math.IsNaN(s.Score) && (math.IsNaN(score) || s.Score > score) {
			best, score = o.path, s.Score
		}
	}
	if len(readable) < keep {
		return nil
	}
	return slices.DeleteFunc(readable[keep-1:], func(p string) bool { return p == best })
}

// Found is a checkpoint that Latest or Best has loaded.
type Found struct {
	*State
	Path string
	// Skipped says for each file that came first and could not be used, why. Show it to the user.
	Skipped []error
}

// Latest loads the newest checkpoint in dir that is whole. The error wraps ErrNone when there is none, and says what is wrong with those there are.
func Latest(dir string) (*Found, error) {
	all, _, err := list(dir)
	if err != nil {
		return nil, none(dir, []error{err})
	}
	return first(dir, all)
}

// Best loads the whole checkpoint with the highest Score, the newest among equals; checkpoints without a score do not count.
func Best(dir string) (*Found, error) {
	all, _, err := list(dir)
	if err != nil {
		return nil, none(dir, []error{err})
	}
	scores := map[string]float64{}
	all = slices.DeleteFunc(all, func(c saved) bool {
		s, err := Peek(c.path)
		if err == nil {
			scores[c.path] = s.Score
		}
		return err == nil && math.IsNaN(s.Score) // an unreadable file stays, to be reported
	})
	slices.SortStableFunc(all, func(a, b saved) int {
		x, okx := scores[a.path]
		y, oky := scores[b.path]
		switch {
		case okx != oky && !okx, okx && oky && x > y:
			return -1
		case okx != oky && !oky, okx && oky && x < y:
			return 1
		}
		return 0
	})
	return first(dir, all)
}

// first loads the first of all that is whole.
func first(dir string, all []saved) (*Found, error) {
	var skipped []error
	for _, c := range all {
		s, err := Load(c.path)
		if err == nil {
			return &Found{s, c.path, skipped}, nil
		}
		skipped = append(skipped, err)
	}
	return nil, none(dir, skipped)
}

func none(dir string, skipped []error) error {
	err := fmt.Errorf("checkpoint: %w in %s; start the training anew, or give the folder of another run", ErrNone, dir)
	return errors.Join(append([]error{err}, skipped...)...)
}
