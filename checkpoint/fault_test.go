package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jouleml/joule/internal/atomicfile"
)

// faultFS passes calls on to the machine's file system, counts them, and makes one of them fail or be the last.
type faultFS struct {
	at    int   // the call at which something happens; -1: none
	err   error // what that call returns; nil: the process "dies" there (a panic with errKilled)
	n     int
	calls []call
}

// call is one change of the file system, as a disk sees it.
type call struct {
	op       string // create, write, sync, rename, syncdir, remove
	path, to string
	data     []byte
}

var errKilled = errors.New("killed")

// step counts a call and reports whether it shall fail.
func (f *faultFS) step() error {
	f.n++
	if f.n-1 != f.at {
		return nil
	}
	if f.err == nil {
		panic(errKilled)
	}
	return f.err
}

func (f *faultFS) Create(path string) (atomicfile.File, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	f.calls = append(f.calls, call{op: "create", path: path})
	file, err := atomicfile.OS.Create(path)
	return &faultFile{f, file, path}, err
}

func (f *faultFS) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	f.calls = append(f.calls, call{op: "rename", path: from, to: to})
	return atomicfile.OS.Rename(from, to)
}

func (f *faultFS) SyncDir(dir string) error {
	if err := f.step(); err != nil {
		return err
	}
	f.calls = append(f.calls, call{op: "syncdir", path: dir})
	return atomicfile.OS.SyncDir(dir)
}

func (f *faultFS) Remove(path string) error {
	if err := f.step(); err != nil {
		return err
	}
	f.calls = append(f.calls, call{op: "remove", path: path})
	return atomicfile.OS.Remove(path)
}

type faultFile struct {
	fs   *faultFS
	file atomicfile.File
	path string
}

// Write is two calls of half the bytes each, so that a fault also falls in the middle.
func (f *faultFile) Write(b []byte) (n int, err error) {
	for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		if err := f.fs.step(); err != nil {
			return n, err
		}
		f.fs.calls = append(f.fs.calls, call{op: "write", path: f.path, data: slices.Clone(part)})
		k, err := f.file.Write(part)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f *faultFile) Sync() error {
	if err := f.fs.step(); err != nil {
		return err
	}
	f.fs.calls = append(f.fs.calls, call{op: "sync", path: f.path})
	return f.file.Sync()
}

func (f *faultFile) Close() error {
	err := f.fs.step()
	return errors.Join(err, f.file.Close())
}

