// Package mpi joins the processes that mpirun has started: a dist.Transport over whatever MPI library the machine has, opened at run time, without cgo.
//
// Three families of binary interfaces are known: Open MPI 4 and 5 (libmpi.so.40), MPICH 3.4 to 5 and its relatives, such as Intel MPI and MVAPICH (libmpi.so.12, libmpich.so.12), and
// the standard interface of MPI 5.0 (libmpi_abi.so.1; MPI: A Message-Passing Interface Standard, version 5.0, 2025, chapter "Application Binary Interface"). The launcher's environment
// says which family it is; the library is looked for beside the launcher, then where the system's loader looks. JOULE_MPI=/path/to/libmpi.so decides otherwise.
//
// A launcher of one MPI and a library of another give no error: every process then believes that it is alone. Init compares the number of ranks with what the launcher says and
// refuses.
package mpi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/internal/dl"
)

// Variable names a library that is to be used whatever the launcher is.
const Variable = "JOULE_MPI"

const openMPI = "Open MPI"

// launch is what the environment says about how this process was started.
type launch struct {
	family string // "Open MPI", "MPICH"; "" unknown
	size   int    // of the job; 0 unknown
	local  int    // ranks on this machine; 0 unknown
}

// launched reads the environment: Open MPI sets OMPI_COMM_WORLD_*, Hydra (MPICH, Intel MPI) and Slurm's PMI sets PMI_*, and Slurm with PMIx PMIX_RANK and SLURM_*.
func launched(env func(string) string) (l launch, ok bool) {
	number := func(names ...string) int {
		for _, n := range names {
			if v, err := strconv.Atoi(env(n)); err == nil && v > 0 {
				return v
			}
		}
		return 0
	}
	switch {
	case env("OMPI_COMM_WORLD_SIZE") != "":
		return launch{openMPI, number("OMPI_COMM_WORLD_SIZE"), number("OMPI_COMM_WORLD_LOCAL_SIZE")}, true
	case env("PMI_SIZE") != "":
		return launch{"MPICH", number("PMI_SIZE"), number("MPI_LOCALNRANKS")}, true
	case env("PMI_RANK") != "":
		return launch{"MPICH", number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), 0}, true
	case env("PMIX_RANK") != "":
		return launch{"", number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), 0}, true
	}
	return launch{}, false
}

// Launched reports whether a launcher of an MPI has started this process.
func Launched() bool {
	_, ok := launched(os.Getenv)
	return ok
}

// LocalRanks is how many ranks the launcher says that it has started on this machine; 0 where it does not say.
func LocalRanks() int {
	l, _ := launched(os.Getenv)
	return l.local
}

// LocalRank is this process's number among those that the launcher has started on this machine, from 0; 0 where it does not say.
func LocalRank() int {
	for _, n := range []string{"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"} {
		if v, err := strconv.Atoi(os.Getenv(n)); err == nil && v > 0 {
			return v
		}
	}
	return 0
}

// candidates are the paths at which the library may be, best first. beside are folders of launchers.
func (l launch) candidates(override string, beside []string) []string {
	if override != "" {
		return []string{override}
	}
	names := map[string][]string{
		openMPI: {"libmpi.so.40", "libmpi.40.dylib"},
		"MPICH": {"libmpi.so.12", "libmpich.so.12", "libmpi.12.dylib", "libmpi_abi.so.1"},
	}
	own := names[l.family]
	if own == nil {
		own = append(append([]string{}, names[openMPI]...), names["MPICH"]...)
	}
	if l.family == openMPI {
		own = append(own, "libmpi_abi.so.1") // from 6.0 on
	}
	var out []string
	for _, dir := range beside {
		for _, lib := range []string{"lib", "lib64"} {
			for _, n := range own {
				if p := filepath.Join(filepath.Dir(dir), lib, n); exists(p) {
					out = append(out, p)
				}
			}
		}
	}
	return append(out, own...)
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// launchers are the folders of the process that started this one, and of the mpirun that the PATH gives.
func launchers() []string {
	var out []string
	if p, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", os.Getppid())); err == nil {
		out = append(out, filepath.Dir(p))
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if p, err := filepath.EvalSymlinks(filepath.Join(dir, "mpirun")); err == nil {
			return append(out, dir, filepath.Dir(p))
		}
	}
	return out
}

