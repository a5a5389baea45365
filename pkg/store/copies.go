package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// copiesName is the folder of copies in the state folder, copiesKept how many lie there. A copy NAME has its hash beside it in
// NAME.sha256, as sha256sum reads it.
const (
	copiesName = "copies"
	copiesKept = 14
	copySuffix = ".db"
	hashSuffix = ".sha256"
)

// AddCopy copies the SQLite of a state folder into its folder of copies, whether a daemon works there or not, and removes the
// oldest of more than 14. The name is the time of now. It blocks as long as the copying takes.
func AddCopy(ctx context.Context, dir string, now time.Time) (Copy, error) {
	folder := filepath.Join(dir, copiesName)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return Copy{}, coded("make the folder of copies", err, unwritable)
	}
	c, err := CopyOf(ctx, dir, filepath.Join(folder, "stillframe-"+now.UTC().Format("20060102T150405.000Z")+copySuffix))
	if err != nil {
		return Copy{}, err
	}
	if err := handOver(dir, folder, c.Path, c.Path+hashSuffix); err != nil {
		return c, coded("hand over the copy of the database", err, unwritable)
	}
	all, err := rotated(folder)
	if err != nil {
		return c, err
	}
	var errs []error
	for _, old := range all[min(copiesKept, len(all)):] {
		errs = append(errs, remove(old), remove(old+hashSuffix))
	}
	if err := errors.Join(errs...); err != nil {
		return c, coded("remove old copies of the database", err, unwritable)
	}
	return c, nil
}

// rotated are the paths of what AddCopy made, the newest first.
func rotated(folder string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(folder, "stillframe-*"+copySuffix))
	slices.Sort(all)
	slices.Reverse(all)
	return all, err
}

// CopyOf copies the SQLite of a state folder to a path where nothing is yet, whether a daemon works there or not. The hash lies
// beside the copy. It blocks as long as the copying takes.
func CopyOf(ctx context.Context, dir, path string) (Copy, error) {
	file := filepath.Join(dir, fileName)
	if _, err := os.Stat(file); err != nil {
		return Copy{}, fmt.Errorf("copy the database: %w", err)
	}
	c, err := backup(ctx, file, path)
	if err != nil {
		return Copy{}, err
	}
	if err := replace(path+hashSuffix, fmt.Appendf(nil, "%s  %s\n", c.SHA256, filepath.Base(path))); err != nil {
		return Copy{}, coded("write down the hash of "+path, errors.Join(err, remove(path)), unwritable)
	}
	return c, nil
}

// Copies lists the copies in a state folder, the newest first: those of AddCopy, and those of before an upgrade.
func Copies(dir string) ([]Copy, error) {
	paths, err := rotated(filepath.Join(dir, copiesName))
	if err != nil {
		return nil, err
	}
	before, err := filepath.Glob(filepath.Join(dir, fileName+".[0-9]*"))
	if err != nil {
		return nil, err
	}
	var all []Copy
	for _, path := range append(paths, before...) {
		about, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) { // the daemon has just removed it
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the copies of the database: %w", err)
		}
		sum, err := hashBeside(path)
		if err != nil {
			return nil, fmt.Errorf("list the copies of the database: %w", err)
		}
		all = append(all, Copy{path, about.ModTime(), about.Size(), sum})
	}
	slices.SortStableFunc(all, func(a, b Copy) int { return -cmp.Compare(a.Made.UnixNano(), b.Made.UnixNano()) })
	return all, nil
}

// hashBeside is the hash that was written down with a copy, empty when there is none.
func hashBeside(path string) (string, error) {
	text, err := os.ReadFile(path + hashSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	sum, _, _ := strings.Cut(string(text), " ")
	return sum, err
}

// asHashed refuses a copy that is not what was hashed when it was made.
func asHashed(path string) error {
	want, err := hashBeside(path)
	if err != nil || want == "" {
		return err
	}
	_, got, err := digest(path)
	if err == nil && got != want {
		err = fmt.Errorf("its SHA-256 is %s, and was %s when it was made", got, want)
	}
	return err
}
