package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/fsfreeze"
	"github.com/stillframe/stillframe/pkg/agent/hook"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const usage = `usage: stillframe-agent COMMAND

  run --peer HEX64 --deployment ID (--port N | --dial ADDRESS:PORT | --mailbox) --ready-file PATH [--allow ADDRESS]... [--only-mount DIR]...
          serve one orchestrator, then leave; --allow refuses everyone who comes from elsewhere;
          with --dial or --mailbox it listens nowhere, and dials the orchestrator or speaks through the hypervisor
  serve [--peer HEX64] [--port N] [--allow ADDRESS]... [--only-mount DIR]...
          serve one orchestrator, session after session, until it is stopped
  install --peer HEX64 [--port N] [--allow ADDRESS]... [--only-mount DIR]...
          have systemd start serve, now and with the system; prints READY
  uninstall
          remove all that install and serve made
  thaw    release what a dead agent left frozen
  version print the version

The commands watchdog and hook-watchdog are started by run only.
`

func commands() map[string]command {
	return map[string]command{
		"run": runAgent, "watchdog": runWatchdog, hook.Command: runHookWatchdog, "thaw": runThaw,
		"serve": runServe, "install": runInstall, "uninstall": runUninstall,
	}
}

// begin has nothing to do before the command.
func begin(args []string) ([]string, error) { return args, nil }

func runWatchdog(args []string, _, stderr io.Writer) int { return fsfreeze.Watchdog(args, stderr) }

func runHookWatchdog(args []string, _, stderr io.Writer) int {
	for _, note := range fsfreeze.Harden() {
		say(stderr, exitOK, "note: "+note+"\n")
	}
	return hook.Watchdog(args, stderr)
}

func runThaw(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		return say(stderr, exitUsage, "thaw: it takes no arguments\n")
	}
	results, err := fsfreeze.ThawListed(context.Background(), currentSeams().runDir)
	status := exitOK
	for _, r := range results {
		if r.OK {
			r.Error = "thawed"
			status = exitThawed
		}
		if told := say(stdout, exitOK, r.Mount+": "+r.Error+"\n"); told != exitOK {
			return told
		}
	}
	if err == nil { // hooks may have to write, so everything has to be thawed
		err = undo(context.Background(), stdout)
	}
	if err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("thaw: %v\n", err))
	}
	return status
}

// undo runs the hooks of post-thaw that a dead agent owes.
func undo(ctx context.Context, stdout io.Writer) error {
	s := currentSeams()
	rows, err := hook.Undo(ctx, hook.Options{Dir: s.hooksDir, Owner: s.hooksOwner, RunDir: s.runDir})
	for _, row := range rows {
		if row.OK {
			say(stdout, exitOK, "hook "+row.Name+": post-thaw was run\n")
		}
	}
	return err
}

// runAgent is the whole life of an agent. It is no daemon: the process that was started is the one that serves.
func runAgent(args []string, stdout, stderr io.Writer) int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s, err := parseSettings(args)
	if err != nil {
		return say(stderr, exitUsage, fmt.Sprintf("run: %v\n%s", err, usage))
	}
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: it leads a group already
		return say(stderr, exitFailed, fmt.Sprintf("run: leave the session: %v\n", err))
	}
	for _, note := range fsfreeze.Harden() {
		say(stderr, exitOK, "note: "+note+"\n")
	}
	ready := readyFile{s.readyFile}
	a, listener, line, err := start(ctx, s, stderr)
	if err == nil {
		if err = ready.write(line); err != nil {
			err = errors.Join(err, listener.Close())
		}
	} else {
		err = errors.Join(err, ready.write(errorLine(err)))
	}
	if err != nil {
		return say(stderr, exitFailed, errorLine(err)+"\n")
	}
	say(stdout, exitOK, line+"\n") // a reader that has gone may still have the ready file
	err = detach()
	if err := errors.Join(err, a.Serve(ctx, listener), ready.remove()); err != nil {
		return exitFailed // the standard streams are gone; the orchestrator has had its ERROR
	}
	return exitOK
}

// start does everything up to READY.
func start(ctx context.Context, s settings, stderr io.Writer) (*agent.Agent, net.Listener, string, error) {
	options, err := prepareToServe(ctx, s, stderr)
	if err != nil {
		return nil, nil, "", err
	}
	own, fingerprint, err := protocol.NewIdentity(identityLife)
	if err != nil {
		return nil, nil, "", err
	}
	seams := currentSeams()
	l, port, err := channel(ctx, s, seams.listenHost, s.port, own, &options)
	if err != nil {
		return nil, nil, "", err
	}
	return agent.New(options), masked(seams, allowed(l, s.allow)), readyLine(fingerprint, port), nil
}

// prepareToServe thaws what a dead agent left, runs the hooks that it owes, and gives what a session needs.
func prepareToServe(ctx context.Context, s settings, stderr io.Writer) (agent.Options, error) {
	seams := currentSeams()
	_, err := fsfreeze.ThawListed(ctx, seams.runDir)
	if err == nil {
		if err := undo(ctx, io.Discard); err != nil { // no reason not to serve: hooks that cannot be read are refused at ARM
			say(stderr, exitOK, fmt.Sprintf("note: %v\n", err))
		}
	} else if !errors.Is(err, fsfreeze.ErrHeldByAnother) {
		return agent.Options{}, err
	}
	options, err := guest(seams)
	if err != nil {
		return agent.Options{}, err
	}
	options.Freezer = newFreezer(seams, s.onlyMount)
	if seams.hooksDir != "" {
		options.Hooks = hook.New(hook.Options{Dir: seams.hooksDir, Owner: seams.hooksOwner, RunDir: seams.runDir})
	}
	return options, nil
}

// addressInUse is what a port that somebody else has is reported with.
const addressInUse = unix.EADDRINUSE

// detach lets go of the standard streams of the one who started us, who may wait for their end.
func detach() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		err = errors.Join(err, unix.Dup3(int(null.Fd()), fd, 0))
	}
	return errors.Join(err, null.Close())
}

// guest describes the system for HELLO.
func guest(s seams) (agent.Options, error) {
	o := agent.Options{Version: version, Uptime: uptime, VMUUID: s.vmUUID, Idle: s.idle}
	var err error
	if o.ExeSHA256, err = hashOf("/proc/self/exe"); err != nil {
		return o, err
	}
	if o.VMUUID == "" {
		if o.VMUUID, err = oneLine("/sys/class/dmi/id/product_uuid"); err != nil {
			return o, &agent.CodedError{Code: "SF3704", Err: fmt.Errorf("read the VM's uuid: %w", err)}
		}
	}
	if o.BootID = s.bootID; o.BootID != "" {
		o.OS, err = system()
		return o, err
	}
	if o.BootID, err = oneLine("/proc/sys/kernel/random/boot_id"); err != nil {
		return o, fmt.Errorf("read the boot id: %w", err)
	}
	o.OS, err = system()
	return o, err
}

// oneLine reads a small file of the kernel, in lower case, without white space around.
func oneLine(path string) (string, error) {
	text, err := os.ReadFile(path)
	return strings.ToLower(strings.TrimSpace(string(text))), err
}

// uptime is the time since boot, suspension included; 0 when the kernel does not tell.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
