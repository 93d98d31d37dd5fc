package table

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
)

func text(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// show prints the input and target of every row.
func show(t testing.TB, ds data.Dataset) string {
	t.Helper()
	idx := make([]int, ds.Len())
	for i := range idx {
		idx[i] = i
	}
	x, y := ds.Spec().Tensors(len(idx))
	if err := ds.Fill(idx, x, y); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(x[0], y[0], ds.Spec().ClassNames)
}

const flowers = `size, colour ,"wet, or not",kind
1.5,red,yes,rose
-2e1,"blue",no,"lily ""white"""
3,red,no,rose
`

func TestOpen(t *testing.T) {
	for name, c := range map[string]struct {
		csv  string
		cfg  Config
		want string
	}{
		"one-hot":         {flowers, Config{}, `f32[3 5][1.5 0 1 0 1 -20 1 0 1 0 3 0 1 1 0] i32[3][1 0 1] [lily "white" rose]`},
		"codes":           {flowers, Config{Codes: true}, `f32[3 3][1.5 1 1 -20 0 0 3 1 0] i32[3][1 0 1] [lily "white" rose]`},
		"target":          {flowers, Config{Target: "size", Columns: map[string]Kind{"kind": Ignore, "wet, or not": Ignore}}, `f32[3 2][0 1 1 0 0 1] f32[3 1][1.5 -20 3] []`},
		"classes of size": {flowers, Config{Target: "size", Classify: true, Codes: true}, `f32[3 3][1 1 1 0 0 0 1 0 1] i32[3][1 0 2] [-2e1 1.5 3]`},
		"forced category": {"a,y\n10,1\n9,2\n", Config{Columns: map[string]Kind{"a": Category}}, `f32[2 2][0 1 1 0] f32[2 1][1 2] []`},
		"no header":       {"1,2\n3,4\n", Config{NoHeader: true, Target: "1"}, `f32[2 1][2 4] f32[2 1][1 3] []`},
		"semicolon":       {"a;y\n1;2\n", Config{Comma: ';'}, `f32[1 1][1] f32[1 1][2] []`},
		"byte order mark": {"\ufeffa,y\n1,2\n", Config{Target: "a"}, `f32[1 1][2] f32[1 1][1] []`},
		"crlf":            {"a,y\r\n1,2\r\n", Config{}, `f32[1 1][1] f32[1 1][2] []`},
		"drop":            {"a,b,y\n1,u,2\n?,u,3\n4,NA,5\n6,v,\n7,u,8\n", Config{Missing: Drop}, `f32[2 3][1 1 0 7 1 0] f32[2 1][2 8] []`},
		"impute":          {"a,b,y\n1,u,2\n?,u,3\n4,NaN,5\n6,v,null\n", Config{Missing: Impute}, `f32[3 4][1 1 0 0 3.6666667461395264 1 0 0 4 0 0 1] f32[3 1][2 3 5] []`},
	} {
		ds, err := open("f.csv", text(c.csv), c.cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := show(t, ds); got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
}

func TestColumns(t *testing.T) {
	ds, err := open("f.csv", text("a,b,c,y\n1,u,p,2\n?,u,q,3\n4,v,r,5\n"), Config{Missing: Drop, Columns: map[string]Kind{"c": Ignore}, Classify: true})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, c := range ds.Columns {
		got += fmt.Sprint(c.Name, c.Kind, c.Categories, c.Mean, " ")
	}
	if want := "a1 [] 2.5 b2 [u v] 0 c3 [] 0 y2 [2 3 5] 0 "; got != want {
		t.Errorf("columns %s, want %s", got, want)
	}
	if ds.Dropped != 1 || ds.Target != 3 || ds.Label(1) != 2 {
		t.Errorf("dropped %d, target %d, label %d", ds.Dropped, ds.Target, ds.Label(1))
	}
}

func TestOpenLike(t *testing.T) {
	file := func(s string) string {
		path := filepath.Join(t.TempDir(), "test.csv")
		if err := os.WriteFile(path, []byte(s), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	train, err := open("f.csv", text(flowers), Config{})
	if err != nil {
		t.Fatal(err)
	}
	test, err := train.OpenLike(file("size,colour,\"wet, or not\",kind\n9,blue,yes,rose\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := show(t, test); got != `f32[1 5][9 1 0 0 1] i32[1][1] [lily "white" rose]` {
		t.Error(got)
	}
	for want, s := range map[string]string{
		`line 1: the columns are size, kind, not the 4`:                  "size,kind\n1,rose\n",
		`line 3: column "colour": "green" is none of the 2 categories`:   "size,colour,\"wet, or not\",kind\n9,blue,yes,rose\n9,green,yes,rose\n",
		`line 2: column "size": "big" is no finite number`:               "size,colour,\"wet, or not\",kind\nbig,blue,yes,rose\n",
		`line 2: column "kind": "oak" is none of the 2 categories`:       "size,colour,\"wet, or not\",kind\n9,blue,yes,oak\n",
		`line 2: column "colour": no value (drop such rows or let the v`: "size,colour,\"wet, or not\",kind\n9,,yes,rose\n",
		`test.csv: no rows`: "size,colour,\"wet, or not\",kind\n",
	} {
		if _, err := train.OpenLike(file(s)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v", want, err)
		}
	}
	lenient, err := open("f.csv", text(flowers), Config{Missing: Impute})
	if err != nil {
		t.Fatal(err)
	}
	if test, err = lenient.OpenLike(file("size,colour,\"wet, or not\",kind\n,green,yes,rose\n9,red,no,oak\n")); err != nil {
		t.Fatal(err)
	}
	if got := show(t, test); got != `f32[1 7][-5.166666507720947 0 0 1 0 1 0] i32[1][1] [lily "white" rose]` {
		t.Error(got)
	}
	if _, err := lenient.OpenLike(file("size,colour,\"wet, or not\",kind\nbig,red,yes,rose\n")); err == nil {
		t.Error("a word in a column of numbers is imputed")
	}
}

func TestOpenRefuses(t *testing.T) {
	wide := "id,y\n"
	for i := range maxWidth + 1 {
		wide += fmt.Sprintf("n%d,1\n", i)
	}
	two := "a,b,y\n"
	for i := range maxWidth/2 + 1 {
		two += fmt.Sprintf("n%d,m%d,1\n", i, i)
	}
	for want, c := range map[string]struct {
		csv string
		cfg Config
	}{
		"f.csv: line 1: the file is empty":                                {"", Config{}},
		"f.csv: no rows":                                                  {"a,y\n", Config{}},
		"line 3: 3 columns, the lines before have 2":                      {"a,y\n1,2\n1,2,3\n", Config{}},
		`parse error on line 2, column 2`:                                 {"a,y\n1\"2,3\n", Config{}},
		`line 3: column "a": "x" is no finite number`:                     {"a,y\n1,2\nx,3\n", Config{Columns: map[string]Kind{"a": Number}}},
		`line 2: column "a": "1e60" is no finite number`:                  {"a,y\n1e60,2\n", Config{Columns: map[string]Kind{"a": Number}}},
		`line 2: column "a": no value`:                                    {"a,y\n,2\n", Config{}},
		`line 3: column "y": no value`:                                    {"a,y\n1,2\n1,\n", Config{}},
		`line 1: there is no column "z" to predict (columns: a, y)`:       {"a,y\n1,2\n", Config{Target: "z"}},
		`line 1: there is no column "z" (columns: a, y)`:                  {"a,y\n1,2\n", Config{Columns: map[string]Kind{"z": Number}}},
		`line 1: two columns are called "a"`:                              {"a,a\n1,2\n", Config{}},
		`both ignored and to be predicted`:                                {"a,y\n1,2\n", Config{Columns: map[string]Kind{"y": Ignore}}},
		`no column is left to predict "y" from`:                           {"y\n1\n", Config{}},
		`column "id" has more than 16384 different values`:                {wide, Config{}},
		`column "b": an example would have more than 16384`:               {two, Config{}},
		`no rows (2 left out for missing values)`:                         {"a,y\n,1\n1,\n", Config{Missing: Drop}},
		"f.csv: csv: invalid field or comment delimiter":                  {"a,y\n", Config{Comma: '"'}},
		`f.csv: line 2: 1 columns, the lines before have 2: wrong number`: {"a,y\n1\n", Config{}},
	} {
		_, err := open("f.csv", text(c.csv), c.cfg)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "f.csv") {
			t.Errorf("%q: error %v", want, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.csv"), Config{}); err == nil || !strings.Contains(err.Error(), "none.csv") {
		t.Errorf("no file: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(flowers, byte(0))
	f.Add("a,b,y\n1,u,2\n?,u,3\n4,NA,5\n6,v,\n", byte(1))
	f.Add("a,b,y\n1,u,2\n?,u,3\n4,NA,5\n6,v,\n", byte(2))
	f.Add("1,2\n3,4\n", byte(0x1c))
	f.Add("\ufeff\"a\";y\n1;NaN\n", byte(0x20))
	f.Fuzz(func(t *testing.T, s string, bits byte) {
		cfg := Config{Missing: Missing(bits % 3), NoHeader: bits&4 != 0, Classify: bits&8 != 0, Codes: bits&16 != 0}
		if bits&32 != 0 {
			cfg.Comma = ';'
		}
		ds, err := open("f", text(s), cfg)
		if err != nil {
			return
		}
		idx := make([]int, ds.Len())
		x, y := ds.Spec().Tensors(len(idx))
		for i := range idx {
			idx[i] = i
		}
		if err := ds.Fill(idx, x, y); err != nil {
			t.Fatal(err)
		}
		for i, v := range x[0].F32() {
			if v != v || v-v != 0 {
				t.Fatalf("value %d is %v", i, v)
			}
		}
	})
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "flowers.csv")
	os.WriteFile(path, []byte("petal,colour,kind\n1.5,red,rose\n4,white,lily\n"), 0o666)

	flowers, err := Open(path, Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	x, y := flowers.Spec().Tensors(2)
	if err := flowers.Fill([]int{0, 1}, x, y); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(x[0].F32(), y[0].I32(), flowers.Spec().ClassNames)
	// Output: [1.5 1 0 4 0 1] [1 0] [lily rose]
}
