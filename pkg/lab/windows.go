package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// usualWriters are those that the fakes play when nothing else is said.
var usualWriters = []string{"exchange", "sql", "ntds", "system", "unknown"}

// checkWindows checks what only a wine guest has, and what it has not.
func (v VM) checkWindows() error {
	var errs []error
	if v.Guest != "wine" {
		if len(v.Writers) > 0 || len(v.VSS) > 0 {
			errs = append(errs, errors.New("writers and vss need a wine guest"))
		}
		return errors.Join(errs...)
	}
	if v.RootSize > 0 {
		errs = append(errs, errors.New("a wine guest has no root_size"))
	}
	for _, w := range v.Writers {
		if w == "" || strings.ContainsAny(w, ". =#\n") {
			errs = append(errs, fmt.Errorf("writer %q is no plain word", w))
		}
	}
	for key, value := range v.VSS {
		if line := fmt.Sprint(key, value); strings.ContainsAny(line, "#\n") {
			errs = append(errs, fmt.Errorf("vss.%s: %q has a # or more than one line", key, line))
		}
	}
	return errors.Join(errs...)
}

// administrator is the name of the guest's administrator.
func (v VM) administrator() string {
	if v.Guest == "wine" || v.Ways.any() {
		return "Administrator"
	}
	return "root"
}

// vssConfig is the fakes' config: keys in their order, after the writers that are there and those that are not.
func (v VM) vssConfig() []string {
	var lines []string
	if len(v.Writers) > 0 {
		for _, w := range usualWriters {
			if !slices.Contains(v.Writers, w) {
				lines = append(lines, "writer."+w+".present = 0")
			}
		}
		for _, w := range v.Writers {
			lines = append(lines, "writer."+w+".present = 1")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.VSS)) {
		lines = append(lines, fmt.Sprintf("%s = %v", key, v.VSS[key]))
	}
	return lines
}

// root is the folder that stands for the guest's /, or for its drive C:.
func (m *machine) root() string {
	if g, ok := m.guest.(*guests.Wine); ok {
		return g.Root()
	}
	return filepath.Join(m.dir, "root")
}

func (m *machine) startWine(ctx context.Context, programs string) error {
	g, err := guests.StartWine(ctx, guests.WineOptions{
		Name: m.vm.Name, Dir: m.dir, Programs: programs, SizeBytes: m.vm.diskSize(), VSS: m.vm.vssConfig(),
	})
	if err == nil {
		m.guest = g
	}
	return err
}

// signalWindowsAgents sends a signal to the processes of this computer that are a wine guest's serving agents: services,
// which their launchers, that guest operations know, outlive for a moment only.
func (w *World) signalWindowsAgents(m *machine, sig syscall.Signal) error {
	var errs []error
	sent := 0
	for _, pid := range w.managers.Inside(m.instance) {
		command, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil || !isWindowsAgent(string(command)) {
			continue // it has gone, or is another program
		}
		if err := syscall.Kill(pid, sig); err != nil {
			errs = append(errs, fmt.Errorf("send %s to agent %d: %w", sig, pid, err))
			continue
		}
		sent++
	}
	if sent == 0 {
		errs = append(errs, errors.New("no agent runs"))
	}
	return errors.Join(errs...)
}

// doWindows does what only happens in a wine guest.
func (w *World) doWindows(e Event, m *machine) error {
	g, ok := m.guest.(*guests.Wine)
	if !ok {
		return fmt.Errorf("%q is no wine guest", e.VM)
	}
	ctx := w.detached()
	switch e.Do {
	case "other_backup":
		return g.OtherBackup(ctx)
	case "old_registration":
		return g.RegisterOld(ctx)
	default: // stop_service
		for _, pid := range w.managers.Inside(m.instance) {
			command, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			if err != nil || !isWindowsAgent(string(command)) {
				continue // it has gone, or is another program
			}
			return g.StopService(ctx, windowsService(string(command)))
		}
		return errors.New("no agent runs")
	}
}

// windowsEvents are the words of Event.Do that need a wine guest.
var windowsEvents = []string{"stop_service", "other_backup", "old_registration"}

// windowsService is the name of the service of a serving agent, by its command line.
func windowsService(command string) string {
	args := strings.Split(command, "\x00")
	i := slices.Index(args, "--deployment")
	return "Stillframe-" + args[min(i+1, len(args)-1)]
}

// Look is what the lab sees in a wine guest; found is false when there is no such guest.
func (w *World) Look(ctx context.Context, name string) (look guests.Look, found bool, err error) {
	g, _ := w.Guest(name)
	windows, found := g.(*guests.Wine)
	if found {
		look, err = windows.Look(ctx)
	}
	return look, found, err
}

// isWindowsAgent says whether a command line is a serving agent's. A lab's one is told its seams before the command.
func isWindowsAgent(command string) bool {
	args := strings.Split(command, "\x00")
	return strings.HasSuffix(strings.ToLower(args[0]), "stillframe-agent.exe") && slices.Contains(args[1:], "service")
}
