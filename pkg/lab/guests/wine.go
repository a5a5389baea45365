package guests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/wine"
)

// WineOptions is what a wine guest needs.
type WineOptions struct {
	// Name is the VM's name.
	Name string
	// Dir is an existing directory of the guest's own, for its disk file.
	Dir string
	// Programs is the folder of winelab's programs; empty builds them.
	Programs string
	// SizeBytes is the size of the disk file.
	SizeBytes int64
	// VSS are lines of the fakes' config (testing/cpp/README.md).
	VSS []string
}

// Wine is a Windows guest: a Wine prefix of its own with a VSS made of fakes, in which the real Windows agent runs.
//
// It is credible for processes, services, paths and the order of VSS's calls. It never emulates UAC, a reboot's missing
// registry writes, real writers or a file system: its disk is a plain file of zeros that nothing writes to, so that an image
// of it says nothing. What was held is told by the fakes' own trace, not by the agent.
type Wine struct {
	name, disk string
	prefix     *wine.Prefix
	tools      *wineTools
	manager    *wineTools    // the service control manager
	start      time.Time     // this moment of the lab ...
	startAt    time.Duration // ... on the trace's clock

	mu      sync.Mutex
	ends    []time.Duration // when everything in the guest was ended from outside
	err     error
	closing sync.Once
	closed  error
}

// StartWine makes the guest. It needs Wine, and mingw-w64 where the programs are not built yet. The caller closes it.
func StartWine(ctx context.Context, o WineOptions) (*Wine, error) {
	if o.Name == "" || o.Dir == "" {
		return nil, errors.New("a wine guest needs a name and a directory")
	}
	if o.Programs == "" {
		var err error
		if o.Programs, err = wine.Build(ctx); err != nil {
			return nil, fmt.Errorf("start wine guest %s: %w", o.Name, err)
		}
	}
	prefix, err := wine.Open(ctx, wine.Options{Programs: o.Programs})
	if err != nil {
		return nil, fmt.Errorf("start wine guest %s: %w", o.Name, err)
	}
	g := &Wine{name: o.Name, disk: filepath.Join(o.Dir, "disk1.raw"), prefix: prefix}
	g.tools, g.manager = &wineTools{prefix: prefix}, &wineTools{prefix: prefix}
	if err := g.furnish(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start wine guest %s: %w", o.Name, err), g.Close(ctx))
	}
	return g, nil
}

