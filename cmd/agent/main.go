// Command stillframe-agent freezes and thaws the guest that it runs in.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/stillframe/stillframe/pkg/agent/hook"
)

// version is set by the linker: -ldflags "-X main.version=...".
var version = "dev"

const usage = `usage: stillframe-agent COMMAND

  run --peer HEX64 --deployment ID --port N --ready-file PATH [--only-mount DIR]...
          serve one orchestrator, then leave
  thaw    release what a dead agent left frozen
  version print the version

The commands watchdog and hook-watchdog are started by run only.
`

// The exit statuses.
const (
	exitOK     = 0
	exitThawed = 9 // of thaw: something was still frozen, and has been released
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		return say(stderr, exitUsage, usage)
	}
	switch command, rest := args[0], args[1:]; command {
	case "run":
		return runAgent(rest, stdout, stderr)
	case "watchdog":
		return runWatchdog(rest, stderr)
	case hook.Command:
		return runHookWatchdog(rest, stderr)
	case "thaw":
		return runThaw(rest, stdout, stderr)
	case "version":
		if len(rest) > 0 {
			return say(stderr, exitUsage, usage)
		}
		return say(stdout, exitOK, "stillframe-agent "+version+"\n")
	case "help", "-h", "--help":
		return say(stdout, exitOK, usage)
	default:
		return say(stderr, exitUsage, fmt.Sprintf("unknown command %q\n%s", command, usage))
	}
}

// say prints text and returns status, or exitFailed when nobody can read it and all was well otherwise.
func say(w io.Writer, status int, text string) int {
	if _, err := io.WriteString(w, text); err != nil && status == exitOK {
		return exitFailed
	}
	return status
}
