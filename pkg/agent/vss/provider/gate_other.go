//go:build !windows

package provider

import (
	"sync"
	"time"
)

// gate stands for the event of Windows where the decisions of this package are tested.
type gate struct {
	opened chan struct{}
	once   *sync.Once
}

func newGate() (gate, error) { return gate{make(chan struct{}), new(sync.Once)}, nil }

func (g gate) wait(ms uint32) (bool, error) {
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-g.opened:
		return true, nil
	case <-timer.C:
		return false, nil
	}
}

func (g gate) open() error {
	g.once.Do(func() { close(g.opened) })
	return nil
}

func (g gate) close() error { return nil }

func threadID() int { return 0 }
