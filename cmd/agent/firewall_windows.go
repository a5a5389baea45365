package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

// firewallLimit bounds one call of netsh, which takes some hundred milliseconds (unverified on a busy Windows).
const firewallLimit = 10 * time.Second

// firewallRule is an inbound rule of Windows' firewall for one agent: its program, its port, its orchestrator's addresses.
type firewallRule struct {
	name string
	exe  string
	port int
	from []netip.Addr
}

// open puts the rule in force, in place of one of that name which a killed agent left. Nothing may be held: it runs a program
// and writes the registry.
func (r firewallRule) open() error {
	if _, err := netsh("delete", "name="+r.name); err != nil {
		return err
	}
	var from []string
	for _, address := range r.from {
		from = append(from, address.String())
	}
	status, err := netsh("add", "name="+r.name, "dir=in", "action=allow", "enable=yes", "profile=any", "protocol=TCP",
		"localport="+strconv.Itoa(r.port), "remoteip="+strings.Join(from, ","), "program="+r.exe)
	return refused(status, err, "open the firewall for "+r.name)
}

// close takes the rule away; that it is not there any more is an error.
func (r firewallRule) close() error {
	status, err := netsh("delete", "name="+r.name)
	return refused(status, err, "close the firewall for "+r.name)
}

func refused(status int, err error, op string) error {
	if err == nil && status != exitOK {
		err = fmt.Errorf("netsh ended with status %d", status)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// forgetRules removes the rules of that name, if there are any: netsh ends with 1 when there are none.
func forgetRules(name string) error {
	_, err := netsh("delete", "name="+name)
	return err
}

// forgetRulesOf removes the rules of a program that was pushed, whatever their names: the program is nobody else's.
func forgetRulesOf(exe string) error {
	root, err := windows.GetSystemWindowsDirectory()
	if err != nil {
		return fmt.Errorf("find the folder of Windows: %w", err)
	}
	ours := filepath.Join(root, "Stillframe") + `\`
	if len(exe) < len(ours) || !strings.EqualFold(exe[:len(ours)], ours) {
		return nil
	}
	_, err = netsh("delete", "name=all", "program="+exe)
	return err
}

// netsh has the firewall's own program in System32 add or delete a rule, and gives its exit status. The words are ours or have
// been read as addresses and numbers; there is no shell.
func netsh(verb string, rule ...string) (status int, err error) {
	system, err := windows.GetSystemDirectory()
	if err != nil {
		return 0, fmt.Errorf("find the folder of the system: %w", err)
	}
	program := filepath.Join(system, "netsh.exe")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	process, err := os.StartProcess(program, append([]string{program, "advfirewall", "firewall", verb, "rule"}, rule...), &os.ProcAttr{
		Dir: system, Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{HideWindow: true, CreationFlags: windows.CREATE_NO_WINDOW},
	})
	if err = errors.Join(err, null.Close()); err != nil {
		return 0, fmt.Errorf("run %s: %w", program, err)
	}
	type end struct {
		state *os.ProcessState
		err   error
	}
	done := make(chan end, 1)
	go func() {
		state, err := process.Wait()
		done <- end{state, err}
	}()
	limit := time.NewTimer(firewallLimit)
	defer limit.Stop()
	select {
	case e := <-done:
		if e.err != nil {
			return 0, fmt.Errorf("wait for %s: %w", program, e.err)
		}
		return e.state.ExitCode(), nil
	case <-limit.C:
		err := process.Kill()
		<-done
		return 0, errors.Join(fmt.Errorf("%s has not ended after %v", program, firewallLimit), err)
	}
}