func (g *Wine) furnish(ctx context.Context, o WineOptions) error {
	f, err := os.OpenFile(g.disk, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(o.SizeBytes), f.Close(),
		g.prefix.Install(filepath.Join(o.Programs, toolsProgram), `C:\windows\system32\`+toolsProgram), g.prefix.Configure(o.VSS...))
	if err != nil {
		return err
	}
	for _, service := range vssServices {
		if err := g.createService(ctx, service); err != nil {
			return err
		}
	}
	g.start = time.Now()
	g.startAt, err = g.tools.clock(ctx)
	return err
}

// serviceTries is how often a service's entry is tried to be made: on a busy machine Wine sometimes cannot start a program.
const serviceTries = 3

func (g *Wine) createService(ctx context.Context, name string) error {
	for try := 1; ; try++ {
		_, err := g.prefix.Run(ctx, "sc.exe", "create", name, "binPath=", `C:\windows\system32\cmd.exe`, "start=", "demand")
		if err == nil || try == serviceTries {
			return err
		}
	}
}

// Command is a program in the guest, with variables besides those of the guest itself.
func (g *Wine) Command(ctx context.Context, env []string, program string, args ...string) *exec.Cmd {
	cmd := g.prefix.Command(ctx, program, args...)
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// vssServices are those of Windows that a freeze goes through and Wine does not have. Their entries are there, for who looks
// for them; nothing starts them.
var vssServices = []string{"COMSysApp", "EventSystem", "MSDTC", "swprv", "VSS"}

// Root is where the guest's drive C: lies.
func (g *Wine) Root() string { return filepath.Clean(g.prefix.Path(`C:\`)) }

// mark is a variable that every process of the guest has, and no other process of this computer.
func (g *Wine) mark() string { return "WINEPREFIX=" + filepath.Dir(g.Root()) }

// Name is the VM's name.
func (g *Wine) Name() string { return g.name }

// Kind is "wine".
func (g *Wine) Kind() string { return "wine" }

// Disk is the file that stands for the guest's disk.
func (g *Wine) Disk() string { return g.disk }

// Env is empty: the fakes find their files by fixed places.
func (g *Wine) Env() []string { return nil }

// Count says that there are no records in an image.
func (g *Wine) Count(context.Context, string) (Tally, error) { return Tally{}, nil }

// Acknowledged is 0: nothing writes to the disk.
func (g *Wine) Acknowledged() uint64 { return 0 }

// AcknowledgedBefore is 0: nothing writes to the disk.
func (g *Wine) AcknowledgedBefore(time.Time) uint64 { return 0 }

// Rescues is empty: the fakes have limits of their own.
func (g *Wine) Rescues() []time.Time { return nil }

// Err is the first thing that went wrong with the trace, nil while all is well.
func (g *Wine) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Held is what VSS held and for how long, by the fakes' trace.
type Held struct {
	// IO are the times in which no write got through to the volumes, Writers those in which each writer was frozen.
	IO      []Hold            `json:"io"`
	Writers map[string][]Hold `json:"writers"`
}

// Held reads the trace.
func (g *Wine) Held() Held {
	held := Held{IO: []Hold{}, Writers: map[string][]Hold{}}
	trace, err := g.prefix.Trace()
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.err = errors.Join(g.err, err)
		return held
	}
	for _, h := range trace.WriteHolds() {
		held.IO = append(held.IO, g.hold(h))
	}
	for _, line := range trace.All("mark", "writer", "held") {
		word := line.Fields["writer"]
		if held.Writers[word] != nil {
			continue
		}
		for _, h := range trace.WriterHolds(word) {
			held.Writers[word] = append(held.Writers[word], g.hold(h))
		}
	}
	return held
}

// hold brings a hold of the trace to the lab's clock. One that nobody ended has ended with the guest.
func (g *Wine) hold(h wine.Hold) Hold {
	at := func(d time.Duration) time.Time { return g.start.Add(d - g.startAt) }
	out := Hold{From: at(h.From), FirstSeen: at(h.From), Seen: 1, LastSeen: time.Now()}
	end := h.To
	if h.How == "" {
		i := slices.IndexFunc(g.ends, func(end time.Duration) bool { return end > h.From })
		if i < 0 {
			return out
		}
		end = g.ends[i]
	}
	out.To, out.LastSeen = at(end), at(end)
	return out
}

// Holds lists the times in which a writer or the volumes were held, the oldest first; what overlaps is one hold.
func (g *Wine) Holds() []Hold {
	held := g.Held()
	all := held.IO
	for _, holds := range held.Writers {
		all = append(all, holds...)
	}
	slices.SortFunc(all, func(a, b Hold) int { return a.From.Compare(b.From) })
	merged := []Hold{}
	for _, h := range all {
		last := len(merged) - 1
		if last < 0 || !merged[last].To.IsZero() && merged[last].To.Before(h.From) {
			merged = append(merged, h)
			continue
		}
		one := &merged[last]
		one.Seen++
		if h.LastSeen.After(one.LastSeen) {
			one.LastSeen = h.LastSeen
		}
		if h.To.IsZero() || !one.To.IsZero() && h.To.After(one.To) {
			one.To = h.To
		}
	}
	return merged
}

// Between is the longest hold that overlaps the time from from to to, ok is false when there was none.
func (g *Wine) Between(from, to time.Time) (Hold, bool) { return longestBetween(g.Holds(), from, to) }

// LongestStall is the longest hold.
func (g *Wine) LongestStall() time.Duration {
	var longest time.Duration
	for _, h := range g.Holds() {
		longest = max(longest, h.Length(time.Now()))
	}
	return longest
}

// Thaw notes that everything in the guest has been ended: nothing outside Windows can thaw what VSS holds. held says whether
// something was held until then.
func (g *Wine) Thaw() (held bool, err error) {
	for _, h := range g.Holds() {
		held = held || h.To.IsZero()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ends = append(g.ends, g.startAt+time.Since(g.start))
	return held, nil
}

// Close ends everything in the guest and removes its prefix. It is idempotent; the disk file stays.
func (g *Wine) Close(context.Context) error {
	g.closing.Do(func() { //nolint:contextcheck // a prefix ends within a limit of its own
		if err := errors.Join(g.tools.close(), g.manager.close(), g.prefix.Close()); err != nil {
			g.closed = fmt.Errorf("close wine guest %s: %w", g.name, err)
		}
	})
	return g.closed
}

// Ends counts how sessions with the writers were ended, by the fakes' trace: requests for BackupComplete and for AbortBackup.
func (g *Wine) Ends() (completed, aborted int, err error) {
	trace, err := g.prefix.Trace()
	return len(trace.All("begin", "requestor", "BackupComplete")), len(trace.All("begin", "requestor", "AbortBackup")), err
}
