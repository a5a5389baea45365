package guests

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// linuxStart bounds the way from an empty file to the writer's first acknowledgement.
	linuxStart = 30 * time.Second
	// linuxClose bounds each step of the way back.
	linuxClose = 10 * time.Second
	// quiet is how long the writer has to be silent before the lab looks at what blocks it.
	quiet = 15 * time.Millisecond
	// sampleEvery is the time between two looks.
	sampleEvery = 10 * time.Millisecond
	// frozenWait is what the kernel calls the place where a write waits for a thaw (measured, 6.18: sb_start_write sits
	// in percpu_rwsem_wait; an fsync waits in jbd2_log_wait_commit instead).
	frozenWait = "percpu_rwsem_wait"
)

// LinuxOptions is what a linux guest needs.
type LinuxOptions struct {
	// Name is the VM's name.
	Name string
	// Dir is an existing directory of the guest's own; disk file and mount lie there.
	Dir string
	// SizeBytes is the size of the disk, at least 16 MiB.
	SizeBytes int64
	// Self starts a program whose main calls Helper.
	Self []string
	// Rescue is how long the guest may stand still before the lab thaws it; 0 is 30 s.
	Rescue time.Duration
}

func (o LinuxOptions) check() error {
	switch {
	case o.Name == "" || o.Dir == "" || len(o.Self) == 0:
		return errors.New("a linux guest needs a name, a directory and a program for its children")
	case o.Rescue < 0:
		return fmt.Errorf("a linux guest's rescue after %s is below 0", o.Rescue)
	case o.SizeBytes < 16<<20:
		return fmt.Errorf("a linux guest's disk of %d bytes is below 16 MiB", o.SizeBytes)
	}
	return nil
}

// Linux is a guest whose disk is an ext4 on a loop device, under writes by a process of its own.
//
// It is credible for FIFREEZE, FITHAW, journals and watchdogs. It never emulates multipath, LVM or big dirty caches. The
// lab's own process opens nothing below the mount once the writer runs, because a frozen file system would block it for
// ever; all that is left to thaw goes through a thawer process that holds the mount open.
type Linux struct {
	Witness
	name, disk, mount string

	writer   *exec.Cmd
	thawer   *exec.Cmd
	toThawer io.WriteCloser
	answers  chan string
	mounted  bool
	closers  []func() error // of what runs on the disk
	first    chan struct{}  // closed by the first acknowledgement
	over     chan struct{}  // closed when the writer has gone

	mu      sync.Mutex
	thread  int
	err     error
	rescues []time.Time

	stop    chan struct{}
	done    sync.WaitGroup
	closing sync.Once
	closed  error
}

// StartLinux makes the disk, mounts it, and returns once the writer's first record is durable. It needs root and loop
// devices. The caller closes it, after every process that could freeze the mount has gone.
func StartLinux(ctx context.Context, o LinuxOptions) (*Linux, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	g := &Linux{
		name: o.Name, disk: filepath.Join(o.Dir, "disk1.raw"), mount: filepath.Join(o.Dir, "mnt"),
		answers: make(chan string, 16), first: make(chan struct{}), over: make(chan struct{}), stop: make(chan struct{}),
	}
	ctx, cancel := context.WithTimeoutCause(ctx, linuxStart, fmt.Errorf("the guest took longer than %s", linuxStart))
	defer cancel()
	if err := g.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start linux guest %s: %w", o.Name, err), g.Close(ctx))
	}
	return g, nil
}

func (g *Linux) start(ctx context.Context, o LinuxOptions) error {
	if err := g.attach(ctx, o.SizeBytes); err != nil {
		return err
	}
	folder := filepath.Join(g.mount, RecordFolder)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	if err := g.startThawer(o.Self, cmp.Or(o.Rescue, stallLimit)); err != nil {
		return err
	}
	if err := g.startWriter(o.Self, folder); err != nil {
		return err
	}
	g.done.Go(g.sample)
	select {
	case <-g.first:
		return nil
	case <-g.over:
		return errors.Join(errors.New("the writer ended before its first record"), g.Err())
	case <-ctx.Done():
		return fmt.Errorf("wait for the first record: %w", context.Cause(ctx))
	}
}

