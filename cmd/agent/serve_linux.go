package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/fsfreeze"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// defaultHome is where a persistent agent keeps what is its own.
const defaultHome = "/var/lib/stillframe/agent/persistent"

// parseServe reads the flags of serve and install: those of run, without the ones that a persistent agent knows itself.
func parseServe(args []string, needPeer bool) (settings, error) {
	own := []string{"--deployment", persistent, "--ready-file", filepath.Join(currentSeams().homeDir, readyFileName)}
	given := slices.ContainsFunc(args, func(a string) bool {
		return strings.TrimLeft(a, "-") == "peer" || strings.HasPrefix(strings.TrimLeft(a, "-"), "peer=")
	})
	if given || needPeer {
		return parseSettings(append(slices.Clone(args), own...))
	}
	s, err := parseSettings(append(append([]string{"--peer", strings.Repeat("0", 2*len(protocol.Fingerprint{}))}, args...), own...))
	s.peer = protocol.Fingerprint{}
	return s, err
}

// runServe is the whole life of a persistent agent: it thaws what a dead one left, and serves session after session until it
// is stopped. A stop releases what is held first; the status is then that of thaw.
func runServe(args []string, stdout, stderr io.Writer) int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s, err := parseServe(args, false)
	if errors.Is(err, flag.ErrHelp) || err != nil {
		return say(stderr, exitUsage, fmt.Sprintf("serve: %v\n%s", err, usage))
	}
	for _, note := range fsfreeze.Harden() {
		say(stderr, exitOK, "note: "+note+"\n")
	}
	held, err := serve(ctx, s, stdout, stderr)
	switch {
	case held:
		return say(stdout, exitThawed, "the agent held the guest when it was stopped, and released it\n")
	case err != nil:
		return say(stderr, exitFailed, errorLine(err)+"\n")
	}
	return exitOK
}

// serve tells in the ready file how the start went, as long as it serves.
func serve(ctx context.Context, s settings, stdout, stderr io.Writer) (held bool, err error) {
	ready := readyFile{s.readyFile}
	options, err := prepareToServe(ctx, s, stderr)
	var h *home
	if err == nil {
		h, err = openHome(filepath.Dir(s.readyFile), s.peer)
	}
	if err != nil {
		return false, err // perhaps there is no folder to tell it in
	}
	release, err := h.lock()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := ready.remove(); err != nil { // of one that was killed
		return false, err
	}
	options.Keeper, options.Idle = h, foreverIdle
	seams := currentSeams()
	listener, port, err := listen(seams.listenHost, s.port, h.tls())
	if err != nil {
		return false, errors.Join(err, ready.write(errorLine(err)))
	}
	line := readyLine(h.fingerprint(), port)
	if err := ready.write(line); err != nil {
		return false, errors.Join(err, listener.Close())
	}
	say(stdout, exitOK, line+"\n")
	held, err = sessions(ctx, agent.New(options), masked(seams, allowed(listener, s.allow)), func() (net.Listener, error) {
		l, _, err := listen(seams.listenHost, port, h.tls())
		if err != nil {
			return nil, err
		}
		return masked(seams, allowed(l, s.allow)), nil
	})
	return held, errors.Join(err, ready.remove())
}

// sessions serves one session after the other, on the port of the first, until ctx ends or the port is lost.
func sessions(ctx context.Context, a *agent.Agent, l net.Listener, again func() (net.Listener, error)) (held bool, err error) {
	for ; ; a = a.Next() {
		err := a.Serve(ctx, l)
		if err == nil && ctx.Err() == nil {
			if l, err = again(); err == nil {
				continue
			}
		}
		return a.ReleasedByStop(), err
	}
}
