package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/pkg/api/client"
)

// guestPassword is that of root in every guest of the daemon's scenarios.
const guestPassword = "bench"

// waitLimit bounds each wait for a daemon.
const waitLimit = 3 * time.Minute

// entry is what the bench reads of a line of the daemon's log.
type entry struct {
	At      time.Time `json:"ts"`
	Message string    `json:"msg"`
	Job     string    `json:"job"`
	For     time.Time `json:"for"`
	Queued  int       `json:"queued"`
	Skipped int       `json:"skipped"`
	Run     string    `json:"run"`
	VCenter string    `json:"vcenter"`
}

// logLines keeps the daemon's log in a file, and what the bench asks for in memory.
type logLines struct {
	file *os.File

	mu   sync.Mutex
	rest []byte
	all  []entry
}

// Write implements io.Writer.
func (l *logLines) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, text...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			break
		}
		var e entry
		if json.Unmarshal(line, &e) == nil {
			l.all = append(l.all, e)
		}
		l.rest = rest
	}
	return l.file.Write(text)
}

// of are the lines with a message so far.
func (l *logLines) of(message string) (found []entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Message == message {
			found = append(found, e)
		}
	}
	return found
}

// together is how many runs of one vCenter were open at once, at most, by the lines that say that one begins and has ended.
func (l *logLines) together() (most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, open := map[string]string{}, map[string]int{}
	for _, e := range l.all {
		switch e.Message {
		case "run begins":
			at[e.Run] = e.VCenter
			open[e.VCenter]++
			most = max(most, open[e.VCenter])
		case "run ended":
			open[at[e.Run]]--
		}
	}
	return most
}

// site is where a daemon lives: its folder, the vCenters that it knows, and what else its configuration says.
type site struct {
	dir    string
	worlds []*labWorld
	env    []string
	socket string
}

// newSite makes the folder anew. The socket lies elsewhere, because its path has to be short.
func newSite(o options, name string) (*site, error) {
	s := &site{dir: filepath.Join(o.out, name)}
	if err := errors.Join(os.RemoveAll(s.dir), os.MkdirAll(s.dir, 0o700)); err != nil {
		return nil, fmt.Errorf("clear the folder of an earlier run: %w", err)
	}
	place, err := os.MkdirTemp("", "stillframe-bench-")
	s.socket = filepath.Join(place, "api.sock")
	s.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "GUEST=" + guestPassword}
	return s, err
}

// add starts one more vCenter.
func (s *site) add(ctx context.Context, scenario string) error {
	w, err := startLab(ctx, scenario, filepath.Join(s.dir, fmt.Sprintf("world-%d", len(s.worlds))))
	if err != nil {
		return err
	}
	s.env = append(s.env, fmt.Sprintf("LAB_%d=%s", len(s.worlds), w.ready.Password))
	s.worlds = append(s.worlds, w)
	return nil
}

func (s *site) close() error {
	errs := []error{os.RemoveAll(filepath.Dir(s.socket))}
	for _, w := range s.worlds {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}

// vcenterName is the name of a vCenter in the configuration.
func vcenterName(n int) string { return fmt.Sprintf("vc%d", n) }

func (s *site) config() string { return filepath.Join(s.dir, "stillframe.yaml") }

func (s *site) state() string { return filepath.Join(s.dir, "state") }

// configure writes the daemon's configuration, with the account of all guests and what else it is given.
func (s *site) configure(o options, more string) error {
	var b strings.Builder
	b.WriteString("vcenters:\n")
	for n, w := range s.worlds {
		r := w.ready
		fmt.Fprintf(&b, "  - {name: %s, url: %q, username: %q, password: \"env:LAB_%d\", ca: %q}\n", vcenterName(n), r.VCenter, r.User, n, r.CAFile)
	}
	fmt.Fprintf(&b, "guests:\n  defaults: {agent: %q, username: root, password: \"env:GUEST\"}\n", o.agent)
	fmt.Fprintf(&b, "store: {state_dir: %q}\nlisten: {socket: %q}\nlog: {format: json}\n%s", s.state(), s.socket, more)
	return os.WriteFile(s.config(), []byte(b.String()), 0o600)
}

// daemon is one process of "stillframe daemon".
type daemon struct {
	site    *site
	process *exec.Cmd
	log     *logLines
	client  *client.Client
	ended   chan error
	started time.Time
}

// start starts the daemon of a site.
func (s *site) start(ctx context.Context, o options) (*daemon, error) {
	file, err := os.OpenFile(filepath.Join(s.dir, "daemon.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep the daemon's log: %w", err)
	}
	d := &daemon{site: s, log: &logLines{file: file}, client: client.New(s.socket), ended: make(chan error, 1)}
	d.process = exec.CommandContext(context.WithoutCancel(ctx), o.stillframe, "daemon", "--config", s.config())
	d.process.Env, d.process.Stderr = s.env, d.log
	d.started = time.Now()
	if err := d.process.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the daemon: %w", err), file.Close())
	}
	go func() { d.ended <- errors.Join(d.process.Wait(), file.Close()) }()
	return d, nil
}

// kill ends the daemon as a power cut does.
func (d *daemon) kill() error {
	d.client.Close()
	if err := d.process.Process.Kill(); err != nil {
		return fmt.Errorf("kill the daemon: %w", err)
	}
	err := <-d.ended
	if left := (*exec.ExitError)(nil); errors.As(err, &left) && left.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return fmt.Errorf("the daemon had ended before it was killed: %w", err)
}

// until waits for what the daemon does by itself.
func (d *daemon) until(ctx context.Context, what string, done func(context.Context) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, waitLimit, fmt.Errorf("%s: not within %s; see %s", what, waitLimit, d.log.file.Name()))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-d.ended:
			d.ended <- err
			return fmt.Errorf("the daemon ended before %s: %w; see %s", what, err, d.log.file.Name())
		}
	}
	return nil
}

// knows waits until the daemon has read the inventories of all its vCenters, which have vms VMs.
func (d *daemon) knows(ctx context.Context, vms int) error {
	looked := time.Time{}
	return d.until(ctx, fmt.Sprintf("the daemon knows %d VMs", vms), func(ctx context.Context) bool {
		if time.Since(looked) < time.Second {
			return false
		}
		looked = time.Now()
		c, err := d.client.Coverage(ctx)
		return err == nil && c.Protected+c.Unprotected+c.Excluded+c.Overdue == vms
	})
}

// size is the daemon's VmRSS and its peak in MB.
func (d *daemon) size() (resident, peak float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.process.Process.Pid))
	for line := range strings.Lines(string(status)) {
		resident += megabytes(line, "VmRSS:")
		peak += megabytes(line, "VmHWM:")
	}
	return resident, peak, err
}

// ticksASecond is what /proc counts processor time in: USER_HZ, which is 100 on every Linux that Go runs on.
const ticksASecond = 100

// cpu is the processor time that the daemon has taken so far.
func (d *daemon) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat says %q", stat)
	}
	user, err := strconv.Atoi(f[11]) // utime and stime are the fields 14 and 15 of proc(5), the first here is 3
	system, also := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / ticksASecond, errors.Join(err, also)
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
