package wine_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/wine"
)

// sharedPrefix is the tests' one prefix with the fakes, made when the first of them wants it.
var sharedPrefix struct {
	sync.Mutex
	p *wine.Prefix
}

// TestMain fails when the tests leave a prefix, or anything that runs in one, behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if p := sharedPrefix.p; p != nil {
		if err := p.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	for _, left := range leftovers() {
		fmt.Fprintln(os.Stderr, "left behind:", left)
		code = 1
	}
	os.Exit(code)
}

func leftovers() []string {
	folders, err := filepath.Glob(filepath.Join("..", "..", "..", "build", "wine", fmt.Sprintf("prefix-%d-*", os.Getpid())))
	if err != nil {
		return []string{err.Error()}
	}
	left := folders
	for _, dir := range folders {
		whole, err := filepath.Abs(dir)
		if err != nil {
			return append(left, err.Error())
		}
		running, err := wine.Processes(whole)
		if err != nil {
			return append(left, err.Error())
		}
		left = append(left, running...)
	}
	return left
}

// open makes a prefix for the test's time.
func open(t *testing.T, o wine.Options) *wine.Prefix {
	t.Helper()
	lab.Need(t, lab.Wine, lab.Mingw)
	p, err := wine.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// run runs a program that has to end well.
func run(t *testing.T, p *wine.Prefix, program string, args ...string) string {
	t.Helper()
	out, err := p.Run(t.Context(), program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(out, "\r\n", "\n")
}

const guest = `C:\guest.exe`

// installGuest builds testdata/guest for Windows into the prefix.
func installGuest(t *testing.T, p *wine.Prefix) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", p.Path(guest), "./testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v: %s", err, out)
	}
}
