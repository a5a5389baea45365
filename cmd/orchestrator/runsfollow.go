package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
)

// Times of a follower: how often runs are read without any event, the least time between two readings, and between two
// attempts to follow the events.
const (
	followEvery  = 2 * time.Second
	followLeast  = 200 * time.Millisecond
	followResume = 2 * time.Second
)

func (c *cli) runsFollowCommand() *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: "follow RUN [RUN ...]", Short: "Follow runs until they have ended", Args: cobra.MinimumNArgs(1),
		Long: `Prints a line on standard error whenever a run goes on, on a terminal with a bar of how many have ended, and what became of all of them on standard
output in the end. The exit status is that of the worst run, as "stillframe run" would have it. Ctrl-C ends this command, never a run.`,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			ids := make([]string, len(args))
			for n, text := range args {
				var err error
				if ids[n], err = runID(text); err != nil {
					return err
				}
			}
			return c.follow(ctx, d, ids, f.output)
		}),
	}
	f.flags(cmd)
	cmd.ValidArgsFunction = c.completed(&f, 1<<30, unfinishedNames)
	return cmd
}

// follow watches runs until all have ended. Events only say when to look; what counts is what the daemon answers.
func (c *cli) follow(ctx context.Context, d *client.Client, ids []string, output string) error {
	wake, stop := followed(ctx, d)
	defer stop()
	p := progress{c: c, live: onTerminal(c.stderr), all: len(ids)}
	last := map[string]api.Run{}
	for {
		for _, id := range ids {
			if known, seen := last[id]; seen && over(known) {
				continue
			}
			r, err := d.Run(ctx, id)
			if err != nil {
				p.end()
				return err
			}
			if known, seen := last[id]; !seen || known.State != r.State || known.Phase != r.Phase || known.Attempt != r.Attempt {
				p.moved(r)
			}
			last[id] = r
		}
		p.ended = 0
		for _, r := range last {
			if over(r) {
				p.ended++
			}
		}
		if p.draw(); p.ended == len(last) {
			p.end()
			return c.followedTo(ids, last, output)
		}
		if err := pause(ctx, followLeast, nil); err != nil {
			return err
		}
		if err := pause(ctx, followEvery, wake); err != nil {
			return err
		}
	}
}

// pause waits for a time, or until it is woken. Its error is why ctx ended.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
	case <-wake:
	}
	return nil
}

// followed wakes its caller whenever something happens to a run. stop ends it and waits for that.
func followed(ctx context.Context, d *client.Client) (<-chan struct{}, func()) {
	ctx, cancel := context.WithCancel(ctx)
	wake, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			//nolint:errcheck // the reading of the runs tells when the daemon is away; here it is only tried again
			d.Follow(ctx, []string{"runs", "windows"}, "", func(api.Event) error {
				select {
				case wake <- struct{}{}:
				default:
				}
				return nil
			})
			if pause(ctx, followResume, nil) != nil {
				return
			}
		}
	}()
	return wake, func() { cancel(); <-done }
}

func over(r api.Run) bool {
	return r.State != "queued" && r.State != "running" && r.State != "compensating"
}

// followedTo prints what became of the runs and takes the exit status of the worst.
func (c *cli) followedTo(ids []string, last map[string]api.Run, output string) error {
	runs := make([]api.Run, 0, len(ids))
	for _, id := range ids {
		c.exit = worse(c.exit, exitOfEnded(last[id]))
		r := last[id]
		r.Report = nil
		runs = append(runs, r)
	}
	return c.listRuns(output, runs)
}

// byWeight are exit statuses, what one wants to hear about first in front; all others weigh alike.
var byWeight = []int{exitRecovery, exitBudget, exitInterrupted, exitAuth, exitPreflight, exitLocked, exitFailed, exitDegraded, exitOK}

func worse(a, b int) int {
	weight := func(status int) int {
		if n := slices.Index(byWeight, status); n >= 0 {
			return n
		}
		return slices.Index(byWeight, exitFailed)
	}
	if weight(b) < weight(a) {
		return b
	}
	return a
}

// exitOfEnded is the exit status that the run would have had as a command.
func exitOfEnded(r api.Run) int {
	status, coded := exitByCode[r.ErrorCode]
	switch result, ok := resultOf(r); {
	case ok && len(result.Leftovers) > 0:
		return exitRecovery
	case ok && (result.Window.SelfReleased || result.OverBudget()):
		return exitBudget
	case r.State == "done" && r.Outcome == "degraded":
		return exitDegraded
	case r.State == "done":
		return exitOK
	case r.Cause == "busy":
		return exitLocked
	case coded:
		return status
	}
	return exitFailed
}

// barOf is how many characters the bar of a follower is wide.
const barOf = 30

// progress tells people how runs go: a line a step, and on a terminal a bar below them.
type progress struct {
	c          *cli
	live       bool
	all, ended int
}

func (p *progress) moved(r api.Run) {
	text := fmt.Sprintf("%s  %-20s %s", p.c.now().UTC().Format("15:04:05Z"), r.VM, r.State)
	if over(r) {
		text += fmt.Sprintf("  %s %s %s", r.Outcome, r.Level, first(r.ErrorCode, r.Cause))
	} else if r.Phase != "" {
		text += "  " + r.Phase
	}
	if r.Attempt > 1 {
		text += fmt.Sprintf("  attempt %d", r.Attempt)
	}
	if r.State == "queued" && r.NextAttemptAt != nil && r.NextAttemptAt.After(p.c.now()) {
		text += fmt.Sprintf("  at %s: %s", r.NextAttemptAt.UTC().Format("15:04:05Z"), first(r.ErrorCode, r.Cause))
	}
	p.end()
	say(p.c.stderr, strings.TrimRight(text, " "))
}

// draw draws the bar, end takes it away.
func (p *progress) draw() {
	if p.live && p.all > 0 {
		full := barOf * p.ended / p.all
		fmt.Fprintf(p.c.stderr, "\r[%s%s] %d of %d have ended", strings.Repeat("#", full), strings.Repeat(".", barOf-full), p.ended, p.all)
	}
}

func (p *progress) end() {
	if p.live {
		fmt.Fprint(p.c.stderr, "\r\x1b[K")
	}
}
