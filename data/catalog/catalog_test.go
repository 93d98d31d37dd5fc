package catalog

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/cifar"
)

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

// serve serves files by path, counts the requests, and makes the server the mirror.
func serve(t *testing.T, files map[string][]byte) *int {
	t.Helper()
	requests := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		b, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(b)
	}))
	t.Cleanup(s.Close)
	t.Setenv("JOULE_DATA_MIRROR", s.URL+"/base/")
	t.Setenv("JOULE_DATA_DIR", filepath.Join(t.TempDir(), "new"))
	return &requests
}

// tiny is a data set of two pictures to train and one to test, in the files of Fashion-MNIST.
func tiny() (*entry, map[string][]byte) {
	e := &entry{info: Info{Name: "tiny"}, open: func(dir string) (*data.Set, error) { return openIDX("tiny", dir, []string{"a", "b"}) }}
	files := map[string][]byte{}
	for name, b := range map[string][]byte{
		"train-images-idx3-ubyte.gz": {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 9},
		"train-labels-idx1-ubyte.gz": {0, 0, 8, 1, 0, 0, 0, 2, 0, 1},
		"t10k-images-idx3-ubyte.gz":  {0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 255},
		"t10k-labels-idx1-ubyte.gz":  {0, 0, 8, 1, 0, 0, 0, 1, 1},
	} {
		b = gz(b)
		files["/base/tiny/"+name] = b
		e.info.Files = append(e.info.Files, File{name, "http://official.invalid/" + name, int64(len(b)), sum(b)})
		e.need = append(e.need, name)
	}
	return e, files
}