// attach makes the file and the file system, and mounts it. mount -o loop lets the kernel detach the loop device with
// the mount, whoever undoes it.
func (g *Linux) attach(ctx context.Context, size int64) error {
	f, err := os.OpenFile(g.disk, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	if err := os.Mkdir(g.mount, 0o700); err != nil {
		return err
	}
	if err := system(ctx, "mkfs.ext4", "-q", g.disk); err != nil {
		return err
	}
	if err := system(ctx, "mount", "-t", "ext4", "-o", "loop,nodev,nosuid", g.disk, g.mount); err != nil {
		return err
	}
	g.mounted = true
	return nil
}

func (g *Linux) startThawer(self []string, limit time.Duration) error {
	dir, err := os.Open(g.mount)
	if err != nil {
		return err
	}
	cmd := child(self, "thawer", g.mount, limit.String())
	cmd.ExtraFiles = []*os.File{dir}
	in, err := cmd.StdinPipe()
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	if err := errors.Join(cmd.Start(), dir.Close()); err != nil {
		return fmt.Errorf("start the thawer: %w", err)
	}
	g.thawer, g.toThawer = cmd, in
	g.done.Go(func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "rescued") {
				g.mu.Lock()
				g.rescues = append(g.rescues, time.Now())
				g.mu.Unlock()
				continue
			}
			g.answers <- lines.Text()
		}
	})
	return nil
}

func (g *Linux) startWriter(self []string, folder string) error {
	acks, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := child(self, "writer", folder)
	cmd.ExtraFiles = []*os.File{theirs}
	if err := errors.Join(cmd.Start(), theirs.Close()); err != nil {
		return errors.Join(fmt.Errorf("start the writer: %w", err), acks.Close())
	}
	g.writer = cmd
	g.done.Go(func() {
		err := g.readAcks(acks)
		g.Witness.stop(time.Now())
		g.fail(errors.Join(err, acks.Close()))
		close(g.over)
	})
	return nil
}

// child is a process of the lab in a session of its own, so that a Ctrl-C meant for the lab ends the lab alone.
func child(self []string, args ...string) *exec.Cmd {
	cmd := &exec.Cmd{Path: self[0], Args: append(append([]string{}, self...), args...), Dir: "/", Stderr: os.Stderr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func (g *Linux) readAcks(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		now := time.Now()
		if thread, ok := strings.CutPrefix(lines.Text(), "thread "); ok {
			tid, err := strconv.Atoi(thread)
			if err != nil {
				return fmt.Errorf("read the writer's thread: %w", err)
			}
			g.mu.Lock()
			g.thread = tid
			g.mu.Unlock()
			continue
		}
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil || !g.acknowledge(n, now) {
			return fmt.Errorf("read an acknowledgement: %q is not the next number", lines.Text())
		}
		if n == 1 {
			close(g.first)
		}
		if _, err := io.WriteString(g.toThawer, "alive\n"); err != nil && !g.stopping() {
			return fmt.Errorf("tell the thawer that the guest moves: %w", err)
		}
	}
	return lines.Err()
}

// sample looks at the writer while it is silent. It reads only procfs.
func (g *Linux) sample() {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-g.stop:
			return
		case now := <-tick.C:
			if last := g.Last(); last.IsZero() || now.Sub(last) < quiet {
				continue
			}
			g.mu.Lock()
			thread := g.thread
			g.mu.Unlock()
			if at := time.Now(); blockedByFreeze(g.writer.Process.Pid, thread) {
				g.held(at)
			}
		}
	}
}

// blockedByFreeze asks the kernel whether a thread waits for a thaw.
func blockedByFreeze(pid, thread int) bool {
	task := fmt.Sprintf("/proc/%d/task/%d/", pid, thread)
	stat, err := os.ReadFile(task + "stat")
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	if !bytes.HasPrefix(rest, []byte("D")) {
		return false
	}
	wait, err := os.ReadFile(task + "wchan")
	return err == nil && string(wait) == frozenWait
}

// Name is the VM's name.
func (g *Linux) Name() string { return g.name }

// Kind is "linux".
func (g *Linux) Kind() string { return "linux" }

// Disk is the file that holds the guest's disk: what a snapshot copies.
func (g *Linux) Disk() string { return g.disk }

// Mount is where the guest's file system is mounted. It must not be opened by the caller's process while a freeze can
// happen.
func (g *Linux) Mount() string { return g.mount }

// Env is what an agent of a build tagged lab needs to freeze this guest and nothing else.
func (g *Linux) Env() []string { return []string{"STILLFRAME_LAB_ONLY_MOUNT=" + g.mount} }

// Count checks the records of an image of this guest's disk as it lies.
func (g *Linux) Count(ctx context.Context, image string) (Tally, error) {
	t, _, err := CountImage(ctx, image)
	return t, err
}

