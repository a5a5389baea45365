package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Copy is a copy of the database.
type Copy struct {
	Path  string
	Made  time.Time
	Bytes int64
	// SHA256 is in hexadecimal digits, empty when nobody knows it.
	SHA256 string
}

// Backup makes a copy of SQLite while the daemon works, at a path where nothing is yet. The copy is one instant's state,
// whole and on the disk when it returns. A PostgreSQL is copied by its own tools.
func (s *Store) Backup(ctx context.Context, path string) (Copy, error) {
	op := "copy the database to " + path
	if s.dialect != SQLite {
		return Copy{}, fmt.Errorf("%s: it is a PostgreSQL: use pg_dump", op)
	}
	return backup(ctx, s.file(), path)
}

// backup copies a SQLite file, whether somebody works with it or not.
func backup(ctx context.Context, from, path string) (Copy, error) {
	op := "copy the database to " + path
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return Copy{}, coded(op, errors.Join(fs.ErrExist, err), unwritable)
	}
	fresh := path + ".part"
	if err := remove(fresh); err != nil {
		return Copy{}, coded(op, err, unwritable)
	}
	// SQLite takes an empty file, but would make one that others may read.
	err := os.WriteFile(fresh, nil, 0o600)
	if err == nil {
		err = vacuumInto(ctx, from, fresh)
	}
	if err == nil {
		err = flush(fresh)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err == nil {
		err = flush(filepath.Dir(path))
	}
	if err != nil {
		return Copy{}, coded(op, errors.Join(err, remove(fresh)), unwritable)
	}
	c := Copy{Path: path}
	if c.Bytes, c.SHA256, err = digest(path); err != nil {
		return Copy{}, coded(op, err, unwritable)
	}
	c.Made = time.Now()
	return c, nil
}

// vacuumInto needs a connection of its own: neither the writer nor the readers wait for it.
func vacuumInto(ctx context.Context, from, to string) (err error) {
	db, err := sql.Open("sqlite", sqliteDSN(from)+"&mode=rw") // one that is gone is not made
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, "VACUUM INTO $1", to)
	return err
}

func digest(path string) (size int64, sum string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	hash := sha256.New()
	size, err = io.Copy(hash, file)
	return size, hex.EncodeToString(hash.Sum(nil)), errors.Join(err, file.Close())
}

// whole reads through all of the database's structure. A damaged one is refused and left as it is.
func (s *Store) whole(ctx context.Context) error {
	err := check(ctx, s.write, "quick_check")
	if err == nil {
		return nil
	}
	if cause(err) == unwritable {
		return coded("open the database "+s.file(), err, unwritable)
	}
	copies, globErr := filepath.Glob(s.file() + ".*")
	if made, err := Copies(s.dir); err == nil && len(made) > 0 {
		copies = append([]string{made[0].Path}, copies...)
	}
	way := "there is no copy in this folder"
	if len(copies) > 0 {
		way = "copies in this folder: " + strings.Join(copies, ", ")
	}
	return &Error{damaged, "open the database " + s.file(), errors.Join(fmt.Errorf("it is damaged: %w; it was left as it is; %s", err, way), globErr)}
}

// check has SQLite read through a database: quick_check its structure, integrity_check also whether indexes fit to tables.
func check(ctx context.Context, db *sql.DB, how string) error {
	var word string
	if err := db.QueryRowContext(ctx, "PRAGMA "+how+"(1)").Scan(&word); err != nil {
		return err
	}
	if word != "ok" {
		return errors.New(word)
	}
	return nil
}

// Restore puts a copy in the place of the database in the state folder, of which no daemon may work. The copy is read through
// first, and compared with the hash beside it if there is one. What was there is kept aside, under the path that it gives; empty
// when nothing was there.
func Restore(ctx context.Context, dir, from string) (aside string, err error) {
	op := "put back the database from " + from
	lock, err := lockFolder(dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if _, err := os.Stat(from); err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	if err := errors.Join(asHashed(from), usable(ctx, from)); err != nil {
		return "", coded(op, err, damaged)
	}
	path := filepath.Join(dir, fileName)
	fresh := path + ".part"
	err = copyFile(from, fresh)
	if err == nil {
		err = handOver(dir, fresh, lock.Name())
	}
	if err != nil {
		return "", coded(op, errors.Join(err, remove(fresh)), unwritable)
	}
	to := path + ".before-" + time.Now().UTC().Format("20060102T150405.000")
	// A journal belongs to its own file: beside another one it would damage that.
	for _, suffix := range []string{"-wal", "-shm", ""} {
		switch err := os.Rename(path+suffix, to+suffix); {
		case err == nil:
			aside = to
		case !errors.Is(err, fs.ErrNotExist):
			return aside, coded(op, err, unwritable)
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return aside, coded(op, err, unwritable)
	}
	return aside, flush(dir)
}

// handOver gives files that root made to whom the state folder belongs: its daemon has to read and replace them.
func handOver(dir string, paths ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("look whose the state folder is: %w", err)
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.Lchown(path, int(st.Uid), int(st.Gid)))
	}
	return errors.Join(errs...)
}

// usable says whether a file is a whole database of ours that this program can work with. It is only read.
func usable(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite", sqliteDSN(path)+"&mode=ro&immutable=1")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c, err := (&Store{dialect: SQLite, dir: filepath.Dir(path), write: db, files: migrations}).condition(ctx)
	if err != nil {
		return err
	}
	return c.current("use " + path)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close(), in.Close())
}
