package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// peerNames are the peers that peers/peer.py can be.
var peerNames = []string{"torch-eager", "torch-channels-last", "torch-compile", "jax", "keras", "openblas", "onnxruntime"}

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
	cmd           *exec.Cmd
	in            io.WriteCloser
	out           *bufio.Scanner
}

// startPeers starts the peers that o asks for. One that cannot start is left out, with a word in the log.
func startPeers(ctx context.Context, log io.Writer, o Options) ([]*peer, []Skip, error) {
	python := o.Python
	if python == "" {
		python = filepath.Join(o.Dir, ".venv", "bin", "python")
	}
	if _, err := exec.LookPath(python); err != nil {
		return nil, nil, fmt.Errorf("bench: no Python with the peers at %s: run %s/install.sh, or say --python", python, o.Dir)
	}
	var out []*peer
	var skipped []Skip
	for _, name := range peerNames {
		if len(o.Only) > 0 && !slices.Contains(o.Only, name) {
			continue
		}
		p := &peer{name: name, cmd: exec.CommandContext(ctx, python, filepath.Join(o.Dir, "peer.py"), name, fmt.Sprint(o.Threads))}
		for _, e := range os.Environ() { // settings of an old OpenBLAS would slow the peers down
			if !strings.HasPrefix(e, "OPENBLAS_") {
				p.cmd.Env = append(p.cmd.Env, e)
			}
		}
		p.cmd.Stderr = io.Discard
		var err error
		if p.in, err = p.cmd.StdinPipe(); err != nil {
			return nil, nil, err
		}
		stdout, err := p.cmd.StdoutPipe()
		if err != nil {
			return nil, nil, err
		}
		p.out = bufio.NewScanner(stdout)
		p.out.Buffer(nil, 1<<24)
		if err := p.cmd.Start(); err != nil {
			return nil, nil, fmt.Errorf("bench: %w", err)
		}
		var hello struct{ Version, Error string }
		if err := p.read(&hello); err != nil || hello.Error != "" {
			reason := hello.Error
			if err != nil {
				reason = err.Error()
			}
			fmt.Fprintf(log, "%s does not start: %s\n", name, reason)
			skipped = append(skipped, Skip{name, reason})
			p.stop()
			continue
		}
		p.version = hello.Version
		out = append(out, p)
	}
	return out, skipped, nil
}

func (p *peer) read(to any) error {
	if !p.out.Scan() {
		return fmt.Errorf("it ended without an answer (%v)", p.out.Err())
	}
	return json.Unmarshal(p.out.Bytes(), to)
}

// measure adds one round of a work to f.
func (p *peer) measure(w work, iters int, f *Figure) {
	w.request["iters"] = iters
	line, err := json.Marshal(w.request)
	if err == nil {
		_, err = fmt.Fprintf(p.in, "%s\n", line)
	}
	var answer struct {
		MS    []float64
		RSS   int64 `json:"rss_bytes"`
		Error string
	}
	if err == nil {
		err = p.read(&answer)
	}
	switch {
	case err != nil:
		f.Error = err.Error()
	case answer.Error != "":
		f.Error = answer.Error
	default:
		f.MS, f.RSS = append(f.MS, answer.MS...), answer.RSS
	}
}

func (p *peer) stop() {
	p.in.Close()
	_ = p.cmd.Wait()
}
