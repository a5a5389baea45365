package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	orchestrator "github.com/stillframe/stillframe/pkg/guest"
)

// station is a machine on which a persistent agent is to serve.
type station struct {
	t              *testing.T
	exe, home, run string
	env            []string
}

func newStation(t *testing.T, env ...string) *station {
	t.Helper()
	s := &station{t: t, exe: build(t, nil, "lab"), home: filepath.Join(t.TempDir(), "agent", "persistent"), run: t.TempDir()}
	s.env = append([]string{
		"STILLFRAME_LAB_VM_UUID=" + testUUID, "STILLFRAME_LAB_LISTEN_HOST=127.0.0.1", "STILLFRAME_LAB_RUN_DIR=" + s.run, "STILLFRAME_LAB_HOME=" + s.home,
	}, env...)
	return s
}

func (s *station) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.exe, args...)
	cmd.Env = s.env
	return cmd
}

// agent runs the agent to its end and demands a status.
func (s *station) agent(status int, args ...string) string {
	s.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if got := exitStatus(err); got != status {
		s.t.Errorf("%q = %v, want status %d\n%s", args, err, status, out)
	}
	return string(out)
}

func exitStatus(err error) int {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &ended):
		return ended.ExitCode()
	}
	return -1
}

// serve starts the agent and waits for READY.
func (s *station) serve(args ...string) *process {
	s.t.Helper()
	p := &process{readyFile: filepath.Join(s.home, readyFileName), exited: make(chan error, 1)}
	p.cmd = s.command(append([]string{"serve"}, args...)...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	line := lines.Text()
	go func() {
		for lines.Scan() {
			continue
		}
		p.exited <- p.cmd.Wait()
	}()
	s.t.Cleanup(func() {
		if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.t.Error(err)
		}
	})
	match := readyForm.FindStringSubmatch(line)
	if match == nil {
		s.t.Fatalf("serve says %q", line)
	}
	raw, err := hex.DecodeString(match[1])
	if err != nil {
		s.t.Fatal(err)
	}
	copy(p.fingerprint[:], raw)
	p.address = "127.0.0.1:" + match[2]
	if text, err := os.ReadFile(p.readyFile); err != nil || string(text) != line+"\n" {
		s.t.Errorf("ready file %q, %v, want %q", text, err, line)
	}
	return p
}

// stop ends the agent as a supervisor does, and demands a status.
func (s *station) stop(p *process, status int) {
	s.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		if got := exitStatus(err); got != status {
			s.t.Errorf("the agent ended with %v, want status %d", err, status)
		}
	case <-time.After(30 * time.Second):
		s.t.Fatal("the agent does not end")
	}
	if _, err := os.Stat(p.readyFile); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("the ready file is still there: %v", err)
	}
}

// peerOf is how the orchestrator with the certificate own reaches the agent p.
func peerOf(own tls.Certificate, p *process) orchestrator.Peer {
	return orchestrator.Peer{
		Dial:        func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", p.address) },
		Own:         own,
		Fingerprint: p.fingerprint, Deployment: persistent, VMUUID: testUUID, AnyProgram: true, Run: "r1", Epoch: 1,
	}
}

// meet begins a session as soon as the one before is over.
func meet(t *testing.T, peer orchestrator.Peer) *orchestrator.Session {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for limit := time.After(30 * time.Second); ; {
		s, err := orchestrator.Connect(t.Context(), peer)
		if err == nil {
			t.Cleanup(s.Close)
			return s
		}
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatal(err)
		}
	}
}

// refusal is why an agent that listens lets nobody in; between two sessions it does not.
func refusal(t *testing.T, peer orchestrator.Peer) error {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for limit := time.After(30 * time.Second); ; {
		s, err := orchestrator.Connect(t.Context(), peer)
		if err == nil {
			s.Close()
			t.Fatal("the agent lets in whom it should refuse")
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatal(err)
		}
	}
}

// part ends a session.
func part(t *testing.T, s *orchestrator.Session) {
	t.Helper()
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
}

