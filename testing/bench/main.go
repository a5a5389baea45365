// Command bench measures the freeze window of Stillframe beside a script of stock govc in one and the same lab.
//
// It needs root, because the guest is a real ext4 on a loop device. It leaves window.json and agent.json and exits with
// 1 when a bar is missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// options are the flags.
type options struct {
	stillframe, agent, govc, scenario, out string
	windows, scripts, memory               int
	binaries                               []string
}

func main() {
	if code, handled := guests.Helper(os.Args[1:]); handled {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1) // whatever the simulator still has in flight
	}
	os.Exit(0)
}

// run measures all figures, writes and prints them, and gives an error when one of them misses its bar.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	w, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	window, err := w.measureWindows(ctx)
	if err != nil {
		return err
	}
	agent, err := w.measureAgent(ctx)
	if err != nil {
		return err
	}
	for name, v := range map[string]any{"window.json": window, "agent.json": agent} {
		if err := writeJSON(filepath.Join(o.out, name), v); err != nil {
			return err
		}
	}
	if err := show(stdout, window, agent); err != nil {
		return err
	}
	return errors.Join(window.missed(), agent.missed())
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.stillframe, "stillframe", "build/stillframe", "the stillframe binary")
	flags.StringVar(&o.agent, "agent", "build/lab/stillframe-agent", "the agent binary, built with -tags lab")
	flags.StringVar(&o.govc, "govc", ".tools/govc", "the stock govc")
	flags.StringVar(&o.scenario, "scenario", "testing/bench/window.yaml", "the world")
	flags.StringVar(&o.out, "out", "build/bench", "folder for the figures and the world's files")
	flags.IntVar(&o.windows, "windows", 30, "windows of stillframe at each round trip")
	flags.IntVar(&o.scripts, "scripts", 10, "windows of the govc script at each round trip")
	flags.IntVar(&o.memory, "memory", 3, "windows in which the agent's memory is read")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.windows < 1 || o.scripts < 1 || o.memory < 1 {
		return o, errors.New("each number of windows is at least 1")
	}
	o.binaries = flags.Args()
	for _, path := range []*string{&o.stillframe, &o.agent, &o.govc, &o.out} {
		full, err := filepath.Abs(*path)
		if err != nil {
			return o, err
		}
		*path = full
	}
	if os.Geteuid() != 0 {
		return o, errors.New("only root can freeze a file system: run it as root")
	}
	return o, nil
}
