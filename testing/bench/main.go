// Command bench measures the freeze window of Stillframe beside a script of stock govc in one and the same lab.
//
// It needs root, because the guest is a real ext4 on a loop device, Wine for a Windows guest, and Samba for the roads into one. It
// also measures the daemon, which needs none of them. It leaves window.json, agent.json, vss.json, roads.json and daemon.json and
// exits with 1 when a bar is missed.
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
	"slices"
	"syscall"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// options are the flags.
type options struct {
	stillframe, agent, govc, scenario, out  string
	windowsAgent, programs, windowsScenario string
	roadsScenario                           string
	windows, scripts, memory, vss, roads    int
	part                                    string
	binaries                                []string
}

func main() {
	if code, handled := guests.Helper(os.Args[1:]); handled {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == peersWord:
		err = servePeers(ctx, os.Args[2], os.Stdin, os.Stdout)
	case len(os.Args) == 4 && os.Args[1] == labWord:
		err = serveLab(ctx, os.Args[2], os.Args[3], os.Stdin, os.Stdout)
	case len(os.Args) == 3 && os.Args[1] == leaveWord:
		err = leaveRuns(ctx, os.Args[2], os.Stdin, os.Stdout)
	default:
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
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
	var missed []error
	if o.measures("guests") {
		late, err := guestsOf(ctx, o, stdout)
		if err != nil {
			return err
		}
		missed = append(missed, late)
	}
	if o.measures("roads") {
		slow, err := roadsOf(ctx, o, lacksRoads, stdout)
		if err != nil {
			return err
		}
		missed = append(missed, slow)
	}
	if o.measures("daemon") {
		f, err := measureDaemon(ctx, o)
		if err != nil {
			return err
		}
		if err := errors.Join(writeJSON(filepath.Join(o.out, "daemon.json"), f), showDaemon(stdout, f)); err != nil {
			return err
		}
		missed = append(missed, f.missed())
	}
	return errors.Join(missed...)
}

// measures says whether a part is asked for.
func (o options) measures(part string) bool { return o.part == "all" || o.part == part }

// guestsOf measures what goes on in guests. It gives the bars that were missed, and an error when something was not measured.
func guestsOf(ctx context.Context, o options, stdout io.Writer) (missed, err error) {
	window, agent, err := linux(ctx, o)
	if err != nil {
		return nil, err
	}
	shadow, err := measureVSS(ctx, o)
	if err != nil {
		return nil, err
	}
	for name, v := range map[string]any{"window.json": window, "agent.json": agent, "vss.json": shadow} {
		if err := writeJSON(filepath.Join(o.out, name), v); err != nil {
			return nil, err
		}
	}
	return errors.Join(window.missed(), agent.missed(), shadow.missed()), show(stdout, window, agent, shadow)
}

// linux measures the window beside the script, and the agent, in the world with a file system.
func linux(ctx context.Context, o options) (window windowFigures, agent agentFigures, err error) {
	w, err := open(ctx, o)
	if err != nil {
		return window, agent, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	if window, err = w.measureWindows(ctx); err != nil {
		return window, agent, err
	}
	agent, err = w.measureAgent(ctx)
	return window, agent, err
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
	flags.StringVar(&o.windowsAgent, "windows-agent", "build/lab/stillframe-agent.exe", "the agent for Windows, built with -tags lab")
	flags.StringVar(&o.programs, "wine-programs", "build/wine", "folder of winelab's programs")
	flags.StringVar(&o.windowsScenario, "windows-scenario", "testing/bench/vss.yaml", "the world of the Windows guest")
	flags.IntVar(&o.vss, "vss", 20, "windows of the Windows guest")
	flags.StringVar(&o.roadsScenario, "roads-scenario", "testing/bench/roads.yaml", "the world of the roads into a Windows guest")
	flags.IntVar(&o.roads, "roads", 5, "runs of each road into a Windows guest at each round trip")
	flags.IntVar(&o.windows, "windows", 30, "windows of stillframe at each round trip")
	flags.IntVar(&o.scripts, "scripts", 10, "windows of the govc script at each round trip")
	flags.IntVar(&o.memory, "memory", 3, "windows in which the agent's memory is read")
	flags.StringVar(&o.part, "part", "all", "what to measure: guests, roads, daemon or all")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if !slices.Contains([]string{"all", "guests", "roads", "daemon"}, o.part) {
		return o, fmt.Errorf("--part %q is not guests, roads, daemon or all", o.part)
	}
	if o.windows < 1 || o.scripts < 1 || o.memory < 1 || o.vss < 1 || o.roads < 1 {
		return o, errors.New("each number of windows is at least 1")
	}
	o.binaries = flags.Args()
	for _, path := range []*string{&o.stillframe, &o.agent, &o.govc, &o.out, &o.windowsAgent, &o.programs} {
		full, err := filepath.Abs(*path)
		if err != nil {
			return o, err
		}
		*path = full
	}
	if os.Geteuid() != 0 && o.part != "daemon" {
		return o, errors.New("only root can freeze a file system: run it as root")
	}
	return o, nil
}