// startFolder makes a folder in which step 2 is the newest; the next save deletes the oldest.
func startFolder(t *testing.T, keep int) Folder {
	t.Helper()
	f := Folder{Dir: t.TempDir(), Keep: keep}
	for i := range 2 {
		if _, err := f.Save(state(int64(i+1), 0)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// saveKilled saves step 3 and reports whether the process "died".
func saveKilled(f Folder) (path string, err error, killed bool) {
	defer func() {
		if r := recover(); r == errKilled {
			killed = true
		} else if r != nil {
			panic(r)
		}
	}()
	path, err = f.Save(state(3, 0))
	return path, err, false
}

// TestFaults makes every call in turn fail (the disk is full from half a write on) or be the last before the process dies.
func TestFaults(t *testing.T) {
	for _, keep := range []int{1, 2} {
		for _, fault := range []error{&os.PathError{Op: "write", Path: "disk", Err: syscall.ENOSPC}, nil} {
			at := 0
			for oneFault(t, keep, at, fault) {
				at++
			}
			if at != 8 { // create, write, write, sync, close, rename, flush the folder, remove
				t.Errorf("%d calls were tried, not 8", at)
			}
		}
	}
}

// oneFault reports whether the call was reached.
func oneFault(t *testing.T, keep, at int, fault error) bool {
	f := startFolder(t, keep)
	fs := &faultFS{at: at, err: fault}
	f.fsys = fs
	path, err, killed := saveKilled(f)
	if fs.n <= at {
		return false
	}
	what := fmt.Sprintf("call %d (%v), keeping %d", at, fault, keep)
	got, lerr := Latest(f.Dir)
	if lerr != nil {
		t.Fatalf("%s: %v", what, lerr)
	}
	check(t, got.State, got.Step)
	switch {
	case got.Step != 2 && got.Step != 3 || len(got.Skipped) > 0:
		t.Fatalf("%s: step %d is the newest, skipped %v", what, got.Step, got.Skipped)
	case killed != (fault == nil):
		t.Fatalf("%s: killed is %v", what, killed)
	case !killed && err == nil:
		t.Fatalf("%s: no error", what)
	case !killed && !strings.Contains(err.Error(), f.Dir):
		t.Fatalf("%s: %v does not name the file", what, err)
	case path != "" && got.Step != 3:
		t.Fatalf("%s: %s is said to be saved, but is not the newest", what, path)
	}
	// Once the trouble is over, the next save succeeds and clears up.
	f.fsys = nil
	if _, err := f.Save(state(4, 0)); err != nil {
		t.Fatalf("%s: afterwards: %v", what, err)
	}
	if got := names(t, f.Dir); !strings.Contains(got, "step-4") || strings.Count(got, "step") != keep {
		t.Fatalf("%s: afterwards there is %s", what, got)
	}
	return true
}

// TestPowerLoss plays a loss of power after every call. What was not flushed may then be lost or not: any subset of the folder's changes
// since its last flush, and of each file any of: what was flushed, half of the rest as zeros, everything. In all cases Latest finds
// the old or the new checkpoint whole, and once Save has returned it finds the new one.
func TestPowerLoss(t *testing.T) {
	for _, keep := range []int{1, 2} {
		powerLoss(t, startFolder(t, keep))
	}
}

func powerLoss(t *testing.T, f Folder) {
	before := map[string][]byte{}
	entries, _ := os.ReadDir(f.Dir)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(f.Dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		before[e.Name()] = b
	}
	fs := &faultFS{at: -1}
	f.fsys = fs
	if _, err := f.Save(state(3, 0)); err != nil {
		t.Fatal(err)
	}
	outcomes := 0
	for cut := range len(fs.calls) + 1 {
		for _, disk := range afterPowerLoss(before, fs.calls[:cut]) {
			outcomes++
			dir := t.TempDir()
			for name, content := range disk {
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Latest(dir)
			if err != nil {
				t.Fatalf("cut after call %d of %d: %v", cut, len(fs.calls), err)
			}
			check(t, got.State, got.Step)
			if len(got.Skipped) > 0 {
				t.Fatalf("cut after call %d of %d: a torn file under a checkpoint's name: %v", cut, len(fs.calls), got.Skipped)
			}
			if cut == len(fs.calls) && got.Step != 3 {
				t.Fatalf("Save had returned, but step %d is the newest", got.Step)
			}
		}
	}
	if outcomes < 40 {
		t.Errorf("only %d outcomes were tried", outcomes)
	}
}

// afterPowerLoss gives the folders that may be found again after the calls.
func afterPowerLoss(before map[string][]byte, calls []call) []map[string][]byte {
	type inode struct {
		flushed []byte
		written []byte
	}
	files := map[string]*inode{} // by the name at creation
	var pending []call           // changes of the folder since its last flush
	var done []call              // those before
	for _, c := range calls {
		switch c.op {
		case "create":
			files[c.path] = &inode{}
			pending = append(pending, c)
		case "write":
			files[c.path].written = append(files[c.path].written, c.data...)
		case "sync":
			files[c.path].flushed = slices.Clone(files[c.path].written)
		case "rename", "remove":
			pending = append(pending, c)
		case "syncdir":
			done, pending = append(done, pending...), nil
		}
	}
	var out []map[string][]byte
	for subset := range 1 << len(pending) {
		for variant := range 3 {
			applied := slices.Clone(done)
			for i, c := range pending {
				if subset>>i&1 == 1 {
					applied = append(applied, c)
				}
			}
			content := func(name string) []byte {
				f := files[name]
				switch variant {
				case 0:
					return f.flushed
				case 1:
					half := len(f.flushed) + (len(f.written)-len(f.flushed))/2
					return append(slices.Clone(f.flushed), make([]byte, half-len(f.flushed))...)
				}
				return f.written
			}
			disk := map[string][]byte{}
			for name, b := range before {
				disk[name] = b
			}
			for _, c := range applied {
				switch c.op {
				case "create":
					disk[filepath.Base(c.path)] = content(c.path)
				case "rename": // the new name may reach the disk although the creation under the old one has not
					delete(disk, filepath.Base(c.path))
					disk[filepath.Base(c.to)] = content(c.path)
				case "remove":
					delete(disk, filepath.Base(c.path))
				}
			}
			out = append(out, disk)
		}
	}
	return out
}