// TestServeIsRenewed has a persistent agent of Linux let in another certificate of its orchestrator, and go through a restart.
func TestServeIsRenewed(t *testing.T) {
	st := newStation(t, "STILLFRAME_LAB_FREEZER=unix:"+listenScript(t).path)
	old, oldPin := identity(t)
	next, nextPin := identity(t)
	st.agent(exitFailed, "serve", "--port", "0") // of nobody
	p := st.serve("--peer", oldPin.String(), "--port", "0")
	if out := st.agent(exitFailed, "serve", "--port", "0"); !strings.Contains(out, "SF3725") {
		t.Errorf("a second agent of one home says %q, want SF3725", out)
	}

	s := meet(t, peerOf(old, p))
	if !s.Hello.Persistent || s.Hello.LeakedSessions != 0 {
		t.Errorf("HELLO = %+v, want a persistent agent that leaks nothing", s.Hello)
	}
	pins, err := s.Rotate(t.Context(), nextPin)
	if want := (orchestrator.Pins{Agent: p.fingerprint}); err != nil || pins != want {
		t.Fatalf("Rotate = %v, %v, want %v", pins, err, want)
	}
	part(t, s)
	part(t, meet(t, peerOf(old, p))) // not proved yet: both may come
	st.stop(p, exitOK)

	if err := os.WriteFile(p.readyFile+draftSuffix, nil, 0o600); err != nil { // of one that a power cut ended
		t.Fatal(err)
	}
	first := p.fingerprint
	if p = st.serve("--port", "0"); p.fingerprint != first {
		t.Error("the agent has another certificate after a restart")
	}
	part(t, meet(t, peerOf(next, p)))
	part(t, meet(t, peerOf(next, p)))
	if err := refusal(t, peerOf(old, p)); !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("the forgotten certificate gives %v, want bad certificate", err)
	}
	st.stop(p, exitOK)
	st.agent(exitOK, "uninstall")
	st.agent(exitOK, "uninstall")
	if _, err := os.Stat(st.home); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home is left: %v", err)
	}
}

// frozenBy has the agent p hold everything that it may.
func frozenBy(t *testing.T, own tls.Certificate, p *process) *session {
	t.Helper()
	conn, err := dial(t.Context(), t, own, p, p.fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, conn: conn}
	s.ask(hello(), protocol.WordHello, protocol.WordHello)
	s.ask(&protocol.Arm{Mode: "fs", BackupType: "copy"}, protocol.WordArm, protocol.WordReady)
	s.ask(&protocol.Go{Go: 7, HoldMS: 20000}, protocol.WordGo, protocol.WordFrozen)
	return s
}

// isFrozen says whether a write to a file system stands still; the writer is waited for.
func isFrozen(t *testing.T, point string) (still bool, wrote <-chan error) {
	t.Helper()
	writer := exec.Command("touch", filepath.Join(point, "file"))
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- writer.Wait() }()
	select {
	case err := <-done:
		done <- err
		return false, done
	case <-time.After(300 * time.Millisecond):
		return true, done
	}
}

// written waits for the end of a writer.
func written(t *testing.T, wrote <-chan error) {
	t.Helper()
	select {
	case err := <-wrote:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("still frozen after 5 s")
	}
}

// TestStoppedWhileARealFileSystemIsFrozen has the supervisor stop a persistent agent that holds.
func TestStoppedWhileARealFileSystemIsFrozen(t *testing.T) {
	point := mountImage(t)
	own, pin := identity(t)
	st := newStation(t, "STILLFRAME_LAB_ONLY_MOUNT="+point)
	p := st.serve("--peer", pin.String(), "--port", "0")
	s := frozenBy(t, own, p)
	still, wrote := isFrozen(t, point)
	if !still {
		t.Error("a write on the frozen file system ended")
	}
	st.stop(p, exitThawed)
	written(t, wrote)
	for {
		body, err := protocol.ReadFrame(s.conn)
		if err != nil {
			t.Fatalf("wait for THAWED: %v", err)
		}
		if m, err := protocol.DecodeForOrchestrator(body); err == nil && m.Head().T == protocol.WordThawed {
			if w := m.(*protocol.Thawed); !w.Expired || w.ExpiredBy != "service_stop" {
				t.Errorf("THAWED = %+v, want a stop of the service", w)
			}
			break
		}
	}
	if out := st.agent(exitOK, "thaw"); out != "" {
		t.Errorf("thaw after it says %q, want nothing left", out)
	}
}

// TestServeThawsWhatADeadAgentLeft has an agent and its watchdog killed while they hold, and the next one start.
func TestServeThawsWhatADeadAgentLeft(t *testing.T) {
	point := mountImage(t)
	own, pin := identity(t)
	st := newStation(t, "STILLFRAME_LAB_ONLY_MOUNT="+point)
	p := st.serve("--peer", pin.String(), "--port", "0")
	frozenBy(t, own, p)
	watchdogs := childrenOf(t, p.cmd.Process.Pid)
	if len(watchdogs) == 0 {
		t.Fatal("the agent has no watchdog")
	}
	for _, pid := range watchdogs { // so that it cannot act between its parent's end and its own
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	err := p.cmd.Process.Kill()
	for _, pid := range watchdogs {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	if err != nil {
		t.Fatal(err)
	}
	<-p.exited
	still, wrote := isFrozen(t, point)
	if !still {
		t.Error("nothing is frozen any more before the next agent starts")
	}
	next := st.serve("--port", "0")
	written(t, wrote)
	st.stop(next, exitOK)
}

// childrenOf lists the processes that pid has started; each of its threads has a list of its own (proc(5)).
func childrenOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}
