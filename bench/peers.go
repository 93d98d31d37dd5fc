package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// program is how a peer is started. Every one speaks the protocol of peers/peer.py.
type program struct {
	name string
	file string   // a compiled program in peers/bin; "": peer.py
	caps []string // variables that hold it to AVX2
	free bool     // they do not, or not everywhere, and its kernels know AVX-512
	jobs bool     // it is several processes, of ranks.py, for the works of ranks alone
	mpi  bool     // which mpirun starts
}

// peerPrograms are all peers, in the order of the table's columns.
var peerPrograms = []program{
	{name: "torch-eager", caps: torchCaps},
	{name: "torch-channels-last", caps: torchCaps},
	{name: "torch-compile", caps: torchCaps},
	{name: "torch-int8", caps: torchCaps},
	{name: "torchao-pt2e", caps: torchCaps},
	{name: "torchao-dynamic", caps: torchCaps},
	{name: "torchao-weights", caps: torchCaps},
	{name: "neural-compressor", caps: torchCaps},
	// XLA's own code is held, the libraries that its products go to are not.
	{name: "jax", free: true, caps: []string{"XLA_FLAGS=--xla_cpu_max_isa=AVX2", "ONEDNN_MAX_CPU_ISA=AVX2"}},
	{name: "keras", caps: []string{"ONEDNN_MAX_CPU_ISA=AVX2", "XLA_FLAGS=--xla_cpu_max_isa=AVX2"}},
	{name: "openblas", caps: []string{"OPENBLAS_CORETYPE=Haswell"}},
	{name: "onnxruntime", free: true},
	{name: "onnxruntime-qdq", free: true},
	{name: "onnxruntime-qoperator", free: true},
	{name: "candle", file: "candle", free: true},
	{name: "burn", file: "burn", free: true},
	{name: "burn-cpu", file: "burn-cpu", free: true},
	{name: "gomlx", file: "gomlx"},
	{name: "ddp-gloo", caps: torchCaps, jobs: true},
	{name: "ddp-gloo-channels-last", caps: torchCaps, jobs: true},
	{name: "ddp-gloo-compile", caps: torchCaps, jobs: true},
	{name: "ddp-mpi", caps: torchCaps, jobs: true, mpi: true},
}

// torchCaps hold PyTorch's own kernels, oneDNN and MKL to AVX2, by the variables that they document.
var torchCaps = []string{"ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2", "MKL_ENABLE_INSTRUCTIONS=AVX2"}

