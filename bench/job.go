package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
)

// jobs are the peers that train the main job with a program of their own, peers/job.py.
var jobs = []string{"torch-eager", "torch-channels-last", "keras"}

// job measures the main job for one epoch as a user meets it: from the start of a process to the end of the first step, to the end of the process, and the most memory.
func job(ctx context.Context, s *session, w work) ([]Row, error) {
	folder, err := os.MkdirTemp("", "joule-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	if len(s.o.Self) == 0 {
		return nil, errors.New("the command that is this program is not known, and this work starts it")
	}
	rows := []Row{
		{Work: w.name + ": start to first step", Group: w.group},
		{Work: w.name + ": start to end", Group: w.group},
		{Work: w.name, Group: w.group, Unit: Megabytes},
	}
	type contender struct {
		program
		argv []string
	}
	threads := fmt.Sprint(s.o.Threads)
	sides := []contender{{program{name: "joule"}, append(slices.Clone(s.o.Self), "train", "--epochs", "1", "--threads", threads, "--out", filepath.Join(folder, "runs"), "--json")}}
	if s.o.Peers {
		programs, err := s.o.wanted(false)
		if err != nil {
			return nil, err
		}
		for _, p := range programs {
			if !slices.Contains(jobs, p.name) {
				continue
			}
			if _, err := exec.LookPath(s.o.python()); err != nil {
				s.skip(p.name, err)
				continue
			}
			sides = append(sides, contender{p, []string{s.o.python(), filepath.Join(s.o.Dir, "job.py"), p.name, threads, folder}})
		}
		if err := writeDigits(folder); err != nil {
			return nil, err
		}
	}
	figs := make([][3]*Figure, len(sides))
	for i, d := range sides {
		for k := range figs[i] {
			figs[i][k] = &Figure{Name: d.name, Free: s.o.capped() && d.free}
		}
	}
	for range min(s.o.Rounds, 3) { // a round is whole trainings
		for i, d := range sides {
			f := &figs[i]
			if f[0].Error != "" {
				continue
			}
			cmd := exec.CommandContext(ctx, d.argv[0], d.argv[1:]...)
			if d.name != "joule" {
				cmd.Env = s.o.environment(d.caps)
			}
			got, err := process(cmd)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				if d.name == "joule" {
					return nil, err
				}
				f[0].Error = err.Error()
				f[1].Error, f[2].Error = notItsWork, notItsWork // said once
				continue
			}
			for k, v := range got.values {
				f[k].Version, f[k].Values = got.version, append(f[k].Values, v)
			}
		}
	}
	for i := range figs {
		for k := range rows {
			if i == 0 {
				rows[k].Joule = figs[i][k]
			} else {
				rows[k].Peers = append(rows[k].Peers, figs[i][k])
			}
		}
	}
	return rows, nil
}

// trained is what a whole process took.
type trained struct {
	values  [3]float64 // milliseconds to the end of the first step, milliseconds to the end, megabytes
	version string
}

// process runs a training.
func process(cmd *exec.Cmd) (got trained, err error) {
	began := time.Now()
	out, err := cmd.Output()
	end := time.Now()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
			err = fmt.Errorf("%w: %s", err, lines[len(lines)-1])
		}
		return got, err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var r struct {
		First   time.Time `json:"first_step_at"`
		RSS     float64   `json:"peak_rss_bytes"`
		Version string    `json:"version"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		return got, fmt.Errorf("its last line is no result: %w", err)
	}
	if r.First.Before(began) || r.First.After(end) || r.RSS <= 0 {
		return got, fmt.Errorf("its last line has no time of the first step or no memory: %s", lines[len(lines)-1])
	}
	return trained{[3]float64{r.First.Sub(began).Seconds() * 1e3, end.Sub(began).Seconds() * 1e3, r.RSS / 1e6}, r.Version}, nil
}

// writeDigits writes MNIST as the IDX files that other programs read, uncompressed, so that no peer spends time on unpacking.
func writeDigits(folder string) error {
	set, err := mnist.Load()
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		ds   data.Dataset
	}{{"train", set.Train}, {"t10k", set.Test}} {
		n := part.ds.Len()
		images := binary.BigEndian.AppendUint32(nil, 0x803)
		labels := binary.BigEndian.AppendUint32(nil, 0x801)
		for _, d := range []int{n, 28, 28} {
			images = binary.BigEndian.AppendUint32(images, uint32(d))
		}
		labels = binary.BigEndian.AppendUint32(labels, uint32(n))
		x, y := set.Spec().Tensors(1)
		for i := range n {
			if err := part.ds.Fill([]int{i}, x, y); err != nil {
				return err
			}
			for _, v := range x[0].F32() {
				images = append(images, uint8(v*255+0.5))
			}
			labels = append(labels, uint8(y[0].I32()[0]))
		}
		for name, b := range map[string][]byte{"-images-idx3-ubyte": images, "-labels-idx1-ubyte": labels} {
			if err := os.WriteFile(filepath.Join(folder, part.name+name), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
