package lab

import (
	"errors"
	"fmt"
	"os"
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

// schedule sets off the events of a point, each once. vm is whose task it is; at the start all VMs' events are due. It
// does not block.
func (w *World) schedule(point, vm string) {
	for i, e := range w.scenario.Events {
		name, after, err := e.point()
		if err != nil || name != point || (vm != "" && e.VM != vm) {
			continue
		}
		w.events.mu.Lock()
		due := !w.events.fired[i]
		w.events.fired[i] = true
		w.events.mu.Unlock()
		if due {
			w.done.Go(func() { w.play(e, after) })
		}
	}
}

// play waits, does the event, and undoes it after its time.
func (w *World) play(e Event, after time.Duration) {
	if !w.pause(after) {
		return
	}
	m := w.machine(e.VM)
	undo, err := w.do(e, m)
	w.note(e.Do, e.VM, err)
	if undo == nil || e.For == 0 || !w.pause(e.For) {
		return
	}
	w.note("end of "+e.Do, e.VM, undo())
}

func (w *World) do(e Event, m *machine) (undo func() error, err error) {
	restore := func() error { m.proxy.Restore(); return nil }
	switch e.Do {
	case "cut_connection":
		m.proxy.Cut(e.For > 0)
		return restore, nil
	case "stall_connection":
		m.proxy.Stall()
		return restore, nil
	case "kill_agent":
		return nil, w.signalAgents(m, syscall.SIGKILL)
	case "stop_agent":
		return func() error { return w.signalAgents(m, syscall.SIGCONT) }, w.signalAgents(m, syscall.SIGSTOP)
	default:
		return nil, fmt.Errorf("%q is no event", e.Do)
	}
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
