package energy

import (
	"encoding/json"
	"testing"
	"time"
)

// Whatever a ledger's file says, it can be printed, added up and merged.
func FuzzLedger(f *testing.F) {
	l := NewLedger(CPU, 2)
	l.Book(Key{"dense", "dot", "forward"}, 3, time.Second, Cost{FLOPs: 1, Executed: 2, Read: 3, Written: 4}, true)
	l.Close(2*time.Second, nil)
	text, err := json.Marshal(l)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"lines":[{"layer":"a","cost":{"flops":-9223372036854775808},"energy":{"joules":1e308}},{"layer":"a","energy":{"joules":1e308}}],"energy":{"joules":null}}`))
	f.Add([]byte(`{"lines":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var a, b Ledger
		if json.Unmarshal(text, &a) != nil || json.Unmarshal(text, &b) != nil {
			return
		}
		a.Merge(&b)
		_ = a.Table()
		_ = a.By(func(k Key) Key { return Key{Phase: k.Phase} })
	})
}
