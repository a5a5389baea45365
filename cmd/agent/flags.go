package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// settings are the flags of `run`. They hold no secret: every user of the guest can read them.
type settings struct {
	peer       protocol.Fingerprint
	deployment string
	port       int // 0 lets the system choose
	// dial is where the agent dials; it does not listen then.
	dial      netip.AddrPort
	mailbox   bool // it does not listen either, and speaks by guestinfo
	readyFile string
	onlyMount []string
	allow     []netip.Addr // of the orchestrator; empty: no firewall is touched, and nobody is refused by his address
}

// isDeployment tells whether s may stand for a deployment; it is also used as the server name of TLS.
func isDeployment(s string) bool {
	const allowed = "0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(allowed, r) })
}

// given says whether a flag was on the command line.
func given(set *flag.FlagSet, name string) (found bool) {
	set.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// parseSettings is strict: anything missing, unknown or left over is an error.
func parseSettings(args []string) (settings, error) {
	var s settings
	var peer string
	set := flag.NewFlagSet("run", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&peer, "peer", "", "")
	set.StringVar(&s.deployment, "deployment", "", "")
	set.IntVar(&s.port, "port", 6465, "")
	set.Func("dial", "", func(text string) (err error) {
		s.dial, err = parseDial(text)
		return err
	})
	set.BoolVar(&s.mailbox, "mailbox", false, "")
	set.StringVar(&s.readyFile, "ready-file", "", "")
	set.Func("allow", "", s.addAllowed)
	set.Func("only-mount", "", func(dir string) error {
		if !filepath.IsAbs(dir) {
			return errors.New("not an absolute path")
		}
		s.onlyMount = append(s.onlyMount, filepath.Clean(dir))
		return nil
	})
	if err := set.Parse(args); err != nil {
		return settings{}, err
	}
	raw, err := hex.DecodeString(peer)
	switch {
	case set.NArg() > 0:
		return settings{}, fmt.Errorf("unexpected argument %q", set.Arg(0))
	case err != nil || len(raw) != len(s.peer):
		return settings{}, errors.New("--peer must be 64 hexadecimal digits")
	case !isDeployment(s.deployment):
		return settings{}, errors.New("--deployment must be 1 to 64 letters, digits or hyphens")
	case s.port < 0 || s.port > 65535:
		return settings{}, errors.New("--port must be 0 to 65535")
	case s.dial.IsValid() && s.mailbox, (s.dial.IsValid() || s.mailbox) && given(set, "port"):
		return settings{}, errors.New("--port, --dial and --mailbox exclude each other")
	case !filepath.IsAbs(s.readyFile):
		return settings{}, errors.New("--ready-file must be an absolute path")
	}
	copy(s.peer[:], raw)
	return s, nil
}
