package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
)

// The keys of the mailbox: what the orchestrator writes, and what the guest does.
const (
	keyDown = "guestinfo.stillframe.down"
	keyUp   = "guestinfo.stillframe.up"
)

// How often the guest looks at its key: often while it is armed or holds, when every word counts.
const (
	pollQuick = 50 * time.Millisecond
	pollSlow  = 250 * time.Millisecond
)

// guestinfo are the variables that a guest shares with its hypervisor.
type guestinfo interface {
	read(key string) (string, error)
	write(key, value string) error
}

// errNoGuestinfo is why there is no mailbox.
var errNoGuestinfo = errors.New("this is no VM on VMware, or its hypervisor does not answer")

// guestBox is the guest's side of the mailbox.
type guestBox struct {
	info  guestinfo
	quick atomic.Bool
}

// openBox makes sure that the guest can write, which isolation settings of the VM may forbid, and empties its key.
func openBox(info guestinfo) (*guestBox, error) {
	err := info.write(keyUp, "")
	if err == nil {
		_, err = info.read(keyDown)
	}
	if err != nil {
		return nil, refusedBox(err)
	}
	return &guestBox{info: info}, nil
}

func refusedBox(err error) error {
	return &agent.CodedError{Code: "SF3850", Err: fmt.Errorf("use the mailbox in guestinfo: %w", err)}
}

// Put implements mailbox.Box.
func (b *guestBox) Put(_ context.Context, text string) error { return b.info.write(keyUp, text) }

// Next implements mailbox.Box.
func (b *guestBox) Next(ctx context.Context, last string) (string, error) {
	for {
		text, err := b.info.read(keyDown)
		if err != nil || text != last {
			return text, err
		}
		pause := pollSlow
		if b.quick.Load() {
			pause = pollQuick
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", context.Cause(ctx)
		}
	}
}
