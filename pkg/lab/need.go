package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/lab/judge"
	"github.com/stillframe/stillframe/pkg/lab/smb"
	"github.com/stillframe/stillframe/pkg/lab/wine"
)

// Requirement is something of the machine that a test cannot do without, by the word used in STILLFRAME_REQUIRE.
type Requirement string

const (
	// Root is the user root; what it may do is found out by the other requirements.
	Root Requirement = "root"
	// Loop is a loop device that can be set up with an ext4 on it, mounted, frozen and thawed.
	Loop Requirement = "loop"
	// E2fsprogs are e2fsck, dumpe2fs and debugfs.
	E2fsprogs Requirement = "e2fsprogs"
	// Promtool is Prometheus's own checker of metrics.
	Promtool Requirement = "promtool"
	// Postgres is an installed PostgreSQL with its user.
	Postgres Requirement = "postgres"
	// Wine is Wine for 64-bit programs.
	Wine Requirement = "wine"
	// Mingw is mingw-w64's C++ compiler with its VSS headers, widl, and Wine's base IDL.
	Mingw Requirement = "mingw"
	// Osslsigncode signs Windows programs and checks their signatures, with certificates by openssl.
	Osslsigncode Requirement = "osslsigncode"
	// Smbd is Samba's file server, which runs as root alone.
	Smbd Requirement = "smbd"
	// Smbclient is Samba's client.
	Smbclient Requirement = "smbclient"
	// PythonWinRM is python3-winrm with NTLM, for the system's own Python.
	PythonWinRM Requirement = "python3-winrm"
	// Msitools make a Windows Installer package, and read its tables.
	Msitools Requirement = "msitools"
	// Nfpm is the program of `make .tools/nfpm` that makes packages, and dpkg-deb that reads one.
	Nfpm Requirement = "nfpm"
	// Systemd is systemd's own reader of units; systemd need not run.
	Systemd Requirement = "systemd"
)

// probeLimit bounds one probe: the first of Wine makes a prefix, which takes 10 to 40 s.
const probeLimit = 3 * time.Minute

// probed caches what the probes of this process found; a probe is made once.
var probed = struct {
	sync.Mutex
	found map[Requirement]error
}{found: map[Requirement]error{}}

// Need skips the test when the machine lacks one of needs, found out by using it. Where STILLFRAME_REQUIRE is "all", or
// names the missing one in its comma list, the test fails instead. Each skip adds a line of JSON to the file named by
// STILLFRAME_TEST_REPORT, if any.
func Need(t testing.TB, needs ...Requirement) {
	t.Helper()
	for _, need := range needs {
		err := probe(t.Context(), need)
		if err == nil {
			continue
		}
		why := fmt.Sprintf("needs %s: %v", need, err)
		required := strings.Split(os.Getenv("STILLFRAME_REQUIRE"), ",")
		if slices.Contains(required, "all") || slices.Contains(required, string(need)) {
			t.Fatal(why)
		}
		if err := reportSkip(t.Name(), need, err); err != nil {
			t.Fatalf("%s, which could not be reported: %v", why, err)
		}
		t.Skip(why)
	}
}

func probe(ctx context.Context, need Requirement) error {
	probed.Lock()
	defer probed.Unlock()
	if err, ok := probed.found[need]; ok {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeLimit)
	defer cancel()
	var err error
	switch need {
	case Root:
		if os.Geteuid() != 0 {
			err = errors.New("run as root")
		}
	case Loop:
		err = probeLoop(ctx)
	case E2fsprogs:
		err = probeE2fsprogs(ctx)
	case Promtool:
		err = probePromtool(ctx)
	case Postgres:
		err = guests.ProbePostgres()
	case Wine:
		err = wine.ProbeWine(ctx)
	case Mingw:
		err = wine.ProbeMingw(ctx)
	case Osslsigncode:
		err = probeVersions(ctx, "apt install osslsigncode openssl", []string{"osslsigncode", "--version"}, []string{"openssl", "version"})
	case Smbd:
		err = smb.Probe(ctx)
	case Smbclient:
		err = smb.ProbeClient(ctx)
	case PythonWinRM:
		err = judge.ProbeWinRM(ctx)
	case Msitools:
		err = probeVersions(ctx, "apt install msitools wixl", []string{"wixl", "--version"}, []string{"msiinfo", "--version"})
	case Nfpm:
		err = probeNfpm(ctx)
	case Systemd:
		err = probeVersions(ctx, "apt install systemd", []string{"systemd-analyze", "--version"})
	default:
		err = errors.New("nobody knows how to probe it")
	}
	probed.found[need] = err
	return err
}

// probeLoop freezes and thaws in one program, so that nothing stays frozen when this process dies.
func probeLoop(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "stillframe-need-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	script := `set -e; trap 'fsfreeze -u m 2>/dev/null || true; umount m 2>/dev/null || true' EXIT
truncate -s 16M d; mkfs.ext4 -q d; mkdir m; mount -o loop d m; fsfreeze -f m; fsfreeze -u m`
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mount a loop device and freeze it (as root on Debian: apt install e2fsprogs util-linux): %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func probeE2fsprogs(ctx context.Context) error {
	for _, tool := range []string{"e2fsck", "dumpe2fs", "debugfs", "mkfs.ext4"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			path = filepath.Join("/usr/sbin", tool)
		}
		if err := exec.CommandContext(ctx, path, "-V").Run(); err != nil {
			return fmt.Errorf("run %s (apt install e2fsprogs): %w", tool, err)
		}
	}
	return nil
}

// probePromtool has promtool judge one good metric.
func probePromtool(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader("# HELP probe_total A probe.\n# TYPE probe_total counter\nprobe_total 1\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run promtool check metrics (apt install --no-install-recommends prometheus): %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// probeVersions runs each of the commands; how is how to install them.
func probeVersions(ctx context.Context, how string, commands ...[]string) error {
	for _, c := range commands {
		if err := exec.CommandContext(ctx, c[0], c[1:]...).Run(); err != nil {
			return fmt.Errorf("run %s (%s): %w", c[0], how, err)
		}
	}
	return nil
}

// probeNfpm looks for it in the tree that the working directory lies in.
func probeNfpm(ctx context.Context) error {
	dir, err := os.Getwd()
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if nfpm := filepath.Join(dir, ".tools", "nfpm"); exec.CommandContext(ctx, nfpm, "--version").Run() == nil {
			return probeVersions(ctx, "apt install dpkg", []string{"dpkg-deb", "--version"})
		}
	}
	return errors.Join(errors.New("no .tools/nfpm that runs: make .tools/nfpm"), err)
}

func reportSkip(test string, need Requirement, why error) error {
	path := os.Getenv("STILLFRAME_TEST_REPORT")
	if path == "" {
		return nil
	}
	line, err := json.Marshal(map[string]string{"test": test, "need": string(need), "why": why.Error()})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
