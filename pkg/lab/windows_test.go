package lab_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

const windowsScenario = `
name: windows
vms:
  - {name: win, guest: wine, writers: [exchange, sql], vss: {hold_limit_ms: 9000, writer.exchange.limit_ms: 20000}, disks: [{size: 1MiB}]}
`

// windows is a running world with one wine guest, and guest operations on it as the product does them.
type windows struct {
	*lab.World
	vm  inventory.VM
	ops *vsphere.GuestOps
}

func startWindows(t *testing.T) windows {
	t.Helper()
	lab.Need(t, lab.Mingw, lab.Wine)
	s, err := lab.ParseScenario([]byte(windowsScenario))
	if err != nil {
		t.Fatal(err)
	}
	w := windows{}
	if w.World, err = lab.Start(t.Context(), s, lab.Options{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	ready := w.Ready()
	e, err := vsphere.Open(t.Context(), vsphere.Options{
		URL: w.VCenter().URL(), CAFile: ready.CAFile,
		Login: func(context.Context) (*url.Userinfo, error) { return url.UserPassword(ready.User, ready.Password), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if w.vm, err = e.Find(t.Context(), "win"); err != nil {
		t.Fatal(err)
	}
	w.ops = vsphere.NewGuestOps(e, w.vm, func(context.Context) (*url.Userinfo, error) {
		return url.UserPassword(ready.Guests[0].User, ready.Guests[0].Password), nil
	})
	return w
}

// run runs a program to its end.
func (w windows) run(t *testing.T, program string, args ...string) int {
	t.Helper()
	pid, err := w.ops.Start(t.Context(), `C:\windows\system32\`+program, args, nil)
	if err != nil {
		t.Fatal(err)
	}
	code, err := w.ops.Wait(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// TestWineGuest has guest operations name files and processes as Windows does, and the fakes' trace tell the holds.
func TestWineGuest(t *testing.T) {
	t.Parallel()
	w := startWindows(t)
	if w.vm.System() != inventory.Windows || w.vm.OldWindows() {
		t.Errorf("the guest runs %q (%s %s), want a Windows of today", w.vm.System(), w.vm.GuestFamily, w.vm.GuestID)
	}
	if err := w.ops.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("files", w.files)
	t.Run("processes", w.processes)
	t.Run("holds", w.holds)
	t.Run("look", w.look)
	t.Run("crash", w.crash)
}

func (w windows) files(t *testing.T) {
	dir := `C:\Windows\Stillframe\0123`
	if err := w.ops.MakeDir(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	content := []byte("MZ, but no program")
	if err := w.ops.Upload(t.Context(), dir+`\a.exe`, int64(len(content)), bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	back, err := w.ops.Fetch(t.Context(), `C:\WINDOWS\stillframe\0123\A.EXE`, 100)
	if err != nil || !bytes.Equal(back, content) {
		t.Errorf("read back %q, %v, whatever the case of the name", back, err)
	}
	names, err := w.ops.List(t.Context(), dir)
	if err != nil || !slices.Equal(names, []string{"a.exe"}) {
		t.Errorf("List = %v, %v", names, err)
	}
	if err := w.ops.Remove(t.Context(), dir+`\a.exe`, false); err != nil {
		t.Error(err)
	}
	if err := w.ops.Remove(t.Context(), dir, true); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/etc", `D:\x`, `C:\..\x`, `\\server\x`} {
		if err := w.ops.MakeDir(t.Context(), path); err == nil {
			t.Errorf("%s was made", path)
		}
	}
}

func (w windows) processes(t *testing.T) {
	if code := w.run(t, "cmd.exe", "/c", "exit 7"); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	pid, err := w.ops.Start(t.Context(), `C:\windows\system32\notepad.exe`, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if running, err := w.ops.Running(t.Context(), pid); !running || err != nil {
		t.Errorf("Running = %t, %v, want a process that lives", running, err)
	}
	if err := w.ops.Terminate(t.Context(), pid); err != nil {
		t.Error(err)
	}
	if _, err := w.ops.Wait(t.Context(), pid); err != nil {
		t.Error(err)
	}
	if running, err := w.ops.Running(t.Context(), pid); running || err != nil {
		t.Errorf("Running = %t, %v, want a process that was terminated", running, err)
	}
}

// clockLag is how far the clock of a Wine prefix may stay behind on a busy machine: its server moves it.
const clockLag = 2 * time.Second

func (w windows) holds(t *testing.T) {
	w.run(t, "selfprovider.exe", "install")
	begin := time.Now()
	w.run(t, "selfrequestor.exe", strings.Fields("init state context metadata components set volume prepare status do status succeeded complete status")...)
	held, _ := w.Holds("win")
	if held.Kind != "wine" || held.HeldNow || held.Error != "" || len(held.Holds) != 1 || held.VSS == nil {
		t.Fatalf("holds = %+v", held)
	}
	if h := held.Holds[0]; h.From.Before(begin.Add(-clockLag)) || h.To.After(time.Now()) || !h.To.After(h.From) {
		t.Errorf("the hold lasted from %v to %v, the backup from %v", h.From, h.To, begin)
	}
	if len(held.VSS.IO) != 1 || len(held.VSS.Writers) != 2 || len(held.VSS.Writers["exchange"]) != 1 {
		t.Errorf("VSS held %+v, want the volumes and two writers once", held.VSS)
	}
}

// look has the lab see one session that was completed, and a registration only where there is one.
func (w windows) look(t *testing.T) {
	seen, found, err := w.Look(t.Context(), "win")
	if err != nil || !found || len(seen.Registered) > 0 || len(seen.Rules) > 0 || len(seen.Sessions) != 1 || seen.Sessions[0].Completed != 1 || seen.Sessions[0].Aborted != 0 ||
		seen.Opened != 1 || seen.Closed != 1 || len(seen.Served) != 1 {
		t.Errorf("Look = %+v, %t, %v, want one session that was completed and nothing of an agent", seen, found, err)
	}
	g, _ := w.Guest("win")
	const left = "name=Stillframe-d1\tdir=in\taction=allow"
	rules := filepath.Join(g.(*guests.Wine).Root(), "lab", "firewall")
	if err := os.WriteFile(rules, []byte("name=Other\tdir=in\taction=allow\n"+left+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if seen, _, err = w.Look(t.Context(), "win"); err != nil || !slices.Equal(seen.Rules, []string{left}) {
		t.Errorf("the firewall has %q, %v, want the one rule of an agent", seen.Rules, err)
	}
	admin := httptest.NewServer(w.Admin())
	defer admin.Close()
	post(t, admin.URL+"/vm/win/do", `{"do": "old_registration"}`)
	if seen, _, err = w.Look(t.Context(), "win"); err != nil || len(seen.Registered) != 3 {
		t.Errorf("the registry has %v, %v, want a provider, a class and its AppID", seen.Registered, err)
	}
}

// crash ends everything inside at once, and finds a guest that works again, with other process ids.
func (w windows) crash(t *testing.T) {
	pid, err := w.ops.Start(t.Context(), `C:\windows\system32\notepad.exe`, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	admin := httptest.NewServer(w.Admin())
	defer admin.Close()
	post(t, admin.URL+"/vm/win/do", `{"do": "reboot"}`)
	if code := w.run(t, "cmd.exe", "/c", "exit 3"); code != 3 {
		t.Errorf("exit code %d after the reboot, want 3", code)
	}
	if running, err := w.ops.Running(t.Context(), pid); running && err == nil {
		t.Logf("process id %d is in use again", pid)
	}
}

// post changes the world by its admin.
func post(t *testing.T, url, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := new(http.Client).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusNoContent {
		t.Fatalf("POST %s %s: %s, %v", url, body, answer.Status, err)
	}
}

func TestWineScenario(t *testing.T) {
	for text, want := range map[string]string{
		"{name: v, guest: wine, writers: [exchange], vss: {in_progress: 1}}":             "",
		"{name: v, guest: scripted, writers: [exchange]}":                                "need a wine guest",
		"{name: v, guest: wine, writers: [a.b]}":                                         "plain word",
		"{name: v, guest: wine, vss: {x: \"1 # 2\"}}":                                    "has a #",
		"{name: v, guest: wine, root_size: 1MiB}":                                        "root_size",
		"{name: v, guest: wine, hooks: [{name: h, program: x, description: x}]}":         "hooks need",
		"{name: v, guest: wine}\nevents:\n  - {at: start, vm: v, do: thaw}":              "cannot be done to a wine guest",
		"{name: v, guest: wine}\nevents:\n  - {at: task.running, vm: v, do: kill_agent}": "",
		"{name: v, guest: scripted}\nevents:\n  - {at: start, vm: v, do: stop_service}":  "needs a wine guest",
	} {
		_, err := lab.ParseScenario([]byte("name: n\nvms:\n  - " + text + "\n"))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
