package smb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Probe starts a server and ends it.
func Probe(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "stillframe-need-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := Start(ctx, Options{Kind: Encrypted, Dir: dir, Accounts: []Account{{Name: administrator, Password: "Probe.1"}}})
	if err != nil {
		return fmt.Errorf("%w (on Debian as root: apt install samba)", err)
	}
	return s.Close()
}

// ProbeClient has smbclient find out that nobody listens.
func ProbeClient(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "smbclient", "-s", "/dev/null", "-N", "-p", "1", "//127.0.0.1/none", "-c", "quit")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(string(out), "NT_STATUS_CONNECTION_REFUSED") {
		return nil
	}
	return errors.Join(fmt.Errorf("run smbclient (on Debian as root: apt install smbclient): %s", strings.TrimSpace(string(out))), err)
}
