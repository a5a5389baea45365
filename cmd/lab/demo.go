package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/pkg/lab"
)

const (
	demoVM = "demo-linux"
	// demoLimit bounds one run of stillframe: it is far more than a window, a push and a removal take.
	demoLimit = 3 * time.Minute
	// demoWrites is what the guest writes before the control image is taken.
	demoWrites = 300
	// demoPatience bounds each wait for the guest's writer.
	demoPatience = time.Minute
)

// demoOptions are the flags of demo.
type demoOptions struct {
	stillframe, agent, out, scenario string
	windowsAgent, programs           string // without an agent for Windows there is no Windows guest
	scripted                         bool
}

// runDemo shows one true freeze window with its proof. It is an error when the proof does not hold.
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := demoFlags(args, stderr)
	if err != nil {
		return err
	}
	scenario, err := lab.ReadScenario(o.scenario)
	if err != nil {
		return err
	}
	why := ""
	if os.Geteuid() != 0 {
		why = "this is not root, so no file system can be frozen"
	} else if o.scripted {
		why = "asked for by --scripted"
	}
	if why != "" {
		for i := range scenario.VMs {
			scenario.VMs[i].Guest = "scripted"
		}
	}
	place := filepath.Join(o.out, "world")
	if err := os.RemoveAll(place); err != nil {
		return fmt.Errorf("clear the demo's world of an earlier run: %w", err)
	}
	p := &printer{to: stdout}
	if err := linuxDemo(ctx, scenario, place, why, o, p, stderr); err != nil {
		return err
	}
	if err := windowsDemo(ctx, o, why, p, stderr); err != nil {
		return err
	}
	return jobsDemo(ctx, o, p, stderr)
}

// linuxDemo is the part with a file system.
func linuxDemo(ctx context.Context, scenario lab.Scenario, place, why string, o demoOptions, p *printer, stderr io.Writer) (err error) {
	world, err := start(ctx, scenario, place, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close(ctx)) }()
	p.introduction(world.Ready(), why)
	if p.err != nil {
		return p.err
	}
	return demonstrate(ctx, world, o, p, stderr)
}

func demoFlags(args []string, stderr io.Writer) (demoOptions, error) {
	var o demoOptions
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.stillframe, "stillframe", "", "the stillframe binary")
	flags.StringVar(&o.agent, "agent", "", "the agent binary, built with -tags lab")
	flags.StringVar(&o.out, "out", "", "directory for report.json, proof.json and the world's files")
	flags.StringVar(&o.scenario, "scenario", "testing/scenarios/demo.yaml", "the scenario, with a VM "+demoVM)
	flags.StringVar(&o.windowsAgent, "windows-agent", "", "the agent for Windows, built with -tags lab (default: no Windows guest)")
	flags.StringVar(&o.programs, "wine-programs", "", "folder of winelab's programs (default: built, inside the tree)")
	flags.BoolVar(&o.scripted, "scripted", false, "a guest without a file system, which needs no root")
	if err := flags.Parse(args); err != nil {
		return o, usageError{err}
	}
	if flags.NArg() > 0 || o.stillframe == "" || o.agent == "" || o.out == "" {
		return o, usageError{errors.New("demo needs --stillframe, --agent and --out, no more")}
	}
	var errs []error
	for _, path := range []*string{&o.stillframe, &o.agent, &o.out, &o.windowsAgent, &o.programs} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		*path, errs = absolute, append(errs, err)
	}
	return o, errors.Join(errs...)
}

// demonstrate runs the window and prints what came of it.
func demonstrate(ctx context.Context, world *lab.World, o demoOptions, p *printer, stderr io.Writer) error {
	guest, ok := world.Guest(demoVM)
	if !ok {
		return fmt.Errorf("the scenario has no VM %s with a guest", demoVM)
	}
	if err := writes(ctx, guest, demoWrites); err != nil {
		return err
	}
	control, err := world.Disks().Control(ctx, demoVM, "control-without-freeze")
	if err != nil {
		return err
	}
	p.line("%d records acknowledged. Control image copied without a freeze. Now:", guest.Acknowledged())
	r, exit, err := runStillframe(ctx, world, demoVM, o.agent, "", filepath.Join(o.out, "report.json"), o.stillframe, p, stderr)
	if err != nil {
		return err
	}
	if err := writes(ctx, guest, 20); err != nil { // it moves again
		return err
	}
	proven, err := prove(ctx, world, guest, r, exit, control)
	if err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(o.out, "proof.json"), proven); err != nil {
		return err
	}
	p.timeline(r, proven.LabHoldAtMostSeconds, "The lab's figure is the guest's own silence: from its last acknowledged record to the next.")
	p.verdict(r)
	p.proof(proven)
	p.files(o.out, proven)
	if p.err != nil {
		return p.err
	}
	if !proven.Holds {
		return fmt.Errorf("the proof does not hold: %s", strings.Join(proven.Against, "; "))
	}
	return nil
}

// writes waits until the guest has acknowledged n more records.
func writes(ctx context.Context, g lab.Guest, n uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoPatience, fmt.Errorf("the guest did not write %d records in %s", n, demoPatience))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for target := g.Acknowledged() + n; g.Acknowledged() < target; {
		if err := g.Err(); err != nil {
			return fmt.Errorf("the guest's writer stopped: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// runStillframe runs the real program as an operator would, and keeps its object in a file.
func runStillframe(ctx context.Context, world *lab.World, vm, agent, road, file, program string, p *printer, stderr io.Writer) (*report, int, error) {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	args := []string{"run", "--vm", vm, "--window-only", "--agent", agent, "-o", "json"}
	if road != "" {
		args = append(args, "--road", road)
	}
	p.line("")
	p.line("$ stillframe %s", strings.ReplaceAll(strings.Join(args, " "), agent, relative(agent)))
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = operator(world.Ready(), vm)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it thaws first
	cmd.WaitDelay = 30 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, stderr
	err := cmd.Run()
	exit := cmd.ProcessState.ExitCode()
	var left *exec.ExitError
	if err != nil && !errors.As(err, &left) {
		return nil, exit, fmt.Errorf("run stillframe: %w", err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		return nil, exit, fmt.Errorf("keep the report: %w", err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return nil, exit, fmt.Errorf("read what stillframe printed (it left with %d): %w", exit, err)
	}
	return &r, exit, nil
}

// operator is the environment of one who uses this world's vCenter: GOVC_* of this process are left out.
func operator(r lab.Ready, vm string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GOVC_") {
			env = append(env, v)
		}
	}
	env = append(env, "GOVC_URL="+r.VCenter, "GOVC_USERNAME="+r.User, "GOVC_PASSWORD="+r.Password, "GOVC_TLS_CA_CERTS="+r.CAFile,
		"STILLFRAME_STATE_DIR="+filepath.Join(filepath.Dir(r.CAFile), "state"))
	for _, g := range r.Guests {
		if g.Name == vm {
			env = append(env, "GOVC_GUEST_LOGIN="+g.User+":"+g.Password)
		}
	}
	return env
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

// host is the host:port of a URL, for people.
func host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.Host
}
