// Command stillframe-lab runs worlds in which Stillframe is tested without VMware.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 64
)

const usage = `stillframe-lab: worlds in which Stillframe is tested without VMware

  stillframe-lab run SCENARIO.yaml [--dir DIR] [--ready-fd N]
        runs a scenario until SIGTERM or SIGINT; when it is ready it prints what to export, or one line of JSON on
        descriptor N. What a scenario may say: docs/vcsim.md
  stillframe-lab demo --stillframe PATH --agent PATH --out DIR [--scripted] [--scenario FILE]
        one true freeze window, with its proof; leaves DIR/report.json and DIR/proof.json
`

// version is stamped by the build.
var version = "dev"

func main() {
	if code, handled := guests.Helper(os.Args[1:]); handled {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code) // whatever the simulator still has in flight
}

// run does one command and returns its exit status; ctx ends with the first signal.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	command := "help"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "run":
		err = runScenario(ctx, args, stdout, stderr)
	case "demo":
		err = runDemo(ctx, args, stdout, stderr)
	case "version", "--version":
		_, err = fmt.Fprintln(stdout, "stillframe-lab", version)
	case "help", "-h", "--help":
		_, err = io.WriteString(stdout, usage)
	default:
		err = usageError{fmt.Errorf("unknown command %q", command)}
	}
	var wrong usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "stillframe-lab: %v\n%s", err, usage)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "stillframe-lab: %v\n", err)
		return exitFailed
	}
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }
