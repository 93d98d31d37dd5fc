package runs

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// childEnv makes the test binary, run again as a child, do what its value says in the folder that childRoot names.
const (
	childEnv  = "JOULE_RUNS_TEST_CHILD"
	childRoot = "JOULE_RUNS_TEST_ROOT"
)

const runsPerChild = 4

func TestMain(m *testing.M) {
	s := Open(os.Getenv(childRoot))
	var err error
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "begin":
		err = begin(s)
	case "many":
		for i := 0; i < runsPerChild && err == nil; i++ {
			err = oneRun(s)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// begin starts a run and never ends it.
func begin(s *Store) error {
	r, err := s.Create(Info{Name: "killed"})
	if err == nil {
		err = r.Append(epoch(1, 0.5))
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

func oneRun(s *Store) error {
	r, err := s.Create(Info{Name: "child"})
	if err != nil {
		return err
	}
	for e := range int64(3) {
		if err := r.Append(epoch(e+1, 0.5)); err != nil {
			return err
		}
	}
	return r.Finish(Outcome{State: Done, Results: Values{"pid": float64(os.Getpid())}})
}

func child(what, root string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childEnv+"="+what, childRoot+"="+root)
	return c
}

// TestKilled: a run whose process is killed is Interrupted, in the index too, and can be taken up.
func TestKilled(t *testing.T) {
	s := Open(t.TempDir())
	c := child("begin", s.Root())
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		t.Fatal(line, err)
	}
	if l := must(s.List(Query{}))(t); l.Runs[0].State != Running {
		t.Errorf("%+v", l)
	}
	if _, err := s.Resume("last"); err == nil {
		t.Error("another process's run was taken up")
	}
	c.Process.Kill()
	c.Wait()
	if l := must(s.List(Query{State: Interrupted}))(t); len(l.Runs) != 1 {
		t.Errorf("%+v", must(s.List(Query{}))(t))
	}
	r := must(s.Resume("last"))(t)
	if err := r.Append(epoch(2, 0.25)); err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(Outcome{State: Done}); err != nil {
		t.Fatal(err)
	}
	i := must(s.Get("last"))(t)
	if h := must(i.History())(t); i.State != Done || len(h.Rows) != 2 {
		t.Errorf("%+v %+v", i, h)
	}
}

// TestProcesses: many processes end runs at once while others list; nothing is lost and the index stays whole.
func TestProcesses(t *testing.T) {
	const children = 6
	s := Open(t.TempDir())
	var wg sync.WaitGroup
	for range children {
		wg.Go(func() {
			if out, err := child("many", s.Root()).CombinedOutput(); err != nil {
				t.Errorf("%s: %v", out, err)
			}
		})
	}
	done := make(chan bool)
	go func() { wg.Wait(); close(done) }()
	for listing := true; listing; {
		select {
		case <-done:
			listing = false
		default:
		}
		l, err := s.List(Query{})
		if err != nil || len(l.Problems) > 0 {
			t.Fatal(l, err)
		}
	}
	l := must(s.List(Query{State: Done, Sort: "pid"}))(t)
	if len(l.Runs) != children*runsPerChild {
		t.Errorf("%d runs, want %d", len(l.Runs), children*runsPerChild)
	}
	x := must(s.openIndex())(t)
	defer x.Close()
	for query, want := range map[string]string{
		"PRAGMA integrity_check":       "ok",
		"SELECT count(*) FROM epochs":  fmt.Sprint(children * runsPerChild * 9),
		"SELECT count(*) FROM results": fmt.Sprint(children * runsPerChild),
	} {
		var got string
		if err := x.QueryRow(query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", query, got, err, want)
		}
	}
}
