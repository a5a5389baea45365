package provider

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// gate is what a hold waits at: an event of the system, so that the system's own timer ends the wait.
type gate struct{ event windows.Handle }

func newGate() (gate, error) {
	event, err := windows.CreateEvent(nil, 1, 0, nil) // manual reset, closed, without a name that others could open
	if err != nil {
		return gate{}, fmt.Errorf("make the event of a hold: %w", err)
	}
	return gate{event}, nil
}

// wait says whether the gate was opened within ms milliseconds.
func (g gate) wait(ms uint32) (bool, error) {
	woken, err := windows.WaitForSingleObject(g.event, ms)
	if err != nil {
		return false, fmt.Errorf("wait at the event of a hold: %w", err)
	}
	return woken == windows.WAIT_OBJECT_0, nil
}

func (g gate) open() error {
	if err := windows.SetEvent(g.event); err != nil {
		return fmt.Errorf("open the event of a hold: %w", err)
	}
	return nil
}

func (g gate) close() error { return windows.CloseHandle(g.event) }

func threadID() int { return int(windows.GetCurrentThreadId()) }
