package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// runSelfTest freezes this guest once, without a hypervisor, and ends the session.
func runSelfTest(args []string, stdout, stderr io.Writer) int {
	ctx := context.Background()
	set := flag.NewFlagSet("selftest", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	mode := set.String("mode", "writer", "")
	hold := set.Duration("hold", time.Second, "")
	asJSON := set.Bool("json", false, "")
	limit := map[string]time.Duration{"io": agent.IODeadman, "writer": agent.Deadman}
	if err := set.Parse(args); err != nil || set.NArg() > 0 || *hold < 0 || *hold >= limit[*mode] {
		return say(stderr, exitUsage, "selftest: --mode is io or writer, --hold at most 8s or 17s\n"+usage)
	}
	s := selfTest{
		Mode: *mode, HoldSeconds: hold.Seconds(), Inventory: takeInventory(ctx), Writers: []protocol.Writer{}, Witness: map[string]string{},
	}
	s.run("token", exitUnfit, func() (string, error) { return fitToken(s.Inventory.Token) })
	s.run("services", exitUnfit, func() (string, error) { return fitServices(s.Inventory.Services) })
	s.run("volumes", exitUnfit, func() (string, error) { return fitVolumes(s.Inventory.Volumes) })
	if s.Status == exitOK {
		s.withProvider(ctx, *hold)
	}
	if err := s.print(stdout, *asJSON); err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("selftest: %v\n", err))
	}
	return s.Status
}

// withProvider registers the provider for this process alone: with the name of a service COM would start that.
func (s *selfTest) withProvider(ctx context.Context, hold time.Duration) {
	var h *host
	ok := s.run("registration", exitFailed, func() (string, error) {
		exe, err := executable()
		if err == nil {
			h, err = openHost(exe, "")
		}
		return "registered", err
	})
	if !ok {
		return
	}
	s.freeze(ctx, newFreezer(currentSeams(), h), hold)
	s.run("removal", exitFailed, func() (string, error) { return "unregistered", h.close() })
}

// freeze goes through a whole session.
func (s *selfTest) freeze(ctx context.Context, f agent.Settler, hold time.Duration) {
	defer s.run("session closed", exitFailed, func() (string, error) { return "closed", f.Close() })
	ok := s.run("prepare", exitFailed, func() (string, error) {
		p, err := f.Prepare(ctx, agent.PrepareRequest{
			Mode: s.Mode, BackupType: "copy", Deadman: agent.Deadman, IODeadman: agent.IODeadman, SecondNet: agent.SecondNet,
		})
		s.Writers = p.Writers
		return fmt.Sprintf("%d writers, %d volumes, set %s", len(p.Writers), len(p.Volumes), p.SetID), err
	})
	if !ok {
		return
	}
	var begin time.Time
	ok = s.run("freeze", exitFailed, func() (string, error) {
		held, err := f.Freeze(ctx, func() { begin = time.Now() })
		return "flush " + held.Flush, err
	})
	if ok {
		time.Sleep(hold)
	}
	s.run("thaw", exitFailed, func() (string, error) {
		r := f.Thaw(ctx)
		if r.Expired != "" {
			return "", fmt.Errorf("the hold was ended by %s before", r.Expired)
		}
		return fmt.Sprintf("held %.3f s", time.Since(begin).Seconds()), nil
	})
	if !ok {
		return
	}
	s.run("outcome", exitFailed, func() (string, error) {
		settled := f.Settle(ctx)
		s.Writers, s.Witness = settled.Writers, settled.Witness
		if !settled.Finished {
			return "", fmt.Errorf("the shadow copy set ended with %s", settled.Result)
		}
		return "the set is finished", nil
	})
	s.run("complete", exitFailed, func() (string, error) {
		done := f.Complete(ctx, agent.Completion{OK: "none"})
		if done.Err == nil && !done.Closed {
			done.Err = errors.New("the writers' session is still open")
		}
		return "result " + done.Result, done.Err
	})
}
