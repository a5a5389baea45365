package guestops_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
	"github.com/stillframe/stillframe/pkg/inventory"
)

const (
	windowsFolder = `C:\Windows\Stillframe\0123456789abcdef0123456789abcdef`
	windowsAgent  = windowsFolder + `\stillframe-agent.exe`
)

func TestWindowsHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperations()
		a := guestops.New(o, inventory.Windows)
		p := payload()
		p.Name = guest.AgentName(inventory.Windows)
		r, err := a.Put(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		dir := `C:\Windows\Stillframe\` + r.Deployment
		if r.Dir != dir || r.Exe != dir+`\stillframe-agent.exe` || o.files[r.Exe] == nil {
			t.Errorf("Put = %+v, want a program in its own folder below C:\\Windows\\Stillframe", r)
		}
		o.ready = fmt.Sprintf("READY %v 6465 812\n", protocol.Fingerprint{7})
		id, err := a.Start(t.Context(), r, guest.Bootstrap{Port: 6465})
		if err != nil || id.PID != 812 || id.Fingerprint != (protocol.Fingerprint{7}) {
			t.Errorf("Start = %+v, %v, want the process that serves", id, err)
		}
		if got := strings.Join(o.args[len(o.args)-2:], " "); got != `--ready-file `+dir+`\ready` {
			t.Errorf("the agent was started with %q", got)
		}
	})
}

// TestWindowsRemove wants what a terminated agent registered taken away before its file, and a locked file tried again.
func TestWindowsRemove(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*operations, *guest.Remote)
		asked  []string // of the agent
		ok     bool
		left   bool // the folder
	}{
		"it has left":                  {change: func(*operations, *guest.Remote) {}, ok: true},
		"its file is locked a little":  {change: func(o *operations, _ *guest.Remote) { o.locked = 5 }, ok: true},
		"its file stays locked":        {change: func(o *operations, _ *guest.Remote) { o.locked = 1000 }, left: true},
		"it had to be terminated":      {change: func(o *operations, _ *guest.Remote) { o.runs = true }, asked: []string{"thaw"}, ok: true},
		"it never greeted":             {change: func(_ *operations, r *guest.Remote) { r.Greeted = false }, asked: []string{"thaw"}, ok: true},
		"its start was not answered":   {change: func(_ *operations, r *guest.Remote) { r.Greeted, r.PID = false, 0 }, asked: []string{"thaw"}, ok: true},
		"it was never started":         {change: func(_ *operations, r *guest.Remote) { *r = guest.Remote{Dir: r.Dir, Exe: r.Exe} }, ok: true},
		"its file is gone":             {change: func(o *operations, r *guest.Remote) { r.Greeted = false; delete(o.files, r.Exe) }, ok: true},
		"its thaw fails":               {change: func(o *operations, r *guest.Remote) { r.Greeted, o.exit = false, 1 }, asked: []string{"thaw"}, left: true},
		"its thaw cannot be waited on": {change: func(o *operations, r *guest.Remote) { r.Greeted, o.fail["wait"] = false, coded("SF3501") }, asked: []string{"thaw"}, left: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperations()
				o.dirs[windowsFolder], o.files[windowsAgent], o.files[windowsFolder+`\ready`] = true, nil, nil
				r := guest.Remote{Dir: windowsFolder, Exe: windowsAgent, PID: 812, Started: true, Greeted: true}
				c.change(o, &r)
				ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
				defer cancel()
				err := guestops.New(o, inventory.Windows).Remove(ctx, r)
				if (err == nil) != c.ok || o.dirs[windowsFolder] != c.left {
					t.Errorf("Remove = %v, the folder is there: %t, want success: %t, folder: %t", err, o.dirs[windowsFolder], c.ok, c.left)
				}
				if diff := cmp.Diff(c.asked, o.asked); diff != "" {
					t.Errorf("commands of the agent (-want +got):\n%s", diff)
				}
				if i := slices.Index(o.did(), "start"); i > 0 && slices.Contains(o.did()[:i], "remove") {
					t.Errorf("something was removed before its thaw: %v", o.did())
				}
			})
		})
	}
}

// The program that started the service leaves after it, and its file is locked until then; one that does not is terminated.
func TestWindowsRemoveWaitsForTheLauncher(t *testing.T) {
	for looks, asked := range map[int][]string{3: {"run"}, 1000: {"run"}} {
		synctest.Test(t, func(t *testing.T) {
			o := newOperations()
			o.lives = map[int64]int{4711: looks, 812: 2}
			o.ready = fmt.Sprintf("READY %v 6465 812\n", protocol.Fingerprint{7})
			o.dirs[windowsFolder], o.files[windowsAgent] = true, nil
			a := guestops.New(o, inventory.Windows)
			r := guest.Remote{Dir: windowsFolder, Exe: windowsAgent, Started: true, Greeted: true}
			id, err := a.Start(t.Context(), r, guest.Bootstrap{Port: 6465})
			if err != nil {
				t.Fatal(err)
			}
			r.PID = id.PID
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			defer cancel()
			if err := a.Remove(ctx, r); err != nil || len(o.dirs) > 0 || !slices.Equal(o.asked, asked) || o.lives[4711] > 0 || o.lives[812] > 0 {
				t.Errorf("Remove with a launcher that is seen %d times = %v; left %v, commands %v, want %v", looks, err, o.lives, o.asked, asked)
			}
		})
	}
}

// A service is not terminated where its own thaw ends it in good order.
func TestWindowsRescue(t *testing.T) {
	for _, exit := range []int{0, 9} {
		o := newOperations()
		o.runs, o.exit = true, exit
		released, err := guestops.New(o, inventory.Windows).Rescue(t.Context(), guest.Remote{Dir: windowsFolder, Exe: windowsAgent, PID: 812})
		if err != nil || released != (exit == 9) || !slices.Equal(o.did(), []string{"start", "wait"}) || !slices.Equal(o.asked, []string{"thaw"}) {
			t.Errorf("Rescue with exit code %d = %v, %v after %v", exit, released, err, o.did())
		}
	}
}

func TestWindowsClear(t *testing.T) {
	for name, c := range map[string]struct {
		started bool
		gone    bool // the agent's file
		exit    int
		asked   []string
		left    bool
	}{
		"never started":     {},
		"it was started":    {started: true, asked: []string{"thaw"}},
		"the thaw fails":    {started: true, exit: 1, asked: []string{"thaw"}, left: true},
		"its file has gone": {started: true, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperations()
				o.dirs[windowsFolder], o.files[windowsAgent], o.exit = true, nil, c.exit
				if c.gone {
					delete(o.files, windowsAgent)
				}
				err := guestops.New(o, inventory.Windows).Clear(t.Context(), programs{o: o}, windowsFolder, c.started)
				if (err != nil) != c.left || o.dirs[windowsFolder] != c.left {
					t.Errorf("Clear = %v, the folder is there: %t, want %t", err, o.dirs[windowsFolder], c.left)
				}
				if diff := cmp.Diff(c.asked, o.asked); diff != "" {
					t.Errorf("commands of the agent (-want +got):\n%s", diff)
				}
			})
		})
	}
	for _, dir := range []string{folder, `C:\Windows`, windowsFolder + `\x`, `C:\Windows\Stillframe\..\` + strings.Repeat("0", 32)} {
		o := newOperations()
		if err := guestops.New(o, inventory.Windows).Clear(t.Context(), programs{o: o}, dir, true); guest.CodeOf(err) != "SF3950" || len(o.did()) > 0 {
			t.Errorf("Clear(%q) = %v after %v, want SF3950 and nothing", dir, err, o.did())
		}
	}
}

// What a Windows guest lists cannot make us touch anything outside the folder.
func TestWindowsRemoveStaysInTheFolder(t *testing.T) {
	o := newOperations()
	o.dirs[windowsFolder] = true
	o.listed = []string{".", "..", `\`, "", `..\..`, `..\..\x`, `C:\x`, "C:", "../x", `a\..`, `\\server\share\x`, "x:stream"}
	if err := guestops.New(o, inventory.Windows).Remove(t.Context(), guest.Remote{Dir: windowsFolder}); err != nil {
		t.Error(err)
	}
	for _, c := range o.calls {
		what, name, _ := strings.Cut(c, " ")
		if dir, _ := split(name); what == "remove" && name != windowsFolder && (dir != windowsFolder || strings.ContainsAny(name[len(windowsFolder):], ":/")) {
			t.Errorf("%s, which lies outside of %s", c, windowsFolder)
		}
	}
}
