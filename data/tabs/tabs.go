// Package tabs reads files whose lines are two texts with a tab between them.
package tabs

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// Read calls add with the two texts of each line, as they stand there. Empty lines do not count; what says in errors what a line should be, such as "two texts". A line
// without a tab, with a text of nothing but white space or with bytes that are no UTF-8 is an error, which names the file and the line.
func Read(path, what string, add func(first, second string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<24)
	for line := 1; s.Scan(); line++ {
		t := strings.TrimSuffix(s.Text(), "\r")
		if t == "" {
			continue
		}
		a, b, ok := strings.Cut(t, "\t")
		if !ok || strings.TrimSpace(a) == "" || strings.TrimSpace(b) == "" {
			return fmt.Errorf("%s: line %d is not %s with a tab between them", path, line, what)
		}
		if !utf8.ValidString(t) {
			return fmt.Errorf("%s: line %d is not UTF-8: convert the file first, with iconv for instance", path, line)
		}
		add(a, b)
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