// capsOf lists the variables that hold peers to AVX2.
func capsOf() []string {
	var out []string
	for _, p := range peerPrograms {
		for _, c := range p.caps {
			if !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// notItsWork is a peer's answer to a work that it has no program for.
const notItsWork = "not a work of this peer"

// Skip is a peer that was asked for and could not start.
type Skip struct {
	Peer   string `json:"peer"`
	Reason string `json:"reason"`
}

// peer is another framework's program, which runs works on request.
type peer struct {
	name, version string
	free          bool // not held to the instruction set that Joule is held to
	ranks         bool // Joule's
	cmd           *exec.Cmd
	in            io.WriteCloser
	out           *bufio.Scanner
	last          time.Duration // of an iteration of the work in hand; 0 before its first
	spent         time.Duration // on the work in hand
}

// wanted are the peers that o asks for: those of one process, or those of several.
func (o *Options) wanted(jobs bool) ([]program, error) {
	for _, n := range o.Only {
		if !slices.ContainsFunc(peerPrograms, func(p program) bool { return p.name == n }) {
			var known []string
			for _, p := range peerPrograms {
				known = append(known, p.name)
			}
			return nil, fmt.Errorf("bench: there is no peer %q; known: %s", n, strings.Join(known, ", "))
		}
	}
	var out []program
	for _, p := range peerPrograms {
		if p.jobs == jobs && (len(o.Only) == 0 || slices.Contains(o.Only, p.name)) {
			out = append(out, p)
		}
	}
	return out, nil
}

// python is the Python that has the peers installed.
func (o *Options) python() string {
	if o.Python != "" {
		return o.Python
	}
	return filepath.Join(o.Dir, ".venv", "bin", "python")
}

// command is the program of a peer, or the reason why there is none. ranks counts for peers of several processes alone.
func (o *Options) command(ctx context.Context, p program, threads, ranks int) (cmd *exec.Cmd, err error) {
	var argv []string
	if p.file == "" {
		if _, err := exec.LookPath(o.python()); err != nil {
			return nil, fmt.Errorf("there is no Python with the peers at %s: run %s, or say --python", o.python(), filepath.Join(o.Dir, "install.sh"))
		}
		file := "peer.py"
		if p.jobs {
			file = "ranks.py"
		}
		argv = []string{o.python(), filepath.Join(o.Dir, file), p.name}
	} else {
		bin := filepath.Join(o.Dir, "bin", p.file)
		if _, err := exec.LookPath(bin); err != nil {
			if why, err := os.ReadFile(bin + ".failed"); err == nil {
				return nil, errors.New(strings.TrimSpace(string(why)))
			}
			return nil, fmt.Errorf("there is no %s: run %s", bin, filepath.Join(o.Dir, "install.sh"))
		}
		argv = []string{bin, p.name}
	}
	argv = append(argv, fmt.Sprint(threads))
	if p.jobs {
		argv = append(argv, fmt.Sprint(ranks))
	}
	if p.mpi {
		if argv, err = o.launch(ranks, argv); err != nil {
			return nil, err
		}
	}
	cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = o.environment(p.caps)
	return cmd, nil
}

// environment is this process's, less the settings that an old OpenBLAS may need here, which would slow the peers down, and with the caps if there are to be any.
func (o *Options) environment(caps []string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "OPENBLAS_") {
			env = append(env, e)
		}
	}
	if o.capped() {
		env = append(env, caps...)
	}
	return env
}

// start starts a program that speaks the protocol and waits until it is ready.
func start(name string, cmd *exec.Cmd) (*peer, error) {
	p := &peer{name: name, cmd: cmd}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(stdout)
	p.out.Buffer(nil, 1<<24)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var hello struct{ Version, Error string }
	if err = p.read(&hello); err == nil && hello.Error != "" {
		err = errors.New(hello.Error)
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	p.version = hello.Version
	return p, nil
}

// startPeers starts the peers that o asks for. One that cannot start is left out, with a word in the log.
func startPeers(ctx context.Context, log io.Writer, o *Options) ([]*peer, []Skip, error) {
	programs, err := o.wanted(false)
	if err != nil {
		return nil, nil, err
	}
	var out []*peer
	var skipped []Skip
	for _, p := range programs {
		cmd, err := o.command(ctx, p, o.Threads, 1)
		var q *peer
		if err == nil {
			q, err = start(p.name, cmd)
		}
		if err == nil {
			q.free = o.capped() && p.free
		}
		if err != nil {
			fmt.Fprintf(log, "%s does not start: %s\n", p.name, err)
			skipped = append(skipped, Skip{p.name, err.Error()})
			continue
		}
		out = append(out, q)
	}
	if len(skipped) > 0 && len(out) == 0 {
		return nil, nil, fmt.Errorf("bench: no peer starts: %s: %s", skipped[0].Peer, skipped[0].Reason)
	}
	return out, skipped, nil
}

// figure is the peer's empty figure.
func (p *peer) figure() *Figure { return &Figure{Name: p.name, Version: p.version, Free: p.free} }

func (p *peer) read(to any) error {
	if !p.out.Scan() {
		return fmt.Errorf("it ended without an answer (%v)", p.out.Err())
	}
	return json.Unmarshal(p.out.Bytes(), to)
}

// answer is what a peer says to a request.
type answer struct {
	MS    []float64 `json:"ms"`
	RSS   int64     `json:"rss_bytes"`
	Error string    `json:"error"`
}

// ask lets a peer run a work.
func (p *peer) ask(w work, iters int) (answer, error) {
	r := Request{"iters": iters}
	for k, v := range w.request {
		r[k] = v
	}
	line, err := json.Marshal(r)
	if err == nil {
		_, err = fmt.Fprintf(p.in, "%s\n", line)
	}
	var a answer
	if err == nil {
		err = p.read(&a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a, err
}

// patience is how long a peer may take for a work in all before its turns end.
const patience = 15 * time.Second

// measure adds a turn at a work to f, unless the peer has taken too long already.
func (p *peer) measure(o *Options, w work, f *Figure) {
	if p.spent > patience {
		return
	}
	iters := 3
	if p.last > 0 {
		iters = o.runs(p.last, peerTurn, 1)
	} else if w.flops > 1e10 {
		iters = 1
	}
	began := time.Now()
	a, err := p.ask(w, iters)
	p.spent += time.Since(began)
	if err != nil {
		f.Error = err.Error()
		return
	}
	for _, ms := range a.MS {
		p.last = max(time.Microsecond, time.Duration(ms*1e6))
	}
	f.Values = append(f.Values, a.MS...)
}

func (p *peer) stop() {
	if p.ranks { // a launcher may keep the end of the input to itself
		fmt.Fprintln(p.in, lastLine)
	}
	p.in.Close()
	_ = p.cmd.Wait()
}
