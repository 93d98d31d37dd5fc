package mpi

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// role says what a process that mpirun has started is to do, folder where it leaves files for the other ranks.
const (
	role   = "JOULE_TEST_ROLE"
	folder = "JOULE_TEST_FOLDER"
)

func TestMain(m *testing.M) {
	if r := os.Getenv(role); r != "" {
		if err := roles[r](); err != nil {
			fmt.Fprintln(os.Stderr, "role", r+":", err)
			Exit(3)
		}
		Exit(0)
	}
	os.Exit(m.Run())
}

var roles = map[string]func() error{"collectives": collectives, "join": join, "hang": hang}

func join() error {
	t, err := Init()
	if err != nil {
		return err
	}
	fmt.Printf("rank %d of %d: %s\n", t.Rank(), t.Size(), t.Name())
	return t.Close()
}

// collectives runs every operation, with messages in several pieces, and checks results that each rank can compute.
func collectives() error {
	t, err := Init()
	if err != nil {
		return err
	}
	for _, pieces := range []int{1 << 30, 4096} {
		t.(*world).maxCount = pieces
		c := dist.New(t, time.Minute)
		n := c.Size()
		for _, size := range []int{1, 1000, 30000} {
			x, y := make([]float32, size), make([]float32, size)
			for i := range x {
				x[i] = float32(i%100 + c.Rank())
			}
			copy(y, x)
			if err := c.AllReduce(x); err != nil {
				return err
			}
			if err := c.SumAnyOrder(y); err != nil {
				return err
			}
			for i := range x {
				if want := float32(n*(i%100) + n*(n-1)/2); x[i] != want || y[i] != want {
					return fmt.Errorf("sum[%d] is %v and %v, want %v", i, x[i], y[i], want)
				}
			}
		}
		text, err := c.BroadcastText(n-1, slices.Repeat([]byte{byte(c.Rank())}, 10000))
		if err != nil || len(text) != 10000 || text[9999] != byte(n-1) {
			return fmt.Errorf("broadcast: %d bytes, %v", len(text), err)
		}
		all, err := dist.Gather(c, strings.Repeat("x", 100*c.Rank()))
		if err != nil {
			return err
		}
		for r, s := range all {
			if len(s) != 100*r {
				return fmt.Errorf("rank %d's text has %d letters", r, len(s))
			}
		}
		if err := c.Barrier(); err != nil {
			return err
		}
	}
	fmt.Printf("rank %d of %d is content\n", t.Rank(), t.Size())
	return t.Close()
}