func TestGet(t *testing.T) {
	e, files := tiny()
	requests := serve(t, files)
	if _, err := e.openHere(); err == nil || !strings.Contains(err.Error(), "`joule data get tiny` downloads it") {
		t.Errorf("before the download: %v", err)
	}
	last := int64(0)
	dir, err := e.get(context.Background(), func(done, total int64) {
		if done < last || total != e.info.Bytes() {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != e.info.Bytes() || *requests != 4 {
		t.Errorf("progress ends at %d of %d, after %d requests", last, e.info.Bytes(), *requests)
	}
	if e.where() != dir {
		t.Errorf("where is %q, not %q", e.where(), dir)
	}
	set, err := e.openHere()
	if err != nil {
		t.Fatal(err)
	}
	if set.Train.Len() != 2 || set.Test.Len() != 1 || set.Spec().Classes != 2 {
		t.Errorf("%d and %d pictures, %d classes", set.Train.Len(), set.Test.Len(), set.Spec().Classes)
	}
	// What is there is not fetched again; what is damaged is.
	if err := os.WriteFile(filepath.Join(dir, e.need[2]), []byte("damaged"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := e.get(context.Background(), nil); err != nil || *requests != 5 {
		t.Errorf("after damage: %v, %d requests", err, *requests)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("%v in the folder: %v", entries, err)
	}
}

func TestGetRefuses(t *testing.T) {
	for want, change := range map[string]func(files map[string][]byte, e *entry){
		"404 Not Found":         func(files map[string][]byte, _ *entry) { clear(files) },
		"its SHA-256 is":        func(_ map[string][]byte, e *entry) { e.info.Files[0].SHA256 = sum(nil) },
		"1 bytes came":          func(files map[string][]byte, e *entry) { files["/base/tiny/"+e.need[0]] = []byte{1} },
		"bytes came, ":          func(files map[string][]byte, e *entry) { files["/base/tiny/"+e.need[0]] = make([]byte, 1<<20) },
		"is no http or https":   func(map[string][]byte, *entry) { os.Setenv("JOULE_DATA_MIRROR", "ftp://x/") }, // serve restores it
		"connection refused":    func(map[string][]byte, *entry) { os.Setenv("JOULE_DATA_MIRROR", "http://127.0.0.1:1/") },
		"lacks some of nothing": func(_ map[string][]byte, e *entry) { e.need = []string{"nothing"} },
	} {
		e, files := tiny()
		serve(t, files)
		change(files, e)
		dir := filepath.Join(os.Getenv("JOULE_DATA_DIR"), "tiny")
		_, err := e.get(context.Background(), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v", want, err)
			continue
		}
		if strings.Contains(want, "came") && !errors.Is(err, errSum) {
			t.Errorf("%q: not errSum: %v", want, err)
		}
		if remedy := "into " + dir + " yourself"; !strings.Contains(want, "lacks") && !strings.Contains(want, "http") && !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: no remedy in %v", want, err)
		}
		left, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 && !strings.Contains(want, "lacks") {
			t.Errorf("%q: %v left behind: %v", want, left, err)
		}
	}
}

func TestGetCancel(t *testing.T) {
	e, files := tiny()
	serve(t, files)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.get(ctx, nil); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "yourself") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestGetUnpacks(t *testing.T) {
	record := make([]byte, 3074)
	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	w := tar.NewWriter(z)
	for _, name := range []string{"cifar-100-binary/train.bin", "../../evil.bin", "cifar-100-binary/test.bin", "cifar-100-binary/readme"} {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(record))})
		w.Write(record)
	}
	w.Close()
	z.Close()
	e := cifarEntry(cifar.Hundred, "", File{"c.tar.gz", "http://official.invalid/c.tar.gz", int64(archive.Len()), sum(archive.Bytes())})
	requests := serve(t, map[string][]byte{"/base/cifar100/c.tar.gz": archive.Bytes()})
	dir, err := e.get(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, f := range entries {
		names = append(names, f.Name())
	}
	if fmt.Sprint(names, *requests) != "[test.bin train.bin] 1" {
		t.Errorf("files %v after %d requests", names, *requests)
	}
	set, err := e.openHere()
	if err != nil || set.Train.Len() != 1 || set.Test.Len() != 1 {
		t.Errorf("opened: %v", err)
	}
}

func TestCatalog(t *testing.T) {
	names := map[string]bool{}
	for _, i := range List() {
		names[i.Name] = true
		if i.What == "" || i.Licence == "" || i.Home == "" || i.Train == 0 || i.Test == 0 {
			t.Errorf("%s: an empty field in %+v", i.Name, i)
		}
		for _, f := range i.Files {
			if len(f.SHA256) != 64 || f.Bytes == 0 || !strings.HasSuffix(f.URL, "/"+f.Name) && !strings.HasSuffix(f.URL, "/SHA256/"+f.SHA256) {
				t.Errorf("%s: file %+v", i.Name, f)
			}
		}
		if got, err := Find(i.Name); err != nil || got.Name != i.Name {
			t.Errorf("Find(%q): %v", i.Name, err)
		}
	}
	for _, n := range []string{"mnist", "fashion-mnist", "cifar10", "cifar100"} {
		if !names[n] {
			t.Errorf("%s is not listed", n)
		}
	}
	if dir, err := Get(context.Background(), "mnist", nil); dir != "embedded" || err != nil {
		t.Errorf("Get mnist: %q, %v", dir, err)
	}
	for _, f := range []func(string) error{
		func(n string) error { _, err := Find(n); return err },
		func(n string) error { _, err := Open(n); return err },
		func(n string) error { _, err := Get(context.Background(), n, nil); return err },
	} {
		if err := f("mnits"); err == nil || !strings.Contains(err.Error(), `"mnits", did you mean "mnist"?`) {
			t.Errorf("a mistyped name: %v", err)
		}
	}
}

// TestFashion reads the files of Debian's package dataset-fashion-mnist where that is installed, and compares every byte with what the
// official files hold.
func TestFashion(t *testing.T) {
	e, err := find("fashion-mnist")
	if err != nil {
		t.Fatal(err)
	}
	if !e.complete(e.system) {
		t.Skipf("no files in %s: install the package dataset-fashion-mnist", e.system)
	}
	want := map[string]string{ // of the files without their compression
		"train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
		"train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
		"t10k-images-idx3-ubyte.gz":  "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
		"t10k-labels-idx1-ubyte.gz":  "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
	}
	for _, name := range e.need {
		f, err := os.Open(filepath.Join(e.system, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		s := sha256.New()
		if _, err := io.Copy(s, z); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(s.Sum(nil)); got != want[name] {
			t.Errorf("%s holds other content: SHA-256 %s", name, got)
		}
	}
	t.Setenv("JOULE_DATA_DIR", t.TempDir())
	set, err := Open("fashion-mnist")
	if err != nil {
		t.Fatal(err)
	}
	if set.Train.Len() != 60000 || set.Test.Len() != 10000 {
		t.Errorf("%d and %d pictures", set.Train.Len(), set.Test.Len())
	}
	for _, part := range []data.Dataset{set.Train, set.Test} {
		labels, err := data.Labels(part)
		if err != nil {
			t.Fatal(err)
		}
		var count [10]int
		for _, c := range labels {
			count[c]++
		}
		for c, n := range count {
			if n != part.Len()/10 {
				t.Errorf("%d pictures of class %d among %d", n, c, part.Len())
			}
		}
	}
}

// TestAddress: the documentation of the mirror setting promises NAME/FILE.
func TestAddress(t *testing.T) {
	f := File{Name: "f.gz", URL: "http://official.invalid/f.gz"}
	for mirror, want := range map[string]string{"": f.URL, "https://m/a": "https://m/a/set/f.gz", "http://m:8/": "http://m:8/set/f.gz"} {
		t.Setenv("JOULE_DATA_MIRROR", mirror)
		if got, err := f.address("set"); got != want || err != nil {
			t.Errorf("mirror %q: %s, %v", mirror, got, err)
		}
	}
}

// userFiles makes folders of pictures and tables.
func userFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var pic bytes.Buffer
	if err := png.Encode(&pic, image.NewGray(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"t.csv":    []byte("a,b,kind\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n9,?,y\n"),
		"test.csv": []byte("a,b,kind\n1,2,y\n"),
		"t.tsv":    []byte("a\ty\n1\t2\n3\t4\n"),
		"t.dat":    []byte("text"),
	}
	for i := range 5 {
		for _, class := range []string{"cat", "dog"} {
			files[fmt.Sprintf("whole/%s/%d.png", class, i)] = pic.Bytes()
			files[fmt.Sprintf("parts/train/%s/%d.png", class, i)] = pic.Bytes()
			files[fmt.Sprintf("unlike/train/%s/%d.png", class, i)] = pic.Bytes()
			files[fmt.Sprintf("classes/train/%s/%d.png", class, i)] = pic.Bytes()
		}
		files["classes/bus/1.png"] = pic.Bytes()
		files["parts/val/cat/1.png"], files["parts/val/dog/1.png"] = pic.Bytes(), pic.Bytes()
		files["unlike/test/cow/1.png"] = pic.Bytes()
	}
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenPaths(t *testing.T) {
	dir := userFiles(t) + string(filepath.Separator)
	for name, want := range map[string]string{
		"folder:" + dir + "whole":                          "8 2 [2 3 3] 2 [cat dog]",
		dir + "whole?size=4x5&channels=1&split=0.4&seed=3": "6 4 [4 5 1] 2 [cat dog]",
		dir + "parts":   "10 2 [2 3 3] 2 [cat dog]",
		dir + "classes": "9 2 [2 3 3] 2 [bus train]",
		"csv:" + dir + "t.csv?missing=drop&split=0.5":                          "2 2 [2] 2 [x y]",
		dir + "t.csv?ignore=b&test=" + dir + "test.csv":                        "5 1 [1] 2 [x y]",
		dir + "t.csv?missing=impute&target=a&codes=yes":                        "4 1 [2] 0 []",
		dir + "t.csv?missing=drop&target=a&classify=yes&test=" + dir + "t.csv": "4 4 [3] 5 [1 3 5 7 9]",
		dir + "t.tsv?split=0.5":                                                "1 1 [1] 0 []",
		"csv:" + dir + "t.csv?header=no&ignore=2&split=0.34":                   "4 2 [6] 3 [kind x y]",
		"csv:" + dir + "t.tsv?comma=tab&split=0.5":                             "1 1 [1] 0 []",
	} {
		set, err := Open(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		spec := set.Spec()
		if got := fmt.Sprint(set.Train.Len(), set.Test.Len(), spec.Inputs[0].Shape, spec.Classes, spec.ClassNames); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if !slices.Equal(spec.ClassNames, set.Test.Spec().ClassNames) {
			t.Errorf("%s: the parts have different classes", name)
		}
	}
}

func TestOpenPathsRefuses(t *testing.T) {
	dir := userFiles(t) + string(filepath.Separator)
	for name, want := range map[string]string{
		dir + "none":                     "no such file",
		"none.csv":                       "no such file",
		"csv:none":                       "no such file",
		"folder:none":                    "no such file",
		dir + "t.dat":                    "no data set is called",
		dir + "unlike":                   "train has the classes cat, dog, but test has cow",
		dir + "t.csv?tarjet=a":           `unknown setting "tarjet", did you mean "target"? (known: target, classify`,
		dir + "whole?target=a":           `unknown setting "target"`,
		dir + "whole?size=4":             "size=4: must be HEIGHTxWIDTH",
		dir + "whole?size=0x4":           "size=0x4: must be HEIGHTxWIDTH",
		dir + "whole?channels=2":         "channels=2: must be one of 3, 1",
		dir + "whole?split=1.5":          "split=1.5: must be a number between 0 and 1",
		dir + "whole?split=0.001":        "making a test part",
		dir + "whole?seed=x":             "seed=x: must be a whole number",
		dir + "t.csv?missing=dropp":      `missing=dropp: must be one of refuse, drop, impute, did you mean "drop"?`,
		dir + "t.csv?comma=ab":           "comma=ab: must be one character",
		dir + "t.csv?%zz":                "invalid URL escape",
		dir + "t.csv":                    `line 6: column "b": no value`,
		dir + "t.csv?ignore=c":           `there is no column "c"`,
		dir + "t.csv?ignore=b&test=none": "none: no such file",
	} {
		if _, err := Open(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("mnist")
	f.Add("csv:none?target=a&missing=drop")
	f.Add("folder:none?size=3x4&split=0.1")
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ContainsAny(name, "/\\.") {
			return // stay inside the folder of the test
		}
		Open(name)
	})
}

func Example() {
	for _, i := range List() {
		fmt.Printf("%-13s %d + %d, %s\n", i.Name, i.Train, i.Test, i.What)
	}
	digits, err := Open("mnist")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(digits.Name, digits.Spec().Inputs[0].Shape)
	// Output:
	// mnist         60000 + 10000, handwritten digits, 28×28 grey, 10 classes
	// fashion-mnist 60000 + 10000, articles of clothing, 28×28 grey, 10 classes
	// opticks       3935 + 437, Newton's Opticks, 4th edition, characters
	// stocks        2586 + 653, daily prices and volumes of AAPL, IBM, MSFT
	// forda         3601 + 1320, engine noise, is the part faulty?
	// japanese-vowels 270 + 370, vowels of 9 speakers, 12 features
	// debian-en-de  33868 + 1506, package descriptions, English and German
	// debian-synopses 45543 + 1796, package descriptions and their synopses
	// debian-sections 48015 + 8121, which section a Debian package is in, by synopsis
	// cifar10       50000 + 10000, CIFAR-10: small photographs, 32×32 colour, 10 classes
	// cifar100      50000 + 10000, CIFAR-100: small photographs, 32×32 colour, 100 classes
	// mnist [28 28 1]
}

// A zip archive gives what is wanted of it, whatever folder that is in.
func TestUnzip(t *testing.T) {
	dir := t.TempDir()
	archive := filepath.Join(dir, "a.whl")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for name, text := range map[string]string{"x/y/wanted.ts": "data", "x/other.txt": "no", "../../evil.ts": "no"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := unpack(archive, dir, []string{"wanted.ts"}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "wanted.ts")); err != nil || string(b) != "data" {
		t.Errorf("%q %v", b, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("%v", files)
	}
	if err := os.WriteFile(archive, []byte("cut off"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := unpack(archive, dir, []string{"wanted.ts"}); err == nil || !strings.Contains(err.Error(), "a.whl") {
		t.Error(err)
	}
}
