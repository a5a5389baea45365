package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/store"
)

// leaveWord makes this program a process that has a run open on every VM of a database, and is killed: "bench leave FOLDER".
const leaveWord = "leave"

const (
	recoveryVMs = 1000
	recoveryBar = 30 * time.Second
	// recoveryEach is how many runs are open on each vCenter.
	recoveryEach = recoveryVMs / planVCenters
	// guestFolder is where agents are in a Linux guest.
	guestFolder = "/var/lib/stillframe/agent"
	recoveryJob = "all"
)

// leftRun is what a run had made when its process was killed, one line of the process's output.
type leftRun struct{ VCenter, Path, Snapshot, Folder string }

// leaveRuns has a run at work on every VM that the database knows, each with its intents written down. It goes on until it is
// killed, or its standard input ends with who reads.
func leaveRuns(ctx context.Context, dir string, in io.Reader, out io.Writer) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		io.Copy(io.Discard, in) //nolint:errcheck // its end is all that counts
	}()
	db, err := store.Open(ctx, store.Options{Dir: dir, Log: zap.NewNop()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	e, err := engine.New(ctx, db, engine.Options{
		Hostname: "bench", Version: "bench", Workers: recoveryEach, Log: zap.NewNop(),
		Undo: func(_ context.Context, d catalog.Delivery) error {
			return fmt.Errorf("run %s is to be undone", d.RunID)
		},
	})
	if err != nil {
		return err
	}
	c := catalog.New(db, journal.New(db), e, nil)
	job, err := c.Job(ctx, recoveryJob)
	if err != nil {
		return err
	}
	tick := catalog.Tick{Job: job, For: job.Created, Trigger: catalog.Scheduled}
	var vcenters []string
	vms := map[string]catalog.VM{}
	for n := range planVCenters {
		found, err := c.VMs(ctx, catalog.VMFilter{VCenter: vcenterName(n), Limit: recoveryEach})
		if err != nil {
			return err
		}
		vcenters = append(vcenters, vcenterName(n))
		for _, vm := range found {
			vms[vm.ID] = vm
			tick.Targets = append(tick.Targets, catalog.Target{VMID: vm.ID, VCenter: vm.VCenter})
		}
	}
	if _, err := c.Tick(ctx, tick); err != nil {
		return err
	}
	var writing sync.Mutex
	e.Want(vcenters...)
	return e.Serve(ctx, func(ctx context.Context, d catalog.Delivery) error {
		fence := journal.Fence{RunID: d.RunID, Epoch: d.Epoch}
		run, err := c.Start(ctx, fence)
		if err != nil {
			return err
		}
		id := make([]byte, 16)
		rand.Read(id)
		vm, p := vms[run.VMID], backup.Plan{RunID: run.ID, Epoch: uint64(d.Epoch)}
		left := leftRun{VCenter: vm.VCenter, Path: vm.Path, Snapshot: p.SnapshotName(), Folder: path.Join(guestFolder, hex.EncodeToString(id))}
		i := statefile.Intent{Run: run.ID, Epoch: p.Epoch, VM: vm.InstanceUUID, Path: vm.Path, Moref: vm.Moref}
		folder, process, snapshot := i, i, i
		folder.Kind, folder.Subject = statefile.Folder, left.Folder
		process.Kind, process.Subject = statefile.Process, left.Folder
		snapshot.Kind, snapshot.Subject = statefile.Snapshot, left.Snapshot
		if err := c.Memory(fence).Intend(ctx, folder, process, snapshot); err != nil {
			return err
		}
		writing.Lock()
		err = json.NewEncoder(out).Encode(left)
		writing.Unlock()
		<-ctx.Done()
		return err
	})
}

// recover kills a process with a run open on each of 1,000 VMs, each with a snapshot and an agent's folder, and measures how long
// the daemon takes after its start until the last guest is free and the last snapshot is gone.
func (f *daemonFigures) recover(ctx context.Context, o options) (err error) {
	s, err := newSite(o, "daemon-recovery")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for n := range planVCenters {
		scenario := fmt.Sprintf("name: recovery-%d\nseed: %d\ndefaults: {guest: scripted}\nvms:\n  - {name: \"web-###\", count: %d, user: root, password: %s, rest: 1h}\n", n, n+1, recoveryEach, guestPassword)
		if err := s.add(ctx, scenario); err != nil {
			return err
		}
	}
	limits := fmt.Sprintf("limits: {guest_logons: 100, vcenter: {runs: %d}, host: {remove: 100}, datastore: {remove: 100}}\n", recoveryEach)
	if err := s.configure(o, limits+"jobs:\n  - {name: "+recoveryJob+", select: {names: [\"*\"]}}\n"); err != nil {
		return err
	}
	d, err := s.start(ctx, o)
	if err != nil {
		return err
	}
	if err := errors.Join(d.knows(ctx, recoveryVMs), d.kill()); err != nil {
		return err
	}
	left, err := killWithRuns(ctx, s.state())
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := s.leave(o, l); err != nil {
			return err
		}
	}
	// The job is not configured any more, so that no run begins anew and takes the lab's time.
	if err := s.configure(o, limits); err != nil {
		return err
	}
	if d, err = s.start(ctx, o); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.kill()) }()
	err = d.until(ctx, "all that dead runs left is gone", func(context.Context) bool { return len(d.log.of("what a dead run left is gone")) >= len(left) })
	if err != nil {
		return err
	}
	gone := d.log.of("what a dead run left is gone")
	f.RecoveredRuns, f.RecoverySeconds = len(gone), gone[len(gone)-1].At.Sub(d.started).Seconds()
	return s.clean(left)
}