// hang: rank 1 does nothing; the others must name it, and end the job.
func hang() error {
	t, err := Init()
	if err != nil {
		return err
	}
	c := dist.New(t, 5*time.Second)
	if c.Rank() == 1 {
		select {}
	}
	err = c.AllReduce(make([]float32, 5000))
	fmt.Fprintln(os.Stderr, "hang:", err)
	said := os.Getenv(folder)
	if err := os.WriteFile(filepath.Join(said, strconv.Itoa(c.Rank())), nil, 0o666); err != nil {
		return err
	}
	for range 600 { // until the other has said so too
		if exists(filepath.Join(said, "0")) && exists(filepath.Join(said, "2")) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(500 * time.Millisecond) // for the launcher to pass it on
	c.Abort(4)
	return err
}

func TestOperations(t *testing.T) {
	for i, m := range mpitest.All(t) {
		for _, n := range []string{"1", "2", "3", "4"} {
			out, err := m.Command(n, []string{role + "=collectives"}, os.Args[0]).CombinedOutput()
			if err != nil || strings.Count(string(out), "of "+n+" is content") != int(n[0]-'0') {
				t.Errorf("%s, %s ranks: %v\n%s", m.Name, n, err, out)
			}
		}
		machines := []string{"2", "aaab", "ab"}[i%3]
		out, err := m.Command("4", []string{role + "=collectives", "JOULE_DEBUG=machines=" + machines}, os.Args[0]).CombinedOutput()
		if err != nil || strings.Count(string(out), "of 4 is content") != 4 {
			t.Errorf("%s, machines=%s: %v\n%s", m.Name, machines, err, out)
		}
		// The standard's own interface, where the library has it.
		if lib := filepath.Join(filepath.Dir(filepath.Dir(m.Run)), "lib", "libmpi_abi.so.1"); exists(lib) {
			out, err := m.Command("3", []string{role + "=collectives", Variable + "=" + lib}, os.Args[0]).CombinedOutput()
			if err != nil || strings.Count(string(out), "of 3 is content") != 3 {
				t.Errorf("%s: %v\n%s", lib, err, out)
			}
		}
	}
}

func TestHungRank(t *testing.T) {
	for i, m := range mpitest.All(t) {
		out, err := m.Command("3", []string{role + "=hang", folder + "=" + t.TempDir(), "JOULE_DEBUG=machines=" + strconv.Itoa(1+i)}, os.Args[0]).CombinedOutput()
		said := strings.Count(string(out), "hang: dist:") - strings.Count(string(out), "role hang: dist:")
		if err == nil || said != 2 || !strings.Contains(string(out), "no sign of rank 1:") || strings.Contains(string(out), "no sign of rank 0") {
			t.Errorf("%s: %v\n%s", m.Name, err, out)
		}
	}
}

// A library that does not belong to the launcher is refused instead of every rank training alone.
func TestOtherLibrary(t *testing.T) {
	all := mpitest.All(t)
	tried := 0
	for _, m := range all {
		for _, other := range all {
			lib := library(other)
			if strings.Contains(m.Name, "MPICH") == strings.Contains(other.Name, "MPICH") || lib == "" {
				continue
			}
			tried++
			out, err := m.Command("2", []string{role + "=join", Variable + "=" + lib}, os.Args[0]).CombinedOutput()
			if err == nil || strings.Contains(string(out), "rank 0 of 1") {
				t.Errorf("%s with %s: %v\n%s", m.Name, lib, err, out)
			}
			if strings.Contains(m.Name, "MPICH") && !strings.Contains(string(out), "belong to different MPIs") {
				t.Errorf("%s with %s does not say what is wrong:\n%s", m.Name, lib, out)
			}
		}
	}
	if tried == 0 {
		t.Skip("needs the launchers of two different MPIs; there are ", all)
	}
}

// library is the library beside a launcher.
func library(m mpitest.MPI) string {
	for _, n := range []string{"libmpi.so.40", "libmpi.so.12"} {
		if p := filepath.Join(filepath.Dir(filepath.Dir(m.Run)), "lib", n); exists(p) {
			return p
		}
	}
	return ""
}

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env  string
		want launch
		ok   bool
	}{
		{"", launch{}, false},
		{"SLURM_NTASKS=8 SLURM_JOB_ID=3", launch{}, false}, // inside an allocation, but not started by srun
		{"OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_RANK=1", launch{"Open MPI", 4, 2}, true},
		{"PMI_SIZE=3 PMI_RANK=0 MPI_LOCALNRANKS=3", launch{"MPICH", 3, 3}, true},
		{"PMI_RANK=0 SLURM_STEP_NUM_TASKS=5 SLURM_NTASKS=9", launch{"MPICH", 5, 0}, true},
		{"PMIX_RANK=0 SLURM_NTASKS=9", launch{"", 9, 0}, true},
		{"PMI_SIZE=many", launch{"MPICH", 0, 0}, true},
	} {
		env := map[string]string{}
		for _, kv := range strings.Fields(c.env) {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
		if got, ok := launched(func(k string) string { return env[k] }); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v %v", c.env, got, ok)
		}
	}
	if c := (launch{family: "Open MPI"}).candidates("/x/libmpi.so", nil); !slices.Equal(c, []string{"/x/libmpi.so"}) {
		t.Errorf("an override is not the only candidate: %v", c)
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "lib"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(dir, "lib", "libmpi.so.12")
	if err := os.WriteFile(own, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if c := (launch{family: "MPICH"}).candidates("", []string{filepath.Join(dir, "bin")}); c[0] != own || c[1] != "libmpi.so.12" {
		t.Errorf("the library beside the launcher does not come first: %v", c)
	}
}

// What is no MPI is refused with its path, before anything of it is called.
func TestNoMPI(t *testing.T) {
	t.Setenv("OMPI_COMM_WORLD_SIZE", "2")
	t.Setenv(Variable, filepath.Join(t.TempDir(), "libnothing.so"))
	if _, err := Init(); err == nil || !strings.Contains(err.Error(), Variable) {
		t.Error(err)
	}
	t.Setenv("OMPI_COMM_WORLD_SIZE", "")
	if _, err := Init(); err == nil || !strings.Contains(err.Error(), "not started by mpirun") {
		t.Error(err)
	}
}
