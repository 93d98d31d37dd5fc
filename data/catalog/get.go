package catalog

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"

	"github.com/jouleml/joule/internal/atomicfile"
)

// Get makes sure that the data set is on this machine and returns its folder ("embedded" for one that is in the binary): it downloads what
// is missing, checks it, and puts it in place only when it is whole. progress, if not nil, is told how many bytes of how many have come.
func Get(ctx context.Context, name string, progress func(done, total int64)) (string, error) {
	e, err := findModel(name)
	if err != nil {
		if e, err = find(name); err != nil {
			return "", err
		}
	}
	if w := e.where(); w != "" {
		return w, nil
	}
	return e.get(ctx, progress)
}

func (e *entry) get(ctx context.Context, progress func(done, total int64)) (string, error) {
	base, err := Dir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, e.info.Name)
	if err := atomicfile.MkdirAll(dir); err != nil {
		return "", fmt.Errorf("catalog: %w", err)
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	total, before := e.info.Bytes(), int64(0)
	for _, f := range e.info.Files {
		to := filepath.Join(dir, f.Name)
		if !intact(to, f) {
			address, err := f.address(e.info.Name)
			if err != nil {
				return "", err
			}
			if err := download(ctx, address, to, f, func(n int64) { progress(before+n, total) }); err != nil {
				return "", e.explain(err, dir)
			}
		}
		before += f.Bytes
		progress(before, total)
		if e.unpack {
			if err := unpack(to, dir, e.need); err != nil {
				return "", err
			}
		}
	}
	if !e.complete(dir) {
		return "", fmt.Errorf("catalog: %s: the download lacks some of %s", e.info.Name, strings.Join(e.need, ", "))
	}
	if e.unpack { // only now: a run that was cut off finds its archives again
		for _, f := range e.info.Files {
			os.Remove(filepath.Join(dir, f.Name))
		}
	}
	return dir, nil
}

// address is where to fetch f.
func (f File) address(dataset string) (string, error) {
	mirror := os.Getenv("JOULE_DATA_MIRROR")
	if mirror == "" {
		return f.URL, nil
	}
	u, err := url.Parse(mirror)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("catalog: JOULE_DATA_MIRROR=%q is no http or https address", mirror)
	}
	return u.JoinPath(dataset, f.Name).String(), nil
}

// explain says what else can be done about a failed download.
func (e *entry) explain(err error, dir string) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var names []string
	for _, f := range e.info.Files {
		names = append(names, f.Name)
	}
	if e.unpack {
		names = []string{"the files of " + strings.Join(names, ", ")}
	}
	return fmt.Errorf("%w (without a connection: set JOULE_DATA_MIRROR to an address that has %s, or put %s into %s yourself)",
		err, path.Join(e.info.Name, e.info.Files[0].Name), strings.Join(names, ", "), dir)
}

// errSum is a download that is not what it should be.
var errSum = errors.New("not the expected file")

// download fetches address into the file to, and leaves nothing behind unless size and sum are right.
func download(ctx context.Context, address, to string, f File, progress func(done int64)) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	// The bytes as they lie on the server: some send .gz files as gzip-encoded plain ones, which the transport would quietly decompress.
	request.Header.Set("Accept-Encoding", "identity")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("catalog: downloading %s: %w", f.Name, err) // the error names the address
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("catalog: downloading %s: %s answers %s", f.Name, address, response.Status)
	}
	err = atomicfile.Write(to, func(w io.Writer) error {
		sum := sha256.New()
		counter := &counting{progress: progress}
		n, err := io.Copy(io.MultiWriter(w, sum, counter), io.LimitReader(response.Body, f.Bytes+1))
		if err != nil {
			return err
		}
		if n != f.Bytes {
			return fmt.Errorf("%s: %w: %d bytes came, %d should have (cut off, or another file)", address, errSum, n, f.Bytes)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
			return fmt.Errorf("%s: %w: its SHA-256 is %s, not %s", address, errSum, got, f.SHA256)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}

// counting is a writer that counts.
type counting struct {
	n        int64
	progress func(int64)
}

func (c *counting) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	c.progress(c.n)
	return len(b), nil
}

// intact reports whether the file is there with the right content.
func intact(path string, f File) bool {
	r, err := os.Open(path)
	if err != nil {
		return false
	}
	defer r.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, r)
	return err == nil && hex.EncodeToString(sum.Sum(nil)) == f.SHA256
}

// unpack writes the content of a compressed file (.xz, .bz2), or those files of a .tar.gz or zip archive (.zip, .whl) whose names (without folders) are wanted into dir. The archive's sum has been checked, so
// its sizes can be trusted; its paths are not used.
func unpack(archive, dir string, wanted []string) error {
	ext := filepath.Ext(archive)
	if ext == ".zip" || ext == ".whl" {
		return unzip(archive, dir, wanted)
	}
	r, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	defer r.Close()
	if ext == ".xz" || ext == ".bz2" {
		return decompress(r, archive, strings.TrimSuffix(archive, ext))
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("catalog: %s: %w", archive, err)
	}
	t := tar.NewReader(z)
	for {
		head, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("catalog: %s: %w", archive, err)
		}
		name := path.Base(head.Name)
		if head.Typeflag != tar.TypeReg || !slices.Contains(wanted, name) {
			continue
		}
		err = atomicfile.Write(filepath.Join(dir, name), func(w io.Writer) error { _, err := io.Copy(w, t); return err })
		if err != nil {
			return fmt.Errorf("catalog: unpacking %s: %w", archive, err)
		}
	}
}

// decompress writes what one compressed file holds.
func decompress(r io.Reader, archive, to string) error {
	z := bzip2.NewReader(r)
	if filepath.Ext(archive) == ".xz" {
		var err error
		if z, err = xz.NewReader(bufio.NewReader(r)); err != nil {
			return fmt.Errorf("catalog: %s: %w", archive, err)
		}
	}
	if err := atomicfile.Write(to, func(w io.Writer) error { _, err := io.Copy(w, z); return err }); err != nil {
		return fmt.Errorf("catalog: decompressing %s: %w", archive, err)
	}
	return nil
}

func unzip(archive, dir string, wanted []string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("catalog: %s: %w", archive, err)
	}
	defer z.Close()
	chosen := map[string]*zip.File{} // of several files of one name the one with the shortest path
	for _, f := range z.File {
		name := path.Base(f.Name)
		if old := chosen[name]; f.Mode().IsRegular() && slices.Contains(wanted, name) && (old == nil || len(f.Name) < len(old.Name)) {
			chosen[name] = f
		}
	}
	for name, f := range chosen {
		err := atomicfile.Write(filepath.Join(dir, name), func(w io.Writer) error {
			r, err := f.Open()
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(w, r)
			return err
		})
		if err != nil {
			return fmt.Errorf("catalog: unpacking %s: %w", archive, err)
		}
	}
	return nil
}
