package judge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
)

// Login is whom smbclient is to be, and where.
type Login struct {
	Address           netip.AddrPort
	Account, Password string
	// Old lets smbclient speak SMB 1, which it refuses by itself.
	Old bool
}

// Share has smbclient run commands, apart by semicolons, on a share such as ADMIN$. Its output names the NTSTATUS of what
// was refused. OK means that it left with 0. Local files are taken from folder.
func Share(ctx context.Context, login Login, share, folder, commands string) (v Verdict, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	least := "SMB2_02"
	if login.Old {
		least = "NT1"
	}
	// Not even the machine's own smb.conf has a say.
	v = Verdict{Tool: "smbclient", Command: []string{
		"smbclient", "-s", "/dev/null", "--option=client min protocol=" + least, "--option=disable netbios=yes", "-A", "/dev/fd/3",
		"-p", strconv.Itoa(int(login.Address.Port())), "//" + login.Address.Addr().String() + "/" + share, "-c", commands,
	}}
	version, err := command(ctx, v.Tool, "--version").Output()
	if err != nil {
		return v, fmt.Errorf("ask smbclient for its version (on Debian as root: apt install smbclient): %w", err)
	}
	v.Version = string(version)
	secret, words, err := os.Pipe()
	if err != nil {
		return v, err
	}
	cmd := command(ctx, v.Tool, v.Command[1:]...)
	cmd.Dir, cmd.ExtraFiles = folder, []*os.File{secret}
	_, err = io.WriteString(words, "username = "+login.Account+"\npassword = "+login.Password+"\n")
	if err := errors.Join(err, words.Close()); err != nil {
		return v, errors.Join(err, secret.Close())
	}
	out, err := cmd.CombinedOutput()
	v.Output = string(out)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return v, secret.Close()
	}
	v.OK = err == nil
	return v, errors.Join(err, secret.Close())
}