// killWithRuns kills a process with a run open on each VM.
func killWithRuns(ctx context.Context, state string) (left []leftRun, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, waitLimit, fmt.Errorf("%d runs were not open within %s", recoveryVMs, waitLimit))
	defer cancel()
	cmd := exec.CommandContext(ctx, self, leaveWord, state)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // it ends with this process, at the latest
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("begin the runs: %w", err)
	}
	lines := json.NewDecoder(bufio.NewReader(out))
	for len(left) < recoveryVMs && err == nil {
		var l leftRun
		if err = lines.Decode(&l); err == nil {
			left = append(left, l)
		}
	}
	err = errors.Join(err, context.Cause(ctx), cmd.Process.Kill())
	if wait := cmd.Wait(); wait == nil || err != nil {
		return nil, errors.Join(err, wait, errors.New("the process with the runs was not killed"))
	}
	return left, nil
}

// place is the lab's folder of a VM's own disk, and its world.
func (s *site) place(l leftRun) (root string, world int, name string, err error) {
	name = path.Base(l.Path)
	var n int
	if _, err := fmt.Sscanf(l.VCenter+" "+name, "vc%d web-%d", &world, &n); err != nil {
		return "", 0, "", fmt.Errorf("find VM %s of %s: %w", l.Path, l.VCenter, err)
	}
	return filepath.Join(s.dir, fmt.Sprintf("world-%d", world), "vms", fmt.Sprintf("%02d", n-1), "root"), world, name, nil
}

// leave makes what a run had left.
func (s *site) leave(o options, l leftRun) error {
	root, world, name, err := s.place(l)
	if err != nil {
		return err
	}
	folder := filepath.Join(root, l.Folder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make the agent's folder: %w", err)
	}
	if err := os.Link(o.agent, filepath.Join(folder, "stillframe-agent")); err != nil {
		return fmt.Errorf("put the agent there: %w", err)
	}
	_, err = s.worlds[world].ask(name, l.Snapshot)
	return err
}

// clean says what is still there of what runs had left.
func (s *site) clean(left []leftRun) error {
	var errs []error
	for _, l := range left {
		root, world, name, err := s.place(l)
		if err != nil {
			return err
		}
		if a, err := s.worlds[world].ask(name, ""); err != nil || len(a.Snapshots) > 0 {
			errs = append(errs, fmt.Errorf("%s of %s still has %q", name, l.VCenter, a.Snapshots), err)
		}
		if _, err := os.Stat(filepath.Join(root, l.Folder)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s of %s still has the agent's folder: %w", name, l.VCenter, err))
		}
	}
	return errors.Join(errs...)
}
