package judge_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab/judge"
)

// image makes an ext4 image that holds one file in the folder data.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree", "data")
	if err := os.MkdirAll(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "disk.img")
	out, err := exec.CommandContext(t.Context(), "/usr/sbin/mkfs.ext4", "-q", "-d", filepath.Join(dir, "tree"), path, "16M").CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	return path
}

func TestCleanImage(t *testing.T) {
	path := image(t)
	for name, ask := range map[string]func() (judge.Verdict, error){
		"fsck":    func() (judge.Verdict, error) { return judge.Fsck(t.Context(), path) },
		"journal": func() (judge.Verdict, error) { return judge.Journal(t.Context(), path) },
		"dump":    func() (judge.Verdict, error) { return judge.Dump(t.Context(), path, "/data", t.TempDir()) },
	} {
		v, err := ask()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !v.OK || !strings.Contains(v.Version, "1.") || len(v.Command) < 2 {
			t.Errorf("%s of a clean image = %+v, want OK with version and command", name, v)
		}
	}
}

func TestDumpGivesTheFiles(t *testing.T) {
	to := t.TempDir()
	if _, err := judge.Dump(t.Context(), image(t), "/data", to); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(to, "data", "file"))
	if err != nil || string(got) != "kept" {
		t.Errorf("dumped file = %q, %v, want %q", got, err, "kept")
	}
}

func TestBrokenImage(t *testing.T) {
	path := image(t)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Blocks 5 and on hold bitmaps and the inode table of a 1 KiB block file system.
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 200<<10), 5<<10); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := judge.Fsck(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if v.OK {
		t.Errorf("Fsck of a broken image is content: %s", v.Output)
	}
	if v, err := judge.Dump(t.Context(), path, "/nowhere", t.TempDir()); err != nil || v.OK {
		t.Errorf("Dump of a folder that is not there = %+v, %v, want not OK", v, err)
	}
}

func TestNoImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing.img")
	if v, err := judge.Fsck(t.Context(), path); err == nil && v.OK {
		t.Error("Fsck of a missing image is content")
	}
	if _, err := judge.Journal(t.Context(), path); err == nil {
		t.Error("Journal of a missing image gives no error")
	}
}
