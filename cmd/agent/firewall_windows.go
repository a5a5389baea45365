package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
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

// rulesPath is where Windows keeps the rules that are in force, one value each: "v2.30|Action=Allow|...|App=PROGRAM|Name=NAME|"
// (MS-GPFAS 2.2.2.19).
const rulesPath = `SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy\FirewallRules`

// orphanedRules names the rules of pushed agents whose program is gone: a run that found the agent killed took the program away
// from outside, and a rule can be taken away from inside only.
func orphanedRules() (names []string, err error) {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, rulesPath, registry.QUERY_VALUE)
	if err != nil {
		return nil, unlessAbsent(err)
	}
	values, err := key.ReadValueNames(0)
	for _, v := range values {
		text, _, readErr := key.GetStringValue(v)
		if readErr != nil {
			continue // it has gone meanwhile, or is none of ours
		}
		name, program := pushedRule(text)
		if name == "" {
			continue
		}
		if _, statErr := os.Stat(program); errors.Is(statErr, fs.ErrNotExist) {
			names = append(names, name)
		}
	}
	return names, errors.Join(err, key.Close())
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
