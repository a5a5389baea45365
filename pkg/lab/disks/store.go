// Package disks keeps the real bytes behind the lab's virtual disks.
//
// It is credible for what a disk held at the instant of a snapshot. It never emulates delta files, consolidation, VMFS,
// or an atomic cut: a cut of a disk that is being written takes as long as its copy, which is harsher than a real one.
package disks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Image is the copy of a disk at one instant.
type Image struct {
	VM       string `json:"vm"`
	Snapshot string `json:"snapshot"`
	// Path is the copy's file. It is empty once the store has dropped the bytes.
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	// From and To are when the copy began and ended, on the lab's clock.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Removed is when the snapshot was removed, zero while it exists.
	Removed time.Time `json:"removed,omitzero"`
	// Control is true for an image that no snapshot stands for.
	Control bool `json:"control"`
}

// Store holds one live disk for each VM, plus the images cut from them. It is safe for concurrent use.
type Store struct {
	dir  string
	keep int

	mu     sync.Mutex
	live   map[string]string
	images map[string][]*Image
}

// New opens a store whose images lie in dir/<vm>/<snapshot>.img. It keeps the bytes of the keep newest removed
// snapshots of each VM, so that a judge can look at them after a run; 0 keeps none.
func New(dir string, keep int) (*Store, error) {
	if keep < 0 {
		return nil, fmt.Errorf("open the disk store %s: keep %d is below 0", dir, keep)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the disk store: %w", err)
	}
	return &Store{dir: dir, keep: keep, live: map[string]string{}, images: map[string][]*Image{}}, nil
}

// Attach names the file that is the live disk of a VM. The caller goes on owning the file.
func (s *Store) Attach(vm, file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[vm] = file
}

// Cut copies the live disk of a VM as the image of a snapshot; it blocks for the time of the copy. A VM without a live
// disk has nothing to cut, which is no error.
func (s *Store) Cut(ctx context.Context, vm, snapshot string) error {
	_, err := s.cut(ctx, vm, snapshot, false)
	if errors.Is(err, errNoDisk) {
		return nil
	}
	return err
}

// Control copies the live disk of a VM under a name of its own, without any snapshot.
func (s *Store) Control(ctx context.Context, vm, name string) (Image, error) {
	return s.cut(ctx, vm, name, true)
}

// Drop marks the image of a snapshot as removed; it is idempotent. The bytes stay by the keep rule of New.
func (s *Store) Drop(_ context.Context, vm, snapshot string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var removed []*Image
	for _, im := range s.images[vm] {
		if im.Snapshot == snapshot && !im.Control && im.Removed.IsZero() {
			im.Removed = time.Now()
		}
		if !im.Removed.IsZero() && im.Path != "" {
			removed = append(removed, im)
		}
	}
	slices.SortStableFunc(removed, func(a, b *Image) int { return a.Removed.Compare(b.Removed) })
	for len(removed) > s.keep {
		if err := os.Remove(removed[0].Path); err != nil {
			return fmt.Errorf("drop the image of snapshot %q of %s: %w", removed[0].Snapshot, vm, err)
		}
		removed[0].Path = ""
		removed = removed[1:]
	}
	return nil
}

// Images lists the images of a VM, the oldest first.
func (s *Store) Images(vm string) []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Image, 0, len(s.images[vm]))
	for _, im := range s.images[vm] {
		list = append(list, *im)
	}
	return list
}

var errNoDisk = errors.New("the VM has no live disk")

func (s *Store) cut(ctx context.Context, vm, snapshot string, control bool) (Image, error) {
	s.mu.Lock()
	live, ok := s.live[vm]
	s.mu.Unlock()
	if !ok {
		return Image{}, fmt.Errorf("cut %s: %w", vm, errNoDisk)
	}
	folder := filepath.Join(s.dir, filepath.Base(vm))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return Image{}, fmt.Errorf("cut %s: %w", vm, err)
	}
	im := &Image{VM: vm, Snapshot: snapshot, Control: control, Path: filepath.Join(folder, filepath.Base(snapshot)+".img")}
	im.From = time.Now()
	err := copySparse(ctx, im.Path, live)
	im.To = time.Now()
	if err != nil {
		return Image{}, fmt.Errorf("cut %s for snapshot %q: %w", vm, snapshot, err)
	}
	if im.SHA256, err = sum(im.Path); err != nil {
		return Image{}, fmt.Errorf("cut %s for snapshot %q: %w", vm, snapshot, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[vm] = append(s.images[vm], im)
	return *im, nil
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}

// copySparse copies from to the new file to, leaving out holes. It reads through the page cache, which is where a loop
// device's writes stand at once.
func copySparse(ctx context.Context, to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	err = copyData(ctx, dst, src)
	err = errors.Join(err, dst.Close(), src.Close())
	if err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// copyData copies the data extents of src, and gives dst the same length.
func copyData(ctx context.Context, dst, src *os.File) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(st.Size()); err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for at := int64(0); at < st.Size(); {
		from, to, err := extent(src, at, st.Size())
		if err != nil {
			return err
		}
		for at = from; at < to; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := src.ReadAt(block[:min(int64(len(block)), to-at)], at)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if n == 0 {
				return fmt.Errorf("read %s at %d: %w", src.Name(), at, io.ErrUnexpectedEOF)
			}
			if _, err := dst.WriteAt(block[:n], at); err != nil {
				return err
			}
			at += int64(n)
		}
	}
	return nil
}
