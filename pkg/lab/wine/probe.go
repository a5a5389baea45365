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

// ProbeWine has Wine run a program, in a prefix of the template, which it makes if it has to.
func ProbeWine(ctx context.Context) (err error) {
	root, err := treeRoot()
	if err != nil {
		return err
	}
	folder := filepath.Join(root, "build", "wine")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	template, err := plainTemplate(ctx, folder)
	if err != nil {
		return err
	}
	p, err := newPrefix(folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }() //nolint:contextcheck // it has a limit of its own
	if err := clone(template, p.dir); err != nil {
		return err
	}
	for range startTries {
		err = p.tool(ctx, loader, "cmd", "/c", "exit 7").Run()
		if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 7 {
			return nil
		}
	}
	return fmt.Errorf("have Wine run cmd /c exit 7: %w", err)
}

// ProbeMingw compiles a line against VSS's headers and an interface of Wine's IDL.
func ProbeMingw(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "stillframe-need-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	idl := filepath.Join(dir, "probe.idl")
	if err := os.WriteFile(idl, []byte("import \"unknwn.idl\";\n"), 0o600); err != nil {
		return err
	}
	compile := exec.CommandContext(ctx, "x86_64-w64-mingw32-g++-posix", "-x", "c++", "-o", filepath.Join(dir, "probe.exe"), "-static", "-")
	compile.Stdin = strings.NewReader("#include <windows.h>\n#include <vsbackup.h>\nint main() { return sizeof(VSS_COMPONENTINFO) == 0; }\n")
	widl := exec.CommandContext(ctx, "x86_64-w64-mingw32-widl", "-m64", "--win64", "-I", "/usr/include/wine/wine/windows", "-h", "-o", filepath.Join(dir, "probe.h"), idl)
	for _, cmd := range []*exec.Cmd{compile, widl} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("run %s (on Debian as root: apt install g++-mingw-w64-x86-64 mingw-w64-tools libwine-dev): %w: %s", cmd.Args[0], err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
