package runs

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// indexName is the index's file in the folder of all runs.
const indexName = "history.db"

// schemaVersion is kept in the file; an index of another version is made anew.
const schemaVersion = 1

// schema is for SQL users too: joule runs reads "runs" and "results", and any SQLite program may read all three.
// Times are Unix milliseconds; stamp says which state of the folder the row was read from.
const schema = `
CREATE TABLE runs (
	id TEXT PRIMARY KEY, name TEXT, state TEXT, start INTEGER, "end" INTEGER, duration REAL,
	seed INTEGER, host TEXT, isa TEXT, threads INTEGER, version TEXT,
	spec TEXT, ledger TEXT, error TEXT, info TEXT, stamp TEXT
);
CREATE TABLE results (run TEXT, name TEXT, value REAL, PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE TABLE epochs (run TEXT, epoch INTEGER, name TEXT, value REAL, PRIMARY KEY (run, epoch, name)) WITHOUT ROWID;
`

// index is the open database, equal to the folders as they were a moment ago.
type index struct {
	*sql.DB
	inMemory bool
	problems []error // folders that are left out, and what was wrong with the file
}

// openIndex opens the index of the store and brings it up to date. A damaged file is set aside and a new one made. Where the file cannot be
// used at all (the folder is read-only, the disk full), the index lives in memory and is made from the folders each time.
func (s *Store) openIndex() (*index, error) {
	path := filepath.Join(s.root, indexName)
	x, err := s.openDB(dsn(path))
	if err == nil {
		return x, nil
	}
	var notes []error
	if isDamaged(err) {
		aside := path + ".damaged"
		os.Remove(path + "-journal") // it belongs to the damaged file
		if e := os.Rename(path, aside); e == nil || errors.Is(e, fs.ErrNotExist) {
			notes = append(notes, fmt.Errorf("runs: the index %s was damaged (%w); it is now called %s, and a new one was made from the runs' folders", path, err, aside))
			x, err = s.openDB(dsn(path))
		}
	}
	if err != nil {
		notes = append(notes, fmt.Errorf("runs: the index %s cannot be used (%w); the runs' folders were read instead", path, err))
		if x, err = s.openDB(":memory:"); err != nil {
			return nil, fmt.Errorf("runs: %w", errors.Join(append(notes, err)...))
		}
		x.inMemory = true
	}
	x.problems = append(notes, x.problems...)
	return x, nil
}

// dsn is SQLite's URI of the file. Transactions take the write lock when they begin, and wait for others up to ten seconds.
func dsn(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = filepath.ToSlash(abs)
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // file:///C:/…
	}
	path = strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	return "file://" + path + "?_pragma=busy_timeout(10000)&_txlock=immediate"
}

func isDamaged(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB)
}

// openDB opens the database, makes its tables when they are missing or of another version, and brings it up to date.
func (s *Store) openDB(dsn string) (*index, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // a database in memory belongs to its connection
	x := &index{DB: db}
	if err = migrate(db); err == nil {
		x.problems, err = x.sync(s)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return x, nil
}

func migrate(db *sql.DB) error {
	var have int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if have == schemaVersion {
		return nil
	}
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	// Another process may have been first.
	if err := tx.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if have == schemaVersion {
		return nil
	}
	for _, table := range []string{"runs", "results", "epochs"} {
		if _, err := tx.Exec("DROP TABLE IF EXISTS " + table); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(schema + fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}

// sync makes the index equal to the folders. It returns what is wrong with folders that it has to leave out.
func (x *index) sync(s *Store) (problems []error, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	known := map[string]string{} // id → stamp; "" for one that must be read again
	rows, err := x.Query("SELECT id, CASE state WHEN 'running' THEN '' ELSE stamp END FROM runs")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, stamp string
		if err := rows.Scan(&id, &stamp); err != nil {
			return nil, err
		}
		known[id] = stamp
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	type change struct {
		info  *Info
		stamp string
	}
	var changes []change
	var gone []string
	for _, id := range ids {
		stamp := s.stamp(id)
		was, ok := known[id]
		delete(known, id)
		if ok && was == stamp {
			continue
		}
		info, err := s.read(id)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) { // as it was when it was read: another look might find it
				problems = append(problems, fmt.Errorf("runs: %w", err))
			} // without run.json: it is being made or deleted this instant
			if ok {
				gone = append(gone, id)
			}
			continue
		}
		changes = append(changes, change{info, stamp})
	}
	for id := range known {
		gone = append(gone, id)
	}
	if len(changes)+len(gone) == 0 {
		return problems, nil
	}
	tx, err := x.Begin()
	if err != nil {
		return problems, err
	}
	defer tx.Rollback()
	for _, id := range gone {
		if err := remove(tx, id); err != nil {
			return problems, err
		}
	}
	for _, c := range changes {
		if err := remove(tx, c.info.ID); err != nil {
			return problems, err
		}
		if err := insert(tx, c.info, c.stamp, &problems); err != nil {
			return problems, err
		}
	}
	return problems, tx.Commit()
}

// stamp tells states of a run's folder apart: sizes and times of the two files that the index is made from.
func (s *Store) stamp(id string) string {
	var b strings.Builder
	for _, name := range []string{infoName, historyName} {
		if st, err := os.Stat(filepath.Join(s.root, id, name)); err == nil {
			fmt.Fprintf(&b, "%d %d;", st.Size(), st.ModTime().UnixNano())
		} else {
			b.WriteString("-;")
		}
	}
	return b.String()
}

func remove(tx *sql.Tx, id string) error {
	_, err := tx.Exec("DELETE FROM runs WHERE id = ?1; DELETE FROM results WHERE run = ?1; DELETE FROM epochs WHERE run = ?1", id)
	return err
}

func insert(tx *sql.Tx, i *Info, stamp string, problems *[]error) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	var end any
	if !i.End.IsZero() {
		end = i.End.UnixMilli()
	}
	if _, err := tx.Exec(`INSERT INTO runs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		i.ID, i.Name, string(i.State), i.Start.UnixMilli(), end, i.Duration().Seconds(),
		int64(i.Seed), i.Host, i.ISA, i.Threads, i.Version,
		i.Spec, string(i.Ledger), i.Error, string(text), stamp); err != nil {
		return err
	}
	for name, v := range i.Results {
		if _, err := tx.Exec("INSERT INTO results VALUES (?,?,?)", i.ID, name, number(v)); err != nil {
			return err
		}
	}
	t, err := i.History()
	if err != nil {
		*problems = append(*problems, err) // the run itself is still worth a row
		return nil
	}
	for c, name := range t.Columns {
		for _, row := range t.Rows {
			if _, err := tx.Exec("INSERT INTO epochs VALUES (?,?,?,?)", i.ID, row.Key, name, number(row.Values[c])); err != nil {
				return err
			}
		}
	}
	return nil
}

// number is v for SQLite, which has no NaN.
func number(v float64) any {
	if math.IsNaN(v) {
		return nil
	}
	return v
}