// abi is what differs between the families.
type abi struct {
	name                                                        string
	world, byteType, float, sum, errorsReturn, ignored, inPlace uintptr
	serialized                                                  int32
}

// Values of mpi.h of MPICH 5.0.2, the same since 3.1 (the MPICH ABI compatibility initiative), and of its mpi_abi.h, those of the standard.
var (
	mpich    = abi{"MPICH", 0x44000000, 0x4c00010d, 0x4c00040a, 0x58000003, 0x54000001, 1, ^uintptr(0), 2}
	standard = abi{"MPI-5 ABI", 0x101, 0x247, 0x210, 0x21, 0x143, 0, 1, 2048}
)

// detect finds a library's family: Open MPI's handles are the addresses of its variables.
func detect(lib *dl.Lib) (abi, error) {
	if _, err := lib.Sym("ompi_mpi_comm_world"); err == nil {
		a := abi{name: openMPI, inPlace: 1, serialized: 2}
		for name, to := range map[string]*uintptr{"ompi_mpi_comm_world": &a.world, "ompi_mpi_byte": &a.byteType, "ompi_mpi_float": &a.float, "ompi_mpi_op_sum": &a.sum, "ompi_mpi_errors_return": &a.errorsReturn} {
			if *to, err = lib.Sym(name); err != nil {
				return a, err
			}
		}
		return a, nil
	}
	if strings.Contains(filepath.Base(lib.Path()), "mpi_abi") {
		return standard, nil
	}
	if _, err := lib.Sym("MPI_Get_library_version"); err != nil {
		return abi{}, fmt.Errorf("mpi: %s is no MPI library: %w", lib.Path(), err)
	}
	return mpich, nil
}

// world is this process's place in the job.
type world struct {
	abi
	mu         *sync.Mutex // MPI_THREAD_SERIALIZED: one call at a time, also of what is left of a communicator that has lost ranks
	args       [12]uintptr // of the call: those of the caller would lie on the heap, and ranks that wait call thousands of times a step
	f          functions
	rank, size int
	version    string
	finish     chan struct{} // closed: finalize
	finished   chan error
	closed     bool
	shrunk     bool // ranks have died
	maxCount   int
	open       map[*request]bool // messages on their way: also one that nobody waits for any more must keep its memory
}

// functions are the addresses of what is called.
type functions struct {
	Init_thread, Finalize, Comm_rank, Comm_size, Comm_set_errhandler, Error_string, Get_library_version, Isend, Irecv, Test, Get_count, Iallreduce, Abort uintptr
	revoke, shrink, probe                                                                                                                                 uintptr // of ULFM, 0 where the library has none
}

// Init joins the job. It must be called once, early; the Transport's Close ends this process's part.
func Init() (dist.Transport, error) {
	l, ok := launched(os.Getenv)
	if !ok {
		return nil, errors.New("mpi: this process was not started by mpirun, mpiexec or srun")
	}
	lib, err := dl.OpenGlobal(l.candidates(os.Getenv(Variable), launchers())...)
	if err != nil {
		return nil, fmt.Errorf("mpi: no library for the launcher (%s) was found; %s=/path/to/libmpi.so names it: %w", l, Variable, err)
	}
	w, err := load(lib)
	if err != nil {
		return nil, err
	}
	if err := w.start(); err != nil {
		return nil, err
	}
	if l.size != 0 && l.size != w.size {
		err := fmt.Errorf("mpi: the launcher (%s) has started %d processes, but %s (%s) sees %d: launcher and library belong to different MPIs; use the mpirun that belongs to the library, or set %s to the launcher's libmpi",
			l, l.size, w.version, lib.Path(), w.size, Variable)
		_ = w.Close()
		return nil, err
	}
	return w, nil
}

