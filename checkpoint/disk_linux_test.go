package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/tensor"
)

// mountTmpfs mounts a small file system in memory, or skips the test where that is not permitted.
func mountTmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("mounting a tmpfs needs root:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// survives saves s, which must fail and say the words, and the earlier step 7 must still be there, alone.
func survives(t *testing.T, f Folder, s *State, words string) {
	t.Helper()
	_, err := f.Save(s)
	if err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), f.Dir) {
		t.Errorf("%v, want %q and the path", err, words)
	}
	got, err := Latest(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got.State, 7)
	onlyFile(t, f.Dir)
}

func TestFullDisk(t *testing.T) {
	f := Folder{Dir: filepath.Join(mountTmpfs(t), "checkpoints")}
	if _, err := f.Save(state(7, 0)); err != nil {
		t.Fatal(err)
	}
	large := state(8, 0)
	large.Tensors = append(large.Tensors, safetensors.Named{Name: "large", Value: tensor.New(dtype.F32, 1<<17)})
	survives(t, f, large, "disk is full")
	if _, err := f.Save(state(9, 0)); err != nil {
		t.Errorf("a small one after the large one failed: %v", err)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	dir := mountTmpfs(t)
	f := Folder{Dir: filepath.Join(dir, "checkpoints")}
	if _, err := f.Save(state(7, 0)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skip("remounting:", err)
	}
	survives(t, f, state(8, 0), "read-only")
	_, err := Folder{Dir: filepath.Join(dir, "new")}.Save(state(8, 0))
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Error(err)
	}
}

func TestReadOnlyFolder(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere; TestReadOnlyFileSystem covers this")
	}
	f := Folder{Dir: t.TempDir()}
	if _, err := f.Save(state(7, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.Dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(f.Dir, 0o777) })
	survives(t, f, state(8, 0), "permission")
}
