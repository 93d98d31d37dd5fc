package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/jouleml/joule/backend/xla"
	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/data/mnist"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"joule": main})
}

// The scripts in testdata/script run the command as a user would, each in an empty folder.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			if p := os.Getenv(xla.PluginEnv); p != "" {
				e.Setenv("PLUGIN", p)
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "xla":
				return os.Getenv(xla.PluginEnv) != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"tinybert": tinyBERT, "weights": weights, "jsonfield": jsonField, "digit": digit, "truncate": truncate,
			"inrun": inRun, "rmrun": removeInRun, "reporthas": reportHas, "firsttwo": firstTwo,
		},
	})
}

// weights A B: the two model files hold the same bits (with !: they do not).
func weights(ts *testscript.TestScript, neg bool, args []string) {
	bits := func(pattern string) string {
		files, _ := filepath.Glob(ts.MkAbs(pattern))
		if len(files) != 1 {
			ts.Fatalf("%s is %d files", pattern, len(files))
		}
		s, err := checkpoint.Load(files[0])
		ts.Check(err)
		var b strings.Builder
		for _, t := range s.Tensors {
			b.WriteString(t.Name)
			b.Write(t.Value.Bytes())
		}
		return b.String()
	}
	if same := bits(args[0]) == bits(args[1]); same == neg {
		ts.Fatalf("the same bits: %v", same)
	}
}

// jsonfield NAME…: the last line of the output is an object with these fields, none of them null.
func jsonField(ts *testscript.TestScript, _ bool, args []string) {
	lines := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\n")
	var m map[string]any
	ts.Check(json.Unmarshal([]byte(lines[len(lines)-1]), &m))
	for _, a := range args {
		if m[a] == nil {
			ts.Fatalf("no %s in %s", a, lines[len(lines)-1])
		}
	}
}

// digit N FILE: writes the first MNIST test picture of that digit as PNG.
func digit(ts *testscript.TestScript, _ bool, args []string) {
	set, err := mnist.Load()
	ts.Check(err)
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	x, y := set.Spec().Tensors(1)
	for i := range set.Test.Len() {
		ts.Check(set.Test.Fill([]int{i}, x, y))
		if int(y[0].At(0)) != want {
			continue
		}
		img := image.NewGray(image.Rect(0, 0, 28, 28))
		for p := range 28 * 28 {
			img.SetGray(p%28, p/28, color.Gray{Y: uint8(x[0].At(p)*255 + 0.5)})
		}
		f, err := os.Create(ts.MkAbs(args[1]))
		ts.Check(err)
		ts.Check(png.Encode(f, img))
		ts.Check(f.Close())
		return
	}
	ts.Fatalf("no digit %d", want)
}

// truncate FILE N: cuts the last N bytes of the only file that the pattern matches.
func truncate(ts *testscript.TestScript, _ bool, args []string) {
	files, _ := filepath.Glob(ts.MkAbs(args[0]))
	if len(files) == 0 {
		ts.Fatalf("no file %s", args[0])
	}
	last := files[len(files)-1]
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	info, err := os.Stat(last)
	ts.Check(err)
	ts.Check(os.Truncate(last, info.Size()-int64(n)))
	ts.Setenv("CUT", filepath.Base(last))
	fmt.Fprintln(ts.Stdout(), "cut", last)
}

// newest is the folder of the newest run in ./runs.
func newest(ts *testscript.TestScript) string {
	dirs, _ := filepath.Glob(ts.MkAbs("runs/2*"))
	if len(dirs) == 0 {
		ts.Fatalf("no runs")
	}
	return dirs[len(dirs)-1]
}

// inrun PATTERN…: the newest run's folder has files of these names, with something in them.
func inRun(ts *testscript.TestScript, _ bool, args []string) {
	for _, a := range args {
		files, _ := filepath.Glob(filepath.Join(newest(ts), a))
		if len(files) == 0 {
			ts.Fatalf("the run has no %s", a)
		}
		for _, f := range files {
			if i, err := os.Stat(f); err != nil || i.Size() == 0 {
				ts.Fatalf("%s is empty", f)
			}
		}
	}
}

// rmrun NAME: removes a file from the newest run's folder.
func removeInRun(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.Remove(filepath.Join(newest(ts), args[0])))
}

// reporthas TEXT…: the newest run's report has every one of the texts (with !: none of them).
func reportHas(ts *testscript.TestScript, neg bool, args []string) {
	b, err := os.ReadFile(filepath.Join(newest(ts), reportFile))
	ts.Check(err)
	for _, a := range args {
		if strings.Contains(string(b), a) == neg {
			ts.Fatalf("%q in the report: %v", a, !neg)
		}
	}
}

// firsttwo COMMAND ARG…: runs the command with the ids of the two oldest runs behind its arguments.
func firstTwo(ts *testscript.TestScript, _ bool, args []string) {
	dirs, _ := filepath.Glob(ts.MkAbs("runs/2*"))
	ts.Check(ts.Exec(args[0], append(args[1:], filepath.Base(dirs[0]), filepath.Base(dirs[1]))...))
}