func (l launch) String() string {
	if l.family == "" {
		return "an MPI with PMIx"
	}
	return l.family
}

func load(lib *dl.Lib) (*world, error) {
	a, err := detect(lib)
	if err != nil {
		return nil, err
	}
	w := &world{abi: a, mu: &sync.Mutex{}, finish: make(chan struct{}), finished: make(chan error, 1), maxCount: 1 << 30, open: map[*request]bool{}}
	for name, to := range map[string]*uintptr{
		"Init_thread": &w.f.Init_thread, "Finalize": &w.f.Finalize, "Comm_rank": &w.f.Comm_rank, "Comm_size": &w.f.Comm_size, "Comm_set_errhandler": &w.f.Comm_set_errhandler,
		"Error_string": &w.f.Error_string, "Get_library_version": &w.f.Get_library_version, "Isend": &w.f.Isend, "Irecv": &w.f.Irecv, "Test": &w.f.Test, "Get_count": &w.f.Get_count,
		"Iallreduce": &w.f.Iallreduce, "Abort": &w.f.Abort,
	} {
		if *to, err = lib.Sym("MPI_" + name); err != nil {
			return nil, fmt.Errorf("mpi: %w", err)
		}
	}
	if w.name == openMPI {
		if revoke, err := lib.Sym("MPIX_Comm_revoke"); err == nil {
			if shrink, err := lib.Sym("MPIX_Comm_shrink"); err == nil {
				if probe, err := lib.Sym("MPI_Iprobe"); err == nil {
					w.f.revoke, w.f.shrink, w.f.probe = revoke, shrink, probe
				}
			}
		}
	}
	return w, nil
}

// start initialises the library on a thread of its own, which later finalises it, as the standard asks.
func (w *world) start() error {
	begun := make(chan error)
	go func() {
		runtime.LockOSThread()
		begun <- w.initialize()
		<-w.finish
		w.finished <- w.check(w.call(w.f.Finalize), "MPI_Finalize")
	}()
	return <-begun
}

func (w *world) initialize() error {
	text, n := make([]byte, 8192+1), new(int32) // MPI_MAX_LIBRARY_VERSION_STRING is at most this
	if w.call(w.f.Get_library_version, dl.Pointer(&text[0]), dl.Pointer(n)) == 0 && *n >= 0 && int(*n) < len(text) {
		w.version = short(string(text[:*n]))
	}
	runtime.KeepAlive(text)
	provided := new(int32)
	if err := w.check(w.call(w.f.Init_thread, 0, 0, uintptr(w.serialized), dl.Pointer(provided)), "MPI_Init_thread"); err != nil {
		return err
	}
	atExit.Store(w.name != openMPI)
	if *provided < w.serialized {
		return fmt.Errorf("mpi: %s gives threads too little support (level %d, needed is MPI_THREAD_SERIALIZED)", w.version, *provided)
	}
	if err := w.check(w.call(w.f.Comm_set_errhandler, w.world, w.errorsReturn), "MPI_Comm_set_errhandler"); err != nil {
		return err
	}
	return w.place()
}

// place finds out rank and size.
func (w *world) place() error {
	rank, size := new(int32), new(int32)
	if err := w.check(w.call(w.f.Comm_rank, w.world, dl.Pointer(rank)), "MPI_Comm_rank"); err != nil {
		return err
	}
	if err := w.check(w.call(w.f.Comm_size, w.world, dl.Pointer(size)), "MPI_Comm_size"); err != nil {
		return err
	}
	w.rank, w.size = int(*rank), int(*size)
	return nil
}

