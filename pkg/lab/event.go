package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Happening is one event that has happened.
type Happening struct {
	Event string    `json:"event"`
	VM    string    `json:"vm"`
	At    time.Time `json:"at"`
	// Error is why it could not be done, empty when it was.
	Error string `json:"error,omitempty"`
}

type eventLog struct {
	mu    sync.Mutex
	fired []bool
	log   []Happening
}

// Happenings lists the events that have happened, the oldest first.
func (w *World) Happenings() []Happening {
	w.events.mu.Lock()
	defer w.events.mu.Unlock()
	return append([]Happening{}, w.events.log...)
}

// schedule sets off the events of a point, each once. vm is the VM that it is about; what is about none, such as
// the start, is due for all. It does not block, but for what is due at the very end of a hold.
func (w *World) schedule(point, vm string) {
	for i, e := range w.scenario.Events {
		name, after, err := e.point()
		if err != nil || name != point || (vm != "" && e.VM != "" && e.VM != vm) {
			continue
		}
		w.events.mu.Lock()
		due := !w.events.fired[i]
		w.events.fired[i] = true
		w.events.mu.Unlock()
		switch {
		case due && point == "hold.end" && after == 0: // the freezer must not hear of the release before
			undo, err := w.do(e, w.machine(e.VM))
			w.note(e.Do, e.VM, err)
			w.done.Go(func() { w.undo(e, undo) })
		case due:
			w.done.Go(func() { w.play(e, after) })
		}
	}
}

// play waits, does the event, and undoes it after its time.
func (w *World) play(e Event, after time.Duration) {
	if !w.pause(after) {
		return
	}
	undo, err := w.do(e, w.machine(e.VM))
	w.note(e.Do, e.VM, err)
	w.undo(e, undo)
}

// undo undoes an event after its time.
func (w *World) undo(e Event, undo func() error) {
	if undo == nil || e.For == 0 || !w.pause(e.For) {
		return
	}
	w.note("end of "+e.Do, e.VM, undo())
}

// do does an event; undo, when there is one, takes it back.
func (w *World) do(e Event, m *machine) (undo func() error, err error) {
	if strings.HasPrefix(e.Do, "vcenter_") {
		return w.doVCenter(e)
	}
	if m == nil {
		return nil, fmt.Errorf("%q has no guest", e.VM)
	}
	if oneOf(e.Do, windowsEvents...) {
		return nil, w.doWindows(e, m)
	}
	if e.Do == "stall_share" {
		return w.doWay(e, m)
	}
	restore := func() error { m.proxy.Restore(); return nil }
	switch e.Do {
	case "cut_connection":
		m.proxy.Cut(e.For > 0)
		return restore, nil
	case "stall_connection":
		m.proxy.Stall()
		return restore, nil
	case "stall_to_guest":
		m.proxy.StallToGuest()
		return restore, nil
	case "restore_connection":
		return nil, restore()
	case "kill_agent":
		return nil, w.signalAgents(m, syscall.SIGKILL)
	case "kill_hooks":
		return nil, m.killHooks()
	case "stop_agent":
		return func() error { return w.signalAgents(m, syscall.SIGCONT) }, w.signalAgents(m, syscall.SIGSTOP)
	case "stun":
		stun := func(sig syscall.Signal) error { _, err := w.managers.Stun(m.instance, sig); return err }
		m.stunned.Store(true)
		return func() error { return stun(syscall.SIGCONT) }, stun(syscall.SIGSTOP)
	case "thaw":
		held, err := m.guest.Thaw()
		if err == nil && !held {
			err = errors.New("nothing was held")
		}
		return nil, err
	case "reboot":
		return func() error { return w.vcenter.SetTools(m.instance, true) }, w.reboot(m, e.For == 0)
	case "vmotion":
		from := w.vcenter.HostOf(m.instance)
		return func() error { return w.vcenter.Migrate(m.instance, from) }, w.vcenter.Migrate(m.instance, e.To)
	case "end_tasks":
		return nil, w.vcenter.EndTasks(m.instance)
	case "power_off":
		return func() error { return w.vcenter.SetPower(m.instance, "poweredOn") }, errors.Join(w.crash(m), w.vcenter.SetPower(m.instance, "poweredOff"))
	case "tools_stop":
		return func() error { return w.vcenter.SetTools(m.instance, true) }, w.vcenter.SetTools(m.instance, false)
	default:
		return nil, fmt.Errorf("%q is no event", e.Do)
	}
}

