package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/pkg/lab"
)

const (
	// jobsScenario has the fifty VMs of the demo's daemon; slowVM is the one whose snapshot takes too long.
	jobsScenario = "testing/scenarios/demo-jobs.yaml"
	slowVM       = "erp"
	// jobsLimit bounds each wait for the daemon, which the schedule of the job frontends, each minute, makes long.
	jobsLimit = 5 * time.Minute
	// badRun and lateRun are stillframe's exit statuses for a run that failed and for one that took too long.
	badRun, lateRun = 1, 9
)

// demoJobs are the daemon's three jobs: one on schedule, two by hand. Few runs at once, because their guests share this machine
// with the vCenter; no second attempts, which come after 10 min.
const demoJobs = `limits: {vcenter: {runs: 4}}
jobs:
  - name: frontends
    select: {folders: [web]}
    schedule: {cron: "* * * * *", zone: Europe/Berlin}
    retry: {attempts: 0}
  - name: apps
    select: {folders: [apps]}
    retry: {attempts: 0}
  - name: erp
    select: {vms: [erp]}
    on_degrade: fail
`

// jobsDemo has the daemon run three jobs over fifty VMs, one of which fails and is explained.
func jobsDemo(ctx context.Context, o demoOptions, p *printer, stderr io.Writer) (err error) {
	scenario, err := lab.ReadScenario(jobsScenario)
	if err != nil {
		return err
	}
	place := filepath.Join(o.out, "world-jobs")
	if err := os.RemoveAll(place); err != nil {
		return fmt.Errorf("clear the demo's world of an earlier run: %w", err)
	}
	world, err := start(ctx, scenario, place, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close(ctx)) }()
	sockets, err := os.MkdirTemp("", "stillframe-demo-") // a socket's path has to be short
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(sockets)) }()
	p.line("")
	p.line("And the daemon: %d VMs (their guests are scripted), three jobs, one of them on schedule.", len(world.Ready().Guests))
	d, err := startDaemon(ctx, world.Ready(), place, filepath.Join(sockets, "api.sock"), o, p, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end()) }()
	if err := d.show(ctx); err != nil {
		return err
	}
	return p.err
}

// demoDaemon is a stillframe daemon of the demo and its operator.
type demoDaemon struct {
	program, out string
	env          []string
	process      *exec.Cmd
	ended        chan error
	p            *printer
	stderr       io.Writer
}

// startDaemon writes the configuration and starts the daemon, whose log goes into a file.
func startDaemon(ctx context.Context, r lab.Ready, place, socket string, o demoOptions, p *printer, stderr io.Writer) (*demoDaemon, error) {
	config := filepath.Join(place, "stillframe.yaml")
	text, env := jobsConfig(r, place, socket, o.agent)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the daemon's configuration: %w", err)
	}
	log, err := os.Create(filepath.Join(o.out, "daemon.log"))
	if err != nil {
		return nil, fmt.Errorf("keep the daemon's log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the daemon writes to its own descriptor
	d := &demoDaemon{
		program: o.stillframe, out: o.out, p: p, stderr: stderr, ended: make(chan error, 1),
		env: append(env, "STILLFRAME_SOCKET="+socket, "STILLFRAME_CONFIG="+config),
	}
	p.line("")
	p.line("$ stillframe daemon --config %s", relative(config))
	d.process = exec.CommandContext(context.WithoutCancel(ctx), d.program, "daemon")
	d.process.Env, d.process.Stdout, d.process.Stderr = d.env, log, log
	if err := d.process.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	go func() { d.ended <- d.process.Wait() }()
	return d, nil
}

// jobsConfig is the daemon's configuration, and its environment, where the passwords are: each guest has one of its own.
func jobsConfig(r lab.Ready, place, socket, agent string) (text string, env []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "vcenters:\n  - {name: lab, url: %q, username: %q, password: \"env:LAB_PASSWORD\", ca: %q}\n", r.VCenter, r.User, r.CAFile)
	fmt.Fprintf(&b, "guests:\n  defaults: {agent: %q}\n  rules:\n", agent)
	env = append(env, "PATH="+os.Getenv("PATH"), "LAB_PASSWORD="+r.Password)
	for i, g := range r.Guests {
		fmt.Fprintf(&b, "    - {match: {vms: [%q]}, username: %q, password: \"env:GUEST_%d\"}\n", g.Name, g.User, i)
		env = append(env, fmt.Sprintf("GUEST_%d=%s", i, g.Password))
	}
	fmt.Fprintf(&b, "store: {state_dir: %q}\nlisten: {socket: %q}\n%s", filepath.Join(place, "state"), socket, demoJobs)
	return b.String(), env
}

// end has the daemon end as systemd does; it waits for its open windows.
func (d *demoDaemon) end() error {
	if err := d.process.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("end the daemon: %w", err)
	}
	select {
	case err := <-d.ended:
		if err != nil {
			return fmt.Errorf("the daemon did not end well: %w", err)
		}
		return nil
	case <-time.After(jobsLimit):
		return errors.Join(errors.New("the daemon does not end"), d.process.Process.Kill())
	}
}