// short is the first line of a version, as far as a person wants to read it.
func short(v string) string {
	v, _, _ = strings.Cut(v, "\n")
	v, _, _ = strings.Cut(v, ", package")
	return strings.TrimSpace(strings.ReplaceAll(strings.TrimRight(v, "\x00"), "\t", " "))
}

func (w *world) call(f uintptr, args ...uintptr) int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int32(dl.Call(f, w.args[:copy(w.args[:], args)]...))
}

func (w *world) check(code int32, what string) error {
	if code == 0 {
		return nil
	}
	if w.f.shrink != 0 && (code == errProcFailed || code == errProcFailedPending || code == errRevoked) {
		return fmt.Errorf("%s: %w (code %d)", what, dist.ErrLost, code)
	}
	text, n := make([]byte, 1024), new(int32)
	if w.call(w.f.Error_string, uintptr(code), dl.Pointer(&text[0]), dl.Pointer(n)) == 0 && *n >= 0 && int(*n) < len(text) {
		return fmt.Errorf("%s: %s (code %d)", what, strings.TrimSpace(string(text[:*n])), code)
	}
	return fmt.Errorf("%s: code %d", what, code)
}

func (w *world) Rank() int    { return w.rank }
func (w *world) Size() int    { return w.size }
func (w *world) Name() string { return w.version }

// request is a message, in as many pieces as 32-bit counts need.
type request struct {
	w       *world
	handles []uint64 // of the pieces that are not done; MPICH uses the lower half
	counts  []int    // what each piece of a receive must bring; nil for others
	memory  any      // keeps the message's memory
	what    string
	flag    *int32
	status  []uint64
}