// doVCenter does what happens to vCenter as a whole. What comes back later outlives whoever asked for it.
func (w *World) doVCenter(e Event) (undo func() error, err error) {
	restart := func(withNewCertificate bool) error {
		ctx, cancel := context.WithTimeout(w.detached(), restartLimit)
		defer cancel()
		return w.vcenter.Restart(ctx, withNewCertificate)
	}
	switch e.Do {
	case "vcenter_stop":
		return func() error { return restart(false) }, w.vcenter.Stop()
	case "vcenter_restart":
		if e.For == 0 {
			return nil, restart(false)
		}
		return func() error { return restart(false) }, w.vcenter.Stop()
	case "vcenter_new_certificate":
		if e.For == 0 {
			return nil, restart(true)
		}
		return func() error { return restart(true) }, w.vcenter.Stop()
	case "vcenter_silence":
		w.vcenter.Silence()
		return func() error { w.vcenter.Speak(); return nil }, nil
	case "vcenter_drop_sessions":
		w.vcenter.DropSessions()
		return nil, nil
	case "vcenter_clock":
		w.vcenter.SetClock(e.By)
		return func() error { w.vcenter.SetClock(0); return nil }, nil
	default:
		return nil, fmt.Errorf("%q is no event of vCenter", e.Do)
	}
}

// restartLimit bounds the wait for vCenter's address.
const restartLimit = 5 * time.Second

// crash ends everything that runs in the guest at once, and what it held with it.
func (w *World) crash(m *machine) error {
	_, killed := w.managers.Stun(m.instance, syscall.SIGKILL)
	_, thawed := m.guest.Thaw()
	return errors.Join(killed, thawed)
}

// reboot is a reset: nothing of the system that ran survives, its files do, what lies in /run does not, and agents that
// are started later see another boot id. Tools come back at once, or when the event ends. The record writer of the lab
// goes on: it stands for the world outside.
func (w *World) reboot(m *machine, toolsAtOnce bool) error {
	errs := []error{w.vcenter.SetTools(m.instance, false), w.crash(m)}
	boot := uuid(rand.New(rand.NewPCG(rand.Uint64(), 0)))
	errs = append(errs, w.managers.SetEnv(m.instance, "STILLFRAME_LAB_BOOT_ID", boot))
	run := filepath.Join(m.dir, "run")
	entries, err := os.ReadDir(run)
	errs = append(errs, err)
	for _, entry := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(run, entry.Name())))
	}
	if toolsAtOnce {
		errs = append(errs, w.vcenter.SetTools(m.instance, true))
	}
	return errors.Join(errs...)
}

func (w *World) note(what, vm string, err error) {
	h := Happening{Event: what, VM: vm, At: time.Now()}
	if err != nil {
		h.Error = err.Error()
	}
	w.events.mu.Lock()
	defer w.events.mu.Unlock()
	w.events.log = append(w.events.log, h)
}

// pause waits; false when the world closed meanwhile.
func (w *World) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.stop:
		return false
	}
}

// signalAgents sends a signal to the agents which guest operations started in a guest. An agent's watchdog is another
// process, which the agent started itself, so it gets none.
func (w *World) signalAgents(m *machine, sig syscall.Signal) error {
	if m.vm.Guest == "wine" {
		return w.signalWindowsAgents(m, sig)
	}
	var errs []error
	sent := 0
	for _, p := range w.managers.Processes(m.instance) {
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err != nil || !isAgent(string(command)) {
			continue // it has gone, or is another program
		}
		if err := syscall.Kill(p.PID, sig); err != nil {
			errs = append(errs, fmt.Errorf("send %s to agent %d: %w", sig, p.PID, err))
			continue
		}
		sent++
	}
	if sent == 0 {
		errs = append(errs, errors.New("no agent runs"))
	}
	return errors.Join(errs...)
}

// isAgent says whether a command line is a serving agent's.
func isAgent(command string) bool {
	args := strings.Split(command, "\x00")
	return len(args) > 1 && strings.Contains(args[0], "stillframe-agent") && args[1] == "run"
}
