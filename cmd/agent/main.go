// Command stillframe-agent freezes and thaws the guest that it runs in.
package main

import (
	"fmt"
	"io"
	"os"
)

// version is set by the linker: -ldflags "-X main.version=...".
var version = "dev"

// The exit statuses.
const (
	exitOK     = 0
	exitThawed = 9 // of thaw: something was still frozen, and has been released
	exitFailed = 1
	exitUsage  = 2
	exitUnfit  = 7 // of selftest: the guest is not fit for a freeze
)

// command is one word of the command line; it returns the exit status.
type command func(args []string, stdout, stderr io.Writer) int

func main() { leave(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	args, err := begin(args)
	if err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("start: %v\n", err))
	}
	if len(args) == 0 {
		return say(stderr, exitUsage, usage)
	}
	word, rest := args[0], args[1:]
	if c, ok := commands()[word]; ok {
		return c(rest, stdout, stderr)
	}
	switch word {
	case "version":
		if len(rest) > 0 {
			return say(stderr, exitUsage, usage)
		}
		return say(stdout, exitOK, "stillframe-agent "+version+"\n")
	case "help", "-h", "--help":
		return say(stdout, exitOK, usage)
	default:
		return say(stderr, exitUsage, fmt.Sprintf("unknown command %q\n%s", word, usage))
	}
}

// say prints text and returns status, or exitFailed when nobody can read it and all was well otherwise.
func say(w io.Writer, status int, text string) int {
	if _, err := io.WriteString(w, text); err != nil && status == exitOK {
		return exitFailed
	}
	return status
}
