package guests_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/types"
)

// TestTemporaryFile does what govc's guest.run does with the output of a program.
func TestTemporaryFile(t *testing.T) {
	o := startOperations(t)
	ctx := t.Context()
	path, err := o.file.CreateTemporaryFile(ctx, o.good, "govmomi-", ".txt", "")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(o.root, path)); err != nil || info.Mode().Perm() != 0o600 || !strings.HasSuffix(path, ".txt") {
		t.Errorf("temporary file %s = %v, %v, want an empty one with mode 0600", path, info, err)
	}
	pid, err := o.process.StartProgram(ctx, o.good, &types.GuestProgramSpec{ProgramPath: "/bin/echo", Arguments: "said 1> " + path})
	if err != nil {
		t.Fatal(err)
	}
	if code := o.ended(t, pid); code != 0 {
		t.Errorf("exit code = %d, want 0", code)
	}
	if said := o.download(t, path); said != "said\n" {
		t.Errorf("the program's output is %q", said)
	}
	if again, err := o.file.CreateTemporaryFile(ctx, o.good, "govmomi-", ".txt", ""); err != nil || again == path {
		t.Errorf("a second temporary file is %s, %v, want another one", again, err)
	}
	if _, err := o.file.CreateTemporaryFile(ctx, o.good, "a", "", "/no/such/folder"); !fault.Is(err, &types.FileNotFound{}) {
		t.Errorf("a file in a folder that is not there = %v, want FileNotFound", err)
	}
}
