// Package cifar reads the binary versions of CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning multiple layers of features from tiny images",
// 2009): 32×32 colour pictures in 10 or 100 classes, 50,000 to train and 10,000 to test.
//
// A file is records one after another: a byte with the class (in CIFAR-100 two bytes, the coarse class and the fine one), then 3072 bytes,
// a red, a green and a blue plane of 32 rows of 32.
package cifar

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/shape"
)

// Version is which of the two data sets a file belongs to.
type Version struct {
	Name        string
	Train, Test []string // the names of the files of both parts
	ClassNames  []string

	head int // bytes before the pixels
	fine int // which of them is the class
}

// Ten is CIFAR-10.
var Ten = &Version{
	Name:       "cifar10",
	Train:      []string{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
	Test:       []string{"test_batch.bin"},
	ClassNames: []string{"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"},
	head:       1,
}

// Hundred is CIFAR-100 with its fine classes.
var Hundred = &Version{
	Name:  "cifar100",
	Train: []string{"train.bin"},
	Test:  []string{"test.bin"},
	ClassNames: []string{
		"apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
		"bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
		"chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
		"dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
		"lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
		"mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
		"plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
		"rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
		"squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
		"train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
	},
	head: 2, fine: 1,
}

const (
	side   = 32
	plane  = side * side
	pixels = 3 * plane
)

// Open reads both parts from the folder that holds the files named in v.
func Open(dir string, v *Version) (*data.Set, error) {
	train, err := Read(v, under(dir, v.Train)...)
	if err != nil {
		return nil, err
	}
	test, err := Read(v, under(dir, v.Test)...)
	if err != nil {
		return nil, err
	}
	return &data.Set{Name: v.Name, Train: train, Test: test}, nil
}

func under(dir string, names []string) []string {
	paths := make([]string, len(names))
	for i, n := range names {
		paths[i] = filepath.Join(dir, n)
	}
	return paths
}

// Read reads files of version v, one after another, as one data set of pictures of shape [32 32 3]: see data.FromPixels.
func Read(v *Version, paths ...string) (data.Dataset, error) {
	record := int64(v.head + pixels)
	total := 0
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("cifar: %w", err)
		}
		if info.Size()%record != 0 {
			return nil, fmt.Errorf("cifar: %s: byte %d: the file ends inside a record: %d bytes are not a whole number of records of %d (truncated, or not of %s?)",
				p, info.Size()-info.Size()%record, info.Size(), record, v.Name)
		}
		total += int(info.Size() / record)
	}
	pix, labels := make([]byte, 0, total*pixels), make([]byte, 0, total)
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return nil, fmt.Errorf("cifar: %w", err)
		}
		pix, labels, err = read(v, p, f, pix, labels)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return data.FromPixels(pix, shape.Of(side, side, 3), labels, v.ClassNames)
}

// read appends the pictures, with the channels of each pixel beside each other, and the classes of one file.
func read(v *Version, name string, r io.Reader, pix, labels []byte) ([]byte, []byte, error) {
	record := make([]byte, v.head+pixels)
	for at := 0; ; at += len(record) {
		switch n, err := io.ReadFull(r, record); {
		case err == io.EOF:
			return pix, labels, nil
		case err == io.ErrUnexpectedEOF:
			return nil, nil, fmt.Errorf("cifar: %s: byte %d: the file ends inside a record: %w", name, at+n, err)
		case err != nil:
			return nil, nil, fmt.Errorf("cifar: %s: byte %d: %w", name, at+n, err)
		}
		class := record[v.fine]
		if int(class) >= len(v.ClassNames) {
			return nil, nil, fmt.Errorf("cifar: %s: byte %d: class %d, but there are %d classes: this is no file of %s", name, at+v.fine, class, len(v.ClassNames), v.Name)
		}
		labels = append(labels, class)
		red, green, blue := record[v.head:][:plane], record[v.head+plane:][:plane], record[v.head+2*plane:][:plane]
		for i := range plane {
			pix = append(pix, red[i], green[i], blue[i])
		}
	}
}