// verb runs one verb and demands one of the exit statuses.
func (d *demoDaemon) verb(ctx context.Context, stdout io.Writer, allowed []int, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, jobsLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env, stdout, d.stderr
	err := cmd.Run()
	if left := (*exec.ExitError)(nil); err == nil || errors.As(err, &left) && slices.Contains(allowed, left.ExitCode()) {
		return nil
	}
	return fmt.Errorf("stillframe %s: %w", strings.Join(args, " "), err)
}

// say shows a verb and what it prints.
func (d *demoDaemon) say(ctx context.Context, allowed []int, args ...string) error {
	d.p.line("")
	d.p.line("$ stillframe %s", strings.Join(args, " "))
	return errors.Join(d.p.err, d.verb(ctx, d.p.to, allowed, args...))
}

// ask reads what a verb prints as JSON.
func (d *demoDaemon) ask(ctx context.Context, answer any, args ...string) error {
	var out bytes.Buffer
	if err := d.verb(ctx, &out, nil, append(args, "-o", "json")...); err != nil {
		return err
	}
	return json.Unmarshal(out.Bytes(), answer)
}

// demoRun is what the demo reads of a run.
type demoRun struct {
	ID       string     `json:"id"`
	Job      string     `json:"job"`
	State    string     `json:"state"`
	Outcome  string     `json:"outcome"`
	Level    string     `json:"level"`
	Finished *time.Time `json:"finished_at"`
	VM       string     `json:"vm"`
	Code     string     `json:"error_code"`
}

func (d *demoDaemon) runs(ctx context.Context) ([]demoRun, error) {
	var list struct {
		Runs []demoRun `json:"runs"`
	}
	err := d.ask(ctx, &list, "runs", "list")
	return list.Runs, err
}

// of gives the ids of a job's runs.
func of(all []demoRun, job string) (ids []string) {
	for _, r := range all {
		if r.Job == job {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// show is the operator's evening.
func (d *demoDaemon) show(ctx context.Context) error {
	err := d.until(ctx, "the daemon to see its VMs", func() bool {
		var list struct {
			VMs []struct{} `json:"vms"`
		}
		quiet := *d
		quiet.stderr = io.Discard // it has not come up yet
		return quiet.ask(ctx, &list, "vms", "list") == nil && len(list.VMs) > 0
	})
	if err != nil {
		return err
	}
	if err := errors.Join(d.say(ctx, nil, "jobs", "list"), d.say(ctx, nil, "jobs", "run", "apps"), d.say(ctx, nil, "jobs", "run", "erp")); err != nil {
		return err
	}
	all, err := d.runs(ctx)
	if err != nil {
		return err
	}
	erp := of(all, "erp")
	if len(erp) != 1 {
		return fmt.Errorf("the job erp has %d runs, want 1", len(erp))
	}
	d.p.line("")
	d.p.line("$ stillframe runs follow ...  (its progress goes to standard error)")
	follow := append([]string{"runs", "follow"}, append(of(all, "apps"), erp...)...)
	if err := d.verb(ctx, d.p.to, []int{badRun, lateRun}, follow...); err != nil {
		return err
	}
	if err := d.say(ctx, []int{badRun, lateRun}, "runs", "explain", erp[0]); err != nil {
		return err
	}
	d.p.line("")
	d.p.line("The job frontends is due each minute; its runs come by themselves.")
	err = d.until(ctx, "the runs of the schedule", func() bool {
		all, err = d.runs(ctx)
		ids := of(all, "frontends")
		return err != nil || len(ids) > 0 && !slices.ContainsFunc(all, func(r demoRun) bool { return r.Finished == nil })
	})
	if err != nil {
		return err
	}
	if err := errors.Join(d.say(ctx, nil, "runs", "list"), d.say(ctx, nil, "window", "stats")); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(d.out, "runs.json"), all); err != nil {
		return err
	}
	d.p.line("")
	d.p.line("  %s/runs.json, daemon.log", relative(d.out))
	return d.judge(all)
}

// tooBusy is the code of a run that was refused before the freeze, because the guest answered too slowly: they are all on this
// one machine. mostBusy bounds how many of those may be.
const (
	tooBusy  = "SF4011"
	mostBusy = 10
)

// judge says what is not as it has to be.
func (d *demoDaemon) judge(all []demoRun) error {
	var errs []error
	busy := 0
	for _, r := range all {
		slow := r.VM == slowVM
		switch {
		case r.State == "skipped": // the schedule's next minute came while the VM was still at work
		case !slow && r.Code == tooBusy:
			busy++
		case slow == (r.Outcome == "ok") || !slow && r.Level != "filesystem":
			errs = append(errs, fmt.Errorf("the run of %s is %s with level %s (%s)", r.VM, r.Outcome, r.Level, r.Code))
		}
	}
	if busy > 0 {
		d.p.line("  %d runs were refused before their freeze: this machine was too busy for them (%s).", busy, tooBusy)
	}
	if busy > mostBusy {
		errs = append(errs, fmt.Errorf("%d runs found this machine too busy, more than %d", busy, mostBusy))
	}
	return errors.Join(errs...)
}

// until waits for something that the daemon does by itself.
func (d *demoDaemon) until(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobsLimit, fmt.Errorf("%s do not come within %s", what, jobsLimit))
	defer cancel()
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-d.ended:
			d.ended <- err
			return fmt.Errorf("the daemon ended before %s: %w", what, err)
		}
	}
	return nil
}
