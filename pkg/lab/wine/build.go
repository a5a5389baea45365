package wine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build makes winelab's programs in the tree that the working directory lies in and returns their folder. It is quick when
// nothing has changed, and safe when several processes want it at once.
func Build(ctx context.Context) (_ string, err error) {
	root, err := treeRoot()
	if err != nil {
		return "", err
	}
	programs := filepath.Join(root, "build", "wine")
	if err := os.MkdirAll(programs, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(programs, "make.lock"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", filepath.Join(root, "testing", "cpp"), "OUT="+programs)
	// Not part of a make that runs this test.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the Wine lab's programs: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return programs, nil
}

// treeRoot is the folder of go.mod, upwards from here.
func treeRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "testing", "cpp", "Makefile")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside the tree that has testing/cpp: say where winelab's programs are")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
