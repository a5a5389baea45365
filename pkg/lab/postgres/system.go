// Package postgres runs a real PostgreSQL of this machine's packages for tests.
package postgres

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// capDACReadSearch lets the server's user pass folders that only root may (linux/capability.h): the lab's folders.
const capDACReadSearch = 2

// System is a PostgreSQL that is installed on this machine, with the user that it runs as.
type System struct {
	bin, User string
	UID, GID  uint32
}

// Find looks where Debian puts it. Root runs it as its own user, because it refuses root; others run it as themselves.
func Find() (System, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return System{}, errors.Join(errors.New("no PostgreSQL is installed (on Debian as root: apt install postgresql-15)"), err)
	}
	slices.Sort(found)
	s := System{bin: filepath.Dir(found[len(found)-1]), User: "postgres", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if os.Geteuid() != 0 {
		return s, nil
	}
	u, err := user.Lookup(s.User)
	if err != nil {
		return s, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return s, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	s.UID, s.GID = uint32(uid), uint32(gid)
	return s, err
}

// Command is a program of PostgreSQL under its own user, which may pass the lab's folders.
func (s System) Command(name string, args ...string) *exec.Cmd {
	cmd := &exec.Cmd{
		Path: filepath.Join(s.bin, name), Args: append([]string{name}, args...), Dir: "/", Env: []string{"PATH=" + s.bin + ":/usr/bin:/bin", "LC_ALL=C"},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.UID, Gid: s.GID}
		cmd.SysProcAttr.AmbientCaps = []uintptr{capDACReadSearch}
	}
	return cmd
}
