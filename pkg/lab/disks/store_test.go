package disks_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab/disks"
)

// liveDisk makes a sparse file of 8 MiB with data in the middle and at the end.
func liveDisk(t *testing.T) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "live.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{3 << 20, 8<<20 - 100} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 100), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, want
}

func TestCutIsTheLiveBytes(t *testing.T) {
	live, want := liveDisk(t)
	s, err := disks.New(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	s.Attach("vm", live)
	if err := s.Cut(t.Context(), "vm", "one"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(live, []byte("later"), 0o600); err != nil {
		t.Fatal(err)
	}
	im := s.Images("vm")[0]
	got, err := os.ReadFile(im.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("the image of %d bytes is not the live disk of %d bytes", len(got), len(want))
	}
	sum := sha256.Sum256(want)
	if im.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("SHA256 = %s, want %x", im.SHA256, sum)
	}
	if im.From.IsZero() || im.To.Before(im.From) {
		t.Errorf("cut from %v to %v", im.From, im.To)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(im.Path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > 1<<20 {
		t.Errorf("the image takes %d bytes of space, want holes", st.Blocks*512)
	}
}

func TestDropKeepsTheNewest(t *testing.T) {
	live, _ := liveDisk(t)
	s, err := disks.New(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	s.Attach("vm", live)
	for _, name := range []string{"one", "two"} {
		if err := s.Cut(t.Context(), "vm", name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Control(t.Context(), "vm", "control"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "one", "two", "never-was", "control"} {
		if err := s.Drop(t.Context(), "vm", name); err != nil {
			t.Fatal(err)
		}
	}
	list := s.Images("vm")
	if list[0].Path != "" || list[0].Removed.IsZero() {
		t.Errorf("the older removed image is %+v, want its bytes gone", list[0])
	}
	if list[1].Path == "" || list[1].Removed.IsZero() {
		t.Errorf("the newest removed image is %+v, want its bytes kept", list[1])
	}
	if !list[2].Control || !list[2].Removed.IsZero() {
		t.Errorf("the control image is %+v, want it untouched", list[2])
	}
}

func TestCutWithoutDisk(t *testing.T) {
	s, err := disks.New(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Cut(t.Context(), "diskless", "one"); err != nil {
		t.Errorf("Cut of a VM without a disk = %v, want nil", err)
	}
	if _, err := s.Control(t.Context(), "diskless", "c"); err == nil {
		t.Error("Control of a VM without a disk = nil, want an error")
	}
	s.Attach("vm", filepath.Join(t.TempDir(), "missing.raw"))
	if err := s.Cut(t.Context(), "vm", "one"); err == nil {
		t.Error("Cut of a missing disk = nil, want an error")
	}
	if got := len(s.Images("vm")); got != 0 {
		t.Errorf("%d images after a cut that did not work, want 0", got)
	}
}
