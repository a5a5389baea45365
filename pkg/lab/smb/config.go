package smb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// protections are the settings of each kind.
var protections = map[Kind]string{
	Encrypted: `smb encrypt = required
server signing = mandatory
server min protocol = SMB2_10`,
	Signing: `smb encrypt = off
server signing = mandatory
server min protocol = SMB2_10`,
	Old: `server min protocol = NT1
server max protocol = NT1`,
	OldEncrypted: `smb encrypt = required
server signing = mandatory
server min protocol = SMB2_02
server max protocol = SMB2_10`,
}

// write makes smb.conf and all that it names.
func (o Options) write(address netip.AddrPort, members []member) error {
	guest := "never"
	if o.MapToGuest {
		guest = "bad password"
	}
	helpers := "yes"
	if o.OwnPipes {
		helpers = "no"
	}
	lines := []string{
		"[global]",
		"workgroup = WORKGROUP",
		"netbios name = LABVM",
		"server role = standalone server",
		// The netmask is that of lo, without which Samba does not find the address on an interface.
		fmt.Sprintf("interfaces = %s/8", address.Addr()),
		"bind interfaces only = yes",
		fmt.Sprintf("smb ports = %d", address.Port()),
		"disable netbios = yes",
		"passdb backend = tdbsam:" + filepath.Join(o.Dir, "private", "passdb.tdb"),
		"username map = " + filepath.Join(o.Dir, "users.map"),
		"log level = 0 auth_audit:3", // who logged on, and who was not let in
		"log file = " + filepath.Join(o.Dir, "log", "log.%m"),
		"ntlm auth = ntlmv2-only",
		"map to guest = " + guest,
		"load printers = no",
		"printing = bsd",
		"printcap name = /dev/null",
		"disable spoolss = yes",
		"usershare max shares = 0",
		"rpc start on demand helpers = " + helpers,
		protections[o.Kind],
	}
	for _, setting := range []string{"private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir"} {
		folder, _, _ := strings.Cut(setting, " ")
		lines = append(lines, setting+" = "+filepath.Join(o.Dir, folder))
	}
	for _, share := range []struct{ name, folder string }{{"ADMIN$", o.Windows}, {"C$", o.Drive}} {
		if share.folder != "" {
			valid := administrators(members) // who work as root, whoever they are
			lines = append(lines, "["+share.name+"]", "path = "+share.folder, "read only = no", "valid users = "+valid, "admin users = "+valid)
		}
	}
	var errs []error
	for _, folder := range []string{"private", "lock", "state", "cache", "pid", "ncalrpc", "ncalrpc/np", "log"} {
		errs = append(errs, os.Mkdir(filepath.Join(o.Dir, folder), 0o700))
	}
	// The mode that Samba wants of it.
	errs = append(errs, os.Chmod(filepath.Join(o.Dir, "ncalrpc"), 0o755))
	errs = append(errs, os.WriteFile(filepath.Join(o.Dir, "smb.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return errors.Join(append(errs, os.WriteFile(filepath.Join(o.Dir, "users.map"), []byte(userMap(members)), 0o600))...)
}

// addressTries bounds the search for a free address.
const addressTries = 32

// freeAddress is an address of loopback at which nobody listens on the port right now.
func freeAddress(ctx context.Context, port uint16) (netip.AddrPort, error) {
	var config net.ListenConfig
	var err error
	for range addressTries {
		var tail [2]byte
		rand.Read(tail[:])
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 70, tail[0], tail[1] | 1}), port)
		var l net.Listener
		if l, err = config.Listen(ctx, "tcp4", at.String()); err == nil {
			return at, l.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return netip.AddrPort{}, fmt.Errorf("find an address of loopback whose port %d is free (is a server at all addresses? systemctl stop smbd): %w", port, err)
}
