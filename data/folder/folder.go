// Package folder reads pictures from a folder that has a folder of PNG or JPEG files for each class.
//
// Files are read and decoded when a batch asks for them, so memory holds no more than the batches in work. Pictures are brought to one size
// by bilinear interpolation; where a picture shrinks, the filter widens to cover every source pixel (as Pillow does), so that fine patterns
// do not turn into noise. Transparent pixels count as laid over black. The orientation that a camera writes into EXIF is not applied.
package folder

import (
	"errors"
	"fmt"
	_ "image/jpeg" // decoders for image.Decode
	_ "image/png"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Size is the form in which pictures are handed out: f32 [Height Width Channels] in [0, 1].
type Size struct {
	Height, Width int
	Channels      int // 3 for colour, 1 for grey; 0: 3
}

// MaxPixels bounds the width times the height of a picture file; a small file can claim a huge picture.
const MaxPixels = 1 << 26

// Open lists the folder. Classes are numbered in the order of their folders' names; names that begin with a dot are passed over. With a
// zero height or width all pictures get the size of the first.
func Open(dir string, size Size) (data.Dataset, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	s := &set{}
	var classes []string
	for _, e := range entries { // sorted by name
		if strings.HasPrefix(e.Name(), ".") || !isDir(dir, e) {
			continue
		}
		files, err := pictures(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("folder: %s: no .png, .jpg or .jpeg file in this folder of a class", filepath.Join(dir, e.Name()))
		}
		for _, f := range files {
			s.files = append(s.files, f)
			s.labels = append(s.labels, int32(len(classes)))
		}
		classes = append(classes, e.Name())
	}
	if len(classes) == 0 {
		return nil, fmt.Errorf("folder: %s: no folders in it; there must be one for each class, with its pictures inside", dir)
	}
	if size.Height == 0 || size.Width == 0 {
		if size.Height, size.Width, err = dims(s.files[0]); err != nil {
			return nil, err
		}
	}
	if err := size.check(); err != nil {
		return nil, err
	}
	s.size = size
	s.spec = data.ImageSpec(shape.Of(size.Height, size.Width, size.channels()), classes)
	return s, nil
}

// isDir follows links, which ReadDir does not.
func isDir(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

// pictures lists the picture files under dir, at any depth, in order of their names.
func pictures(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			return err
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".png", ".jpg", ".jpeg":
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	slices.Sort(files)
	return files, nil
}

func (s Size) channels() int {
	if s.Channels == 0 {
		return 3
	}
	return s.Channels
}

func (s Size) check() error {
	if s.Height <= 0 || s.Width <= 0 || s.Height > MaxPixels/s.Width || s.channels() != 1 && s.channels() != 3 {
		return fmt.Errorf("folder: pictures of %d×%d with %d channels: the sides must be positive and the channels 1 or 3", s.Height, s.Width, s.channels())
	}
	return nil
}

// set is the data set.
type set struct {
	spec   data.Spec
	size   Size
	files  []string
	labels []int32
}

func (s *set) Spec() data.Spec { return s.spec }
func (s *set) Len() int        { return len(s.files) }
func (s *set) Label(i int) int { return int(s.labels[i]) }

// Fill decodes the pictures idx, several at a time.
func (s *set) Fill(idx []int, x, y []*tensor.Tensor) error {
	pix, labels := x[0].F32(), y[0].I32()
	row := s.size.Height * s.size.Width * s.size.channels()
	errs := make([]error, len(idx))
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(idx)) {
		wait.Go(func() {
			for {
				k := int(next.Add(1)) - 1
				if k >= len(idx) {
					return
				}
				labels[k] = s.labels[idx[k]]
				errs[k] = ReadImage(s.files[idx[k]], s.size, pix[k*row:(k+1)*row])
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// dims is the size that a picture file claims.
func dims(path string) (height, width int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("folder: %w", err)
	}
	defer f.Close()
	return claimed(path, f)
}

// ReadImage decodes a PNG or JPEG file into dst, f32 [Height Width Channels] in [0, 1]. dst must have that length.
func ReadImage(path string, size Size, dst []float32) error {
	if err := size.check(); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	defer f.Close()
	return decode(path, f, size, dst)
}
