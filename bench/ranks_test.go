package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// A step on several ranks is measured beside a peer of several processes, and beside Joule in one process and on ranks that do not wait for each other; under every MPI.
func TestRanks(t *testing.T) {
	for _, m := range mpitest.All(t) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Works: []string{"ranks 2, train_cnn"}, Peers: true, Dir: t.TempDir(), Python: self, Only: []string{"ddp-gloo"}, Rounds: 1, Threads: 2, Self: []string{self}, Launcher: m.Run, JSON: true}
		var out, log bytes.Buffer
		if err := Run(context.Background(), &out, &log, o); err != nil {
			t.Fatalf("%s: %v\n%s", m.Name, err, log.String())
		}
		var r Report
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.MPI == "" || len(r.Rows) != 4 {
			t.Fatalf("%s: %s", m.Name, out.String())
		}
		for i, against := range []string{"ddp-gloo", "joule without sums", "joule in one process", "ddp-gloo"} {
			w := r.Rows[i]
			if !w.Joule.ok() || w.Against != against || len(w.Peers) != 1 {
				t.Errorf("%s: %+v", m.Name, w)
			}
		}
		if f := r.Rows[0].Peers[0]; f.Median() != 8 { // threads 2 shared by two ranks
			t.Errorf("%+v", f)
		}
		if mb := r.Rows[3].Joule.Median(); mb < 10 || mb > 2000 || r.Rows[3].Peers[0].Median() != 5 {
			t.Errorf("%s: %g MB", m.Name, mb)
		}
	}
	o := Options{Works: []string{"ranks 2, train_cnn"}, Rounds: 1, Threads: 2, Self: []string{"none"}, Launcher: "no-such-launcher"}
	if err := Run(context.Background(), &bytes.Buffer{}, &bytes.Buffer{}, o); err == nil || !strings.Contains(err.Error(), "--launcher") {
		t.Errorf("%v", err)
	}
}