// pieces calls f for each piece of p.
func (w *world) pieces(what string, p []byte, recv bool, f func(at uintptr, n int, handle *uint64) int32) (dist.Request, error) {
	r := &request{w: w, memory: p, what: what, flag: new(int32), status: make([]uint64, 16)}
	n := max(1, (len(p)+w.maxCount-1)/w.maxCount)
	r.handles = make([]uint64, n)
	for i := range n {
		piece := p[i*w.maxCount : min((i+1)*w.maxCount, len(p))]
		if recv {
			r.counts = append(r.counts, len(piece))
		}
		if err := w.check(f(dl.Pointer(unsafe.SliceData(piece)), len(piece), &r.handles[i]), what); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	w.open[r] = true
	w.mu.Unlock()
	return r, nil
}

func (w *world) Isend(to, tag int, p []byte) (dist.Request, error) {
	return w.pieces("MPI_Isend", p, false, func(at uintptr, n int, h *uint64) int32 {
		return w.call(w.f.Isend, at, uintptr(n), w.byteType, uintptr(to), uintptr(tag), w.world, dl.Pointer(h))
	})
}

func (w *world) Irecv(from, tag int, p []byte) (dist.Request, error) {
	return w.pieces("MPI_Irecv", p, true, func(at uintptr, n int, h *uint64) int32 {
		return w.call(w.f.Irecv, at, uintptr(n), w.byteType, uintptr(from), uintptr(tag), w.world, dl.Pointer(h))
	})
}

// Sum implements dist.Summer.
func (w *world) Sum(x []float32) (dist.Request, error) {
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
	return w.pieces("MPI_Iallreduce", raw, false, func(at uintptr, n int, h *uint64) int32 {
		return w.call(w.f.Iallreduce, w.inPlace, at, uintptr(n/4), w.float, w.sum, w.world, dl.Pointer(h))
	})
}

// Done implements dist.Request.
func (r *request) Done() (bool, error) {
	for len(r.handles) > 0 {
		last := len(r.handles) - 1
		status := r.w.ignored
		if r.counts != nil {
			status = dl.Pointer(&r.status[0])
		}
		if err := r.w.check(r.w.call(r.w.f.Test, dl.Pointer(&r.handles[last]), dl.Pointer(r.flag), status), r.what); err != nil {
			return false, err
		}
		if *r.flag == 0 {
			return false, nil
		}
		if r.counts != nil {
			n := new(int32)
			if err := r.w.check(r.w.call(r.w.f.Get_count, dl.Pointer(&r.status[0]), r.w.byteType, dl.Pointer(n)), "MPI_Get_count"); err != nil {
				return false, err
			}
			if int(*n) != r.counts[last] {
				return false, fmt.Errorf("a message of %d bytes came where %d were expected: the ranks do not do the same thing", *n, r.counts[last])
			}
			r.counts = r.counts[:last]
		}
		r.handles = r.handles[:last]
	}
	r.w.mu.Lock()
	delete(r.w.open, r)
	r.w.mu.Unlock()
	return true, nil
}

// Codes of mpi-ext.h of Open MPI 5.0.
const (
	errProcFailed        = 75
	errProcFailedPending = 76
	errRevoked           = 77
)

// Shrink implements dist.Shrinker, where the library has ULFM (User-Level Failure Mitigation; Bland et al., "Post-failure recovery of MPI communication capability", 2013) and the launcher was
// asked for it: mpirun --with-ft ulfm.
func (w *world) Shrink() (dist.Transport, error) {
	if w.f.shrink == 0 {
		return nil, fmt.Errorf("mpi: %s cannot go on without a rank", w.version)
	}
	w.call(w.f.revoke, w.world) // who still waits for somebody hears of it
	comm := new(uintptr)
	if err := w.check(w.call(w.f.shrink, w.world, dl.Pointer(comm)), "MPIX_Comm_shrink"); err != nil {
		return nil, fmt.Errorf("mpi: %w", err)
	}
	left := &world{abi: w.abi, mu: w.mu, f: w.f, version: w.version, finish: w.finish, finished: w.finished, maxCount: w.maxCount, open: w.open, shrunk: true}
	left.world = *comm
	if err := w.check(w.call(w.f.Comm_set_errhandler, left.world, w.errorsReturn), "MPI_Comm_set_errhandler"); err != nil {
		return nil, fmt.Errorf("mpi: %w", err)
	}
	return left, left.place()
}

// anyTag is MPI_ANY_TAG of Open MPI, whose ULFM it is that is asked.
const anyTag = ^uintptr(0)

// Watch implements dist.Watcher: looking for a message of a rank that has died is an error under ULFM. Elsewhere the launcher ends the job.
func (w *world) Watch(rank int) error {
	if w.f.probe == 0 {
		return nil
	}
	flag := new(int32)
	return w.check(w.call(w.f.probe, uintptr(rank), anyTag, w.world, dl.Pointer(flag), w.ignored), "MPI_Iprobe")
}

// Abort implements dist.Transport.
func (w *world) Abort(code int) { w.call(w.f.Abort, w.world, uintptr(code)) }

// farewell is how long ranks that went on without another wait for MPI_Finalize.
const farewell = 3 * time.Second

// Close implements dist.Transport: MPI_Finalize. After a rank has died, Open MPI's may wait for it for ever (open-mpi/ompi#11404); the process then ends without it.
func (w *world) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	close(w.finish)
	if !w.shrunk {
		return <-w.finished
	}
	select {
	case err := <-w.finished:
		return err
	case <-time.After(farewell):
		return nil
	}
}

// atExit is set once a library has been initialised that says farewell to its launcher in C's exit handlers, as MPICH's do.
var atExit atomic.Bool

// Exit ends the process, in place of os.Exit: where the MPI library wants it, through C's exit, whose handlers tell the launcher that this rank has ended in order. Without that
// Hydra takes the rank for crashed and kills the others.
func Exit(code int) {
	if atExit.Load() {
		if c, err := dl.Open("libc.so.6", "libSystem.B.dylib"); err == nil {
			if exit, err := c.Sym("exit"); err == nil {
				dl.Call(exit, uintptr(code))
			}
		}
	}
	os.Exit(code)
}
