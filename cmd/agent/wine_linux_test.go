package main

import (
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/wine"
)

const (
	guestDir  = `C:\windows\Stillframe\00112233445566778899aabbccddeeff`
	guestExe  = guestDir + `\stillframe-agent.exe`
	guestFile = guestDir + `\ready`

	servicesKey = `HKLM\SYSTEM\CurrentControlSet\Services\`
)

// readyOnWindows has the pid of the process that serves as its fourth field.
var readyOnWindows = regexp.MustCompile(`^READY ([0-9a-f]{64}) ([0-9]+) ([0-9]+)\n$`)

// windows is one Windows with the agent in it.
type windows struct {
	*wine.Prefix
	t *testing.T
}

// openWindows makes a guest of Wine, with the services that a freeze needs, as names that do not run.
func openWindows(t *testing.T) *windows {
	t.Helper()
	lab.Need(t, lab.Wine, lab.Mingw)
	p, err := wine.Open(t.Context(), wine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	err = os.MkdirAll(p.Path(guestDir), 0o755)
	if err = errors.Join(err, p.Install(build(t, []string{"GOOS=windows"}, "lab"), guestExe)); err != nil {
		t.Fatal(err)
	}
	return &windows{p, t}
}

// command is the agent with the lab's seams.
func (w *windows) command(args ...string) *exec.Cmd {
	cmd := w.Command(w.t.Context(), guestExe, args...)
	cmd.Env = append(cmd.Env, "STILLFRAME_LAB_VM_UUID="+testUUID, "STILLFRAME_LAB_LISTEN_HOST=127.0.0.1", "STILLFRAME_LAB_DISKS=C:=serial:0",
		"STILLFRAME_LAB_FLUSH=1ms", "STILLFRAME_LAB_BOOT_ID=boot-1")
	return cmd
}

// agent runs the agent to its end and demands a status. Its output goes to a file: a pipe may be held open by the fake of
// VSS that it starts.
func (w *windows) agent(status int, args ...string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "output")
	file, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := w.command(args...)
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	out, readErr := os.ReadFile(path)
	if err := errors.Join(readErr, file.Close()); err != nil {
		w.t.Fatal(err)
	}
	if cmd.ProcessState.ExitCode() != status {
		w.t.Errorf("%q = %v, want status %d\n%s", args, err, status, out)
	}
	return string(out)
}

// await waits for a file of the guest.
func (w *windows) await(path string) string {
	w.t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for limit := time.After(30 * time.Second); ; {
		select {
		case <-ticker.C:
			if text, err := os.ReadFile(w.Path(path)); err == nil {
				return string(text)
			}
		case <-limit:
			w.t.Fatalf("no %s", path)
		}
	}
}

// launch starts `run` and waits for READY; it gives the process that serves, too.
func (w *windows) launch(peer protocol.Fingerprint, env ...string) (p *process, pid string) {
	w.t.Helper()
	p = &process{exited: make(chan error, 1), readyFile: w.Path(guestFile)}
	p.cmd = w.command("run", "--peer", hex.EncodeToString(peer[:]), "--deployment", "d1", "--port", "0", "--ready-file", guestFile)
	p.cmd.Env = append(p.cmd.Env, env...)
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	line := w.await(guestFile)
	match := readyOnWindows.FindStringSubmatch(line)
	if match == nil {
		w.t.Fatalf("READY line %q", line)
	}
	raw, err := hex.DecodeString(match[1])
	if err != nil {
		w.t.Fatal(err)
	}
	copy(p.fingerprint[:], raw)
	p.address = "127.0.0.1:" + match[2]
	return p, match[3]
}

// greeted dials the agent of p and says HELLO.
func (w *windows) greeted(p *process, own identityOf) (*session, *protocol.HelloAnswer) {
	w.t.Helper()
	conn, err := dial(w.t.Context(), w.t, own.cert, p, p.fingerprint)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &session{t: w.t, conn: conn}
	return s, s.ask(hello(), protocol.WordHello, protocol.WordHello).(*protocol.HelloAnswer)
}

// greetedAtLast tries until the session before is over, which lasts 10 s longer for those who want its last word again.
func (w *windows) greetedAtLast(p *process, own identityOf) (s *session) {
	w.t.Helper()
	w.until("an answer to HELLO", func() bool {
		conn, err := dial(w.t.Context(), w.t, own.cert, p, p.fingerprint)
		if err != nil {
			return false
		}
		s = &session{t: w.t, conn: conn}
		s.send(hello(), protocol.WordHello)
		body, err := protocol.ReadFrame(conn)
		if err != nil {
			return false
		}
		m, err := protocol.DecodeForOrchestrator(body)
		return err == nil && m.Head().T == protocol.WordHello
	})
	return s
}

// next reads frames until one of the wanted word.
func (s *session) next(want protocol.Word) protocol.Message {
	s.t.Helper()
	for {
		body, err := protocol.ReadFrame(s.conn)
		if err != nil {
			s.t.Fatalf("wait for %s: %v", want, err)
		}
		m, err := protocol.DecodeForOrchestrator(body)
		if err != nil {
			s.t.Fatal(err)
		}
		if m.Head().T == want {
			return m
		}
	}
}

// frozen goes on to FROZEN.
func (w *windows) frozen(s *session) {
	w.t.Helper()
	w.frozenAs(s, 7)
}

// frozenAs is frozen with an id of its own, for agents that serve several sessions.
func (w *windows) frozenAs(s *session, id uint64) {
	w.t.Helper()
	ready := s.ask(&protocol.Arm{Mode: "writer", BackupType: "copy", Volumes: []string{`C:\`}}, protocol.WordArm, protocol.WordReady).(*protocol.Ready)
	if len(ready.Volumes) != 1 || len(ready.Writers) == 0 {
		w.t.Errorf("READY = %+v", ready)
	}
	s.ask(&protocol.Go{Go: id, HoldMS: 15000}, protocol.WordGo, protocol.WordFrozen)
}

// endVSS ends the fake of VSS, as real VSS does by itself when it is idle. Wine tells servers apart by the number of their
// process, which it soon gives again: what a VSS knows of an agent that is gone would be taken for the next one's.
func (w *windows) endVSS() {
	w.t.Helper()
	if out, err := w.Run(w.t.Context(), "taskkill", "/f", "/im", "fakevssvc.exe"); err != nil && !strings.Contains(out, "not find") {
		w.t.Fatalf("taskkill: %v, %s", err, out)
	}
	if err := os.Remove(w.Path(`C:\windows\system32\fakevssvc.port`)); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
}

// tell shows what happened in VSS, when the test has failed.
func (w *windows) tell() {
	if !w.t.Failed() {
		return
	}
	trace, err := w.Trace()
	w.t.Logf("%v %v", trace, err)
}

// clean says that nothing of an agent is left but its folder.
func (w *windows) clean() {
	w.t.Helper()
	for _, key := range []string{
		servicesKey + "Stillframe-d1",
		servicesKey + "Stillframe-persistent",
		servicesKey + `VSS\Providers\{1ff4bafb-1cad-4364-8592-221443e14ef6}`,
		`HKLM\Software\Classes\CLSID\{c9bbb1b2-2fae-46ce-ad73-ba48df4715d1}`,
		`HKLM\Software\Classes\AppID\{8ec46b07-939b-40bb-a8be-2fc312d402b7}`,
	} {
		if out, err := w.Run(w.t.Context(), "reg", "query", key); err == nil {
			w.t.Errorf("%s is left:\n%s", key, out)
		}
	}
	names, err := os.ReadDir(w.Path(guestDir))
	if err != nil || len(names) != 1 {
		w.t.Errorf("the agent's folder has %v, %v, want the agent alone", names, err)
	}
}

// TestWindows has one Windows for all its parts, each of which leaves it clean.
func TestWindows(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: a Windows under Wine")
	}
	w := openWindows(t)
	var own identityOf
	own.cert, own.fingerprint = identity(t)
	for _, part := range []struct {
		name string
		f    func(w *windows, own identityOf)
	}{
		{"statuses", (*windows).statuses},
		{"session", (*windows).session},
		{"launcher killed", (*windows).launcherKilled},
		{"stopped while frozen", (*windows).stoppedWhileFrozen},
		{"thaw", (*windows).thawed},
		{"refused start", (*windows).refusedStart},
		{"detached", (*windows).detached},
		{"detached, refused", (*windows).detachedRefused},
		{"thaw as a service", (*windows).thawService},
		{"self-test", (*windows).selfTested},
		{"persistent", (*windows).persistent},
		{"persistent, renewed", (*windows).renewed},
		{"firewall", (*windows).firewall},
		{"package", (*windows).packaged},
		{"leftovers", (*windows).leftovers},
	} {
		t.Run(part.name, func(t *testing.T) {
			guest := &windows{w.Prefix, t}
			t.Cleanup(guest.tell)
			guest.endVSS()
			part.f(guest, own)
			guest.clean()
		})
	}
}

// identityOf is the orchestrator's.
type identityOf struct {
	cert        tls.Certificate
	fingerprint protocol.Fingerprint
}

func (w *windows) statuses(identityOf) {
	if out := w.agent(exitOK, "version", "-Embedding"); !strings.HasPrefix(out, "stillframe-agent 1.2.3") {
		w.t.Errorf("version = %q", out)
	}
	for _, args := range [][]string{{}, {"freeze"}, {"run"}, {"com", "x"}, {"thaw", "x"}, {"service"}, {"uninstall", "x"}, {"selftest", "--mode", "fs"}} {
		w.agent(exitUsage, args...)
	}
	w.agent(exitOK, "com", "/Embedding") // nobody calls it
	w.agent(exitFailed, "service", serviceWord, "--peer", strings.Repeat("ab", 32), "--deployment", "d1", "--ready-file", guestFile)
}

// serviceWord is the flag of the service control manager's command line.
const serviceWord = "-service"

func (w *windows) session(own identityOf) {
	if err := w.Configure("sql_events = 1"); err != nil {
		w.t.Fatal(err)
	}
	begin := time.Now()
	p, pid := w.launch(own.fingerprint)
	w.t.Logf("READY of process %s after %v", pid, time.Since(begin))
	s, answer := w.greeted(p, own)
	if answer.VMUUID != testUUID || answer.OS.Family != "windows" || answer.BootID != "boot-1" || answer.UptimeUS <= 0 || len(answer.Volumes) == 0 {
		w.t.Errorf("HELLO = %+v", answer)
	}
	w.frozen(s)
	thawed := s.ask(&protocol.Thaw{Go: 7, Reason: "snapshot_done"}, protocol.WordThaw, protocol.WordThawed).(*protocol.Thawed)
	for !thawed.Final {
		thawed = s.next(protocol.WordThawed).(*protocol.Thawed)
	}
	if !thawed.WasHeld || !thawed.Finished || len(thawed.Writers) == 0 {
		w.t.Errorf("THAWED = %+v", thawed)
	}
	witness := fmt.Sprint(thawed.Witness)
	if !strings.Contains(witness, "sql_held_us/") || strings.Contains(witness, "event_log") || strings.Contains(witness, "frozen") {
		w.t.Errorf("witness %s", witness)
	}
	done := s.ask(&protocol.Complete{OK: "none"}, protocol.WordComplete, protocol.WordComplete).(*protocol.CompleteAnswer)
	if !done.Closed {
		w.t.Errorf("COMPLETE = %+v", done)
	}
	p.ended(w.t, 30*time.Second)
}

func (w *windows) launcherKilled(own identityOf) {
	p, _ := w.launch(own.fingerprint, "STILLFRAME_LAB_IDLE=3s")
	if err := p.cmd.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	<-p.exited
	s, _ := w.greeted(p, own) // it serves
	s.ask(&protocol.Abort{Reason: "test"}, protocol.WordAbort, protocol.WordAbort)
	w.gone(p.readyFile)
	w.awaitNoService("Stillframe-d1")
}

// gone waits for the end of a file.
func (w *windows) gone(file string) {
	w.t.Helper()
	w.until("the end of "+file, func() bool {
		_, err := os.Stat(file)
		return errors.Is(err, os.ErrNotExist)
	})
}

func (w *windows) awaitNoService(name string) {
	w.t.Helper()
	w.until("the end of the service "+name, func() bool {
		_, err := w.Run(w.t.Context(), "reg", "query", servicesKey+name)
		return err != nil
	})
}

// until polls; a guest tells nobody when something ends.
func (w *windows) until(what string, done func() bool) {
	w.t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for limit := time.After(60 * time.Second); !done(); {
		select {
		case <-ticker.C:
		case <-limit:
			w.t.Fatalf("%s does not come", what)
		}
	}
}

func (w *windows) stoppedWhileFrozen(own identityOf) {
	p, _ := w.launch(own.fingerprint)
	s, _ := w.greeted(p, own)
	w.frozen(s)
	if out, err := w.Run(w.t.Context(), "sc", "stop", "Stillframe-d1"); err != nil {
		w.t.Fatalf("sc stop: %v\n%s", err, out)
	}
	thawed := s.next(protocol.WordThawed).(*protocol.Thawed)
	if !thawed.Expired || thawed.ExpiredBy != "service_stop" || thawed.Finished {
		w.t.Errorf("THAWED = %+v", thawed)
	}
	<-p.exited
	if status := p.cmd.ProcessState.ExitCode(); status != exitThawed {
		w.t.Errorf("the agent ended with status %d, want %d: it was stopped while it held", status, exitThawed)
	}
}

func (w *windows) thawed(own identityOf) {
	w.agent(exitOK, "thaw")
	p, _ := w.launch(own.fingerprint)
	w.greeted(p, own)
	w.agent(exitOK, "thaw") // it held nothing
	<-p.exited
	p, _ = w.launch(own.fingerprint)
	s, _ := w.greeted(p, own)
	w.frozen(s)
	w.agent(exitThawed, "thaw")
	<-p.exited
	w.agent(exitOK, "thaw")
}

func (w *windows) refusedStart(own identityOf) {
	port := takenPort(w.t)
	w.agent(exitFailed, "run", "--peer", hex.EncodeToString(own.fingerprint[:]), "--deployment", "d1", "--port", port, "--ready-file", guestFile)
	if text := w.await(guestFile); !strings.HasPrefix(text, "ERROR SF3705 listen: ") {
		w.t.Errorf("ready file %q", text)
	}
	if err := os.Remove(w.Path(guestFile)); err != nil {
		w.t.Error(err)
	}
}

// takenPort is one that somebody else listens on for the time of the test.
func takenPort(t *testing.T) string {
	t.Helper()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	})
	return strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
}

func (w *windows) selfTested(identityOf) {
	if out := w.agent(exitUnfit, "selftest"); !strings.Contains(out, "FAIL services: SF3402 COMSysApp is absent") {
		w.t.Errorf("selftest = %s", out)
	}
	for _, name := range []string{"VSS", "swprv", "EventSystem", "COMSysApp", "MSDTC"} {
		if out, err := w.Run(w.t.Context(), "sc", "create", name, "binPath=", `C:\none.exe`, "start=", "demand"); err != nil {
			w.t.Fatalf("sc create: %v\n%s", err, out)
		}
	}
	out := w.agent(exitOK, "selftest", "--mode", "io", "--hold", "500ms", "--json")
	var report selfTest
	if err := json.NewDecoder(strings.NewReader(out[max(strings.Index(out, "{"), 0):])).Decode(&report); err != nil {
		w.t.Fatalf("%v in %s", err, out)
	}
	if len(report.Checks) != 11 || len(report.Writers) == 0 || report.Inventory.VMUUID != testUUID {
		w.t.Errorf("report %+v", report)
	}
	w.endVSS()
	if err := w.Configure("provider_error = CoCreateInstance:0x80040154"); err != nil {
		w.t.Fatal(err)
	}
	if out := w.agent(exitFailed, "selftest"); !strings.Contains(out, "FAIL prepare: ") || !strings.Contains(out, "ok   session closed: ") {
		w.t.Errorf("selftest = %s", out)
	}
	if err := w.Configure(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *windows) persistent(own identityOf) {
	peer := hex.EncodeToString(own.fingerprint[:])
	first := w.agent(exitOK, "install", "--peer", peer, "--port", "0")
	second := w.agent(exitOK, "install", "--peer", peer, "--port", "0")
	one, two := readyOnWindows.FindStringSubmatch(first), readyOnWindows.FindStringSubmatch(second)
	if one == nil || two == nil || one[1] != two[1] {
		w.t.Fatalf("READY %q, then %q, want one identity", first, second)
	}
	p := &process{address: "127.0.0.1:" + two[2]}
	raw, err := hex.DecodeString(two[1])
	if err != nil {
		w.t.Fatal(err)
	}
	copy(p.fingerprint[:], raw)
	for id := range uint64(2) { // session after session
		s := w.greetedAtLast(p, own)
		w.frozenAs(s, id+1)
		s.ask(&protocol.Thaw{Go: id + 1, Reason: "snapshot_done"}, protocol.WordThaw, protocol.WordThawed)
		s.ask(&protocol.Abort{Reason: "test"}, protocol.WordAbort, protocol.WordAbort)
		if err := s.conn.Close(); err != nil {
			w.t.Error(err)
		}
	}
	for range 2 {
		w.agent(exitOK, "uninstall")
	}
	if _, err := os.Stat(w.Path(`C:\windows\Stillframe\persistent`)); !errors.Is(err, os.ErrNotExist) {
		w.t.Errorf("the persistent agent's folder is left: %v", err)
	}
}

// leftovers has the entry of an agent whose program is not there any more.
func (w *windows) leftovers(own identityOf) {
	out, err := w.Run(w.t.Context(), "sc", "create", "Stillframe-old", "binPath=", `C:\old.exe service`, "start=", "demand")
	if err != nil {
		w.t.Fatalf("sc create: %v\n%s", err, out)
	}
	p, _ := w.launch(own.fingerprint, "STILLFRAME_LAB_IDLE=500ms")
	p.ended(w.t, 30*time.Second)
	w.awaitNoService("Stillframe-old")
}