// Rescues lists when the lab itself had to thaw the guest: each is a defect of what is tested.
func (g *Linux) Rescues() []time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]time.Time{}, g.rescues...)
}

// Err is the first thing that went wrong with the writer, nil while all is well.
func (g *Linux) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *Linux) stopping() bool {
	select {
	case <-g.stop:
		return true
	default:
		return false
	}
}

func (g *Linux) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
}

// Thaw releases the guest through the thawer process. held is false when it was not frozen. It blocks for at most 10 s.
func (g *Linux) Thaw() (held bool, err error) {
	if _, err := io.WriteString(g.toThawer, "thaw\n"); err != nil {
		return false, fmt.Errorf("thaw %s: %w", g.name, err)
	}
	select {
	case answer := <-g.answers:
		if why, ok := strings.CutPrefix(answer, "error "); ok {
			return false, fmt.Errorf("thaw %s: %s", g.name, why)
		}
		return answer == "thawed", nil
	case <-time.After(linuxClose):
		return false, fmt.Errorf("thaw %s: the thawer did not answer in %s", g.name, linuxClose)
	}
}

// Close thaws, ends the children, unmounts and detaches. It is idempotent, works on a half-built guest, and blocks for
// at most about a minute, whatever ctx says. The disk file stays.
func (g *Linux) Close(ctx context.Context) error {
	g.closing.Do(func() { g.closed = g.close(context.WithoutCancel(ctx)) })
	return g.closed
}

func (g *Linux) close(ctx context.Context) error {
	var errs []error
	g.Witness.stop(time.Now())
	close(g.stop)
	if g.thawer != nil {
		_, err := g.Thaw()
		errs = append(errs, err)
	}
	for _, c := range g.closers {
		errs = append(errs, c())
	}
	if g.writer != nil {
		errs = append(errs, g.end(g.writer, g.writer.Process.Kill))
	}
	if g.thawer != nil {
		errs = append(errs, g.end(g.thawer, func() error {
			_, err := io.WriteString(g.toThawer, "leave\n")
			return errors.Join(err, g.toThawer.Close())
		}))
	}
	if g.mounted {
		errs = append(errs, g.unmount(ctx))
	}
	g.done.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close linux guest %s: %w", g.name, err)
	}
	return nil
}

// end asks a child to leave and waits for it; a child that is told to die is expected to have died of it.
func (g *Linux) end(cmd *exec.Cmd, ask func() error) error {
	asked := ask()
	if errors.Is(asked, os.ErrProcessDone) {
		asked = nil
	}
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }() // a child in D state never comes back
	select {
	case err := <-waited:
		var exit *exec.ExitError
		if errors.As(err, &exit) && !exit.Exited() {
			err = nil
		}
		return errors.Join(asked, err)
	case <-time.After(linuxClose):
		return errors.Join(asked, fmt.Errorf("process %d did not end in %s", cmd.Process.Pid, linuxClose))
	}
}

// unmount tries until nobody holds the mount any more, then takes it out of sight at least. umount(8) runs as a child,
// because it could block for ever.
func (g *Linux) unmount(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, linuxClose)
	defer cancel()
	device, err := loopDevice(g.mount)
	if err != nil {
		return err
	}
	for {
		err = system(ctx, "umount", g.mount)
		if err == nil {
			return g.detached(ctx, device)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			lazy := system(context.WithoutCancel(ctx), "umount", "-l", g.mount)
			return errors.Join(fmt.Errorf("unmount in time: %w", err), lazy)
		}
	}
}

// detached waits until the loop device has let go of the disk file.
func (g *Linux) detached(ctx context.Context, device string) error {
	for {
		backing, err := os.ReadFile(filepath.Join("/sys/block", device, "loop/backing_file"))
		if err != nil || strings.TrimSpace(string(backing)) != g.disk {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s still holds %s after its unmount", device, g.disk)
		}
	}
}

// loopDevice names the device behind a mount, such as loop0.
func loopDevice(mount string) (string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(table)) {
		left, right, _ := strings.Cut(line, " - ")
		fields, source := strings.Fields(left), strings.Fields(right)
		if len(fields) > 4 && fields[4] == mount && len(source) > 1 {
			return filepath.Base(source[1]), nil
		}
	}
	return "", fmt.Errorf("%s is not mounted", mount)
}

// system runs a program of the system to its end.
func system(ctx context.Context, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name // not in every root's PATH
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
