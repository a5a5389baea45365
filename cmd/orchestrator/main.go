// Command stillframe takes application-consistent snapshots of running VMs within a budget of 20 s.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr, os.Getenv))
}

// run builds the command tree and runs one command; it returns the exit status. The first SIGINT, SIGTERM or
// SIGHUP ends the run in good order - a held guest is thawed first -, the second one also ends the wait for a late snapshot task.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	giveUp := make(chan struct{})
	c := &cli{stdout: stdout, stderr: stderr, getenv: getenv, giveUp: giveUp, reload: make(chan struct{}, 1), now: wallClock(getenv)}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // a reader of our output that leaves must not end a run in its middle
	defer signal.Stop(signals)
	go func() {
		for n := 0; ; n++ {
			select {
			case got := <-signals:
				if got == syscall.SIGHUP && c.reloads.Load() {
					select {
					case c.reload <- struct{}{}:
					default: // one is due already
					}
					n--
					continue
				}
			case <-ctx.Done():
				if n == 0 {
					return
				}
				<-signals
			}
			switch n {
			case 0:
				if c.reloads.Load() {
					say(stderr, "ending: no run begins any more, and those at work come to their end first")
				} else {
					say(stderr, "interrupted: a held guest is thawed first, then the run is cleaned up and ends; once more ends the wait for a late snapshot task")
				}
				cancel(errInterrupted)
			case 1:
				close(giveUp)
				return
			}
		}
	}()
	root := c.root() //nolint:contextcheck // cobra hands ctx to each command's RunE
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		explain(stderr, err)
		return exitOf(err)
	}
	return c.exit
}
