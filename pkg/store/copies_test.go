package store

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/lab"
)

// TestCopies makes copies beside a daemon: the newest stay, nobody else reads them, each has its hash.
func TestCopies(t *testing.T) {
	o := onSQLite(t)
	s := opened(t, o)
	now := time.Now()
	var last Copy
	for n := range copiesKept + 2 {
		var err error
		if last, err = AddCopy(t.Context(), o.Dir, now.Add(time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.file() + ".1"
	if _, err := s.Backup(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	all, err := Copies(o.Dir)
	if err != nil || len(all) != copiesKept+1 || all[0].Path != before || all[1].Path != last.Path || all[1].SHA256 != last.SHA256 || all[0].SHA256 != "" {
		t.Errorf("Copies = %+v, %v, want the one of before an upgrade and %d more, first %+v", all, err, copiesKept, last)
	}
	files, err := os.ReadDir(filepath.Dir(last.Path))
	if err != nil || len(files) != 2*copiesKept {
		t.Errorf("%d files, %v, want a hash for each of %d copies", len(files), err, copiesKept)
	}
	for path, want := range map[string]fs.FileMode{filepath.Dir(last.Path): 0o700, last.Path: 0o600, last.Path + hashSuffix: 0o600} {
		if about, err := os.Stat(path); err != nil || about.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, about.Mode(), err, want)
		}
	}
	if _, err := AddCopy(t.Context(), filepath.Join(t.TempDir(), "none"), now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("AddCopy of nothing = %v, want that it does not exist", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if aside, err := Restore(t.Context(), o.Dir, last.Path); err != nil || content(t, aside) == "" {
		t.Errorf("Restore = %q, %v, want where the old one is", aside, err)
	}
	if err := os.WriteFile(last.Path+hashSuffix, []byte("00  x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), o.Dir, last.Path); codeOf(err) != "SF1909" {
		t.Errorf("Restore of a copy with another hash = %v, want SF1909", err)
	}
	if aside, err := Restore(t.Context(), filepath.Join(t.TempDir(), "new"), before); err != nil || aside != "" {
		t.Errorf("Restore into an empty folder = %q, %v, want nothing aside", aside, err)
	}
}

func TestInspect(t *testing.T) {
	for name, on := range databases {
		t.Run(name, func(t *testing.T) {
			o := on(t)
			s := opened(t, o)
			known, err := s.known()
			if err != nil {
				t.Fatal(err)
			}
			want := Condition{Schema: known, Known: known, Installation: s.Installation().ID}
			if c, err := Inspect(t.Context(), o); err != nil || c != want {
				t.Errorf("Inspect beside a daemon = %+v, %v, want %+v", c, err, want)
			}
			if _, err := s.write.ExecContext(t.Context(), fmt.Sprintf("UPDATE goose_db_version SET version_id = 99 WHERE version_id = %d", known)); err != nil {
				t.Fatal(err)
			}
			if c, err := Inspect(t.Context(), o); codeOf(err) != "SF1902" || c.Schema != 99 {
				t.Errorf("Inspect of a newer one = %+v, %v, want SF1902", c, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := Inspect(t.Context(), o); codeOf(err) != "SF1902" {
				t.Errorf("Inspect without a daemon = %v, want SF1902", err)
			}
			if o.DSN == "" {
				if _, err := Restore(t.Context(), t.TempDir(), s.file()); codeOf(err) != "SF1902" {
					t.Errorf("Restore of a newer one = %v, want SF1902", err)
				}
			}
		})
	}
	if _, err := Inspect(t.Context(), onSQLite(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Inspect of nothing = %v, want that it does not exist", err)
	}
}

// TestInspectDamaged finds a damage in an index, of which the structure alone says nothing.
func TestInspectDamaged(t *testing.T) {
	o := onSQLite(t)
	s := opened(t, o)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+s.file())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, statement := range []string{
		"CREATE TABLE damaged (a)", "CREATE INDEX damage ON damaged (a)", "INSERT INTO damaged VALUES (1)", "PRAGMA writable_schema = ON",
		"UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_settings_1') WHERE name = 'damage'",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(statement, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(t.Context(), o); codeOf(err) != "SF1909" {
		t.Errorf("Inspect = %v, want SF1909", err)
	}
}

// TestCopiesByRoot: what root makes belongs to whom the state folder belongs, or its daemon could not go on.
func TestCopiesByRoot(t *testing.T) {
	lab.Need(t, lab.Root)
	o := onSQLite(t)
	s := opened(t, o)
	if err := errors.Join(s.Close(), os.Chown(o.Dir, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	c, err := AddCopy(t.Context(), o.Dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), o.Dir, c.Path); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Dir(c.Path), c.Path, c.Path + hashSuffix, s.file(), filepath.Join(o.Dir, lockName)} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Uid != 65534 || st.Gid != 65534 {
			t.Errorf("%s belongs to %d:%d, %v, want 65534", path, st.Uid, st.Gid, err)
		}
	}
}
