package main

import (
	"bufio"
	"bytes"
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
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const testUUID = "564d0001-0002-0003-0004-000500060007"

// readyForm is the line of the contract.
var readyForm = regexp.MustCompile(`^READY ([0-9a-f]{64}) ([0-9]+)$`)

// build makes the real program, as a lab build unless tags say otherwise.
func build(t *testing.T, env []string, tags string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "stillframe-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", tags, "-ldflags", "-X main.version=1.2.3", "-o", exe, ".")
	cmd.Env = append(os.Environ(), append([]string{"CGO_ENABLED=0"}, env...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return exe
}

// process is one agent.
type process struct {
	cmd         *exec.Cmd
	fingerprint protocol.Fingerprint
	address     string
	readyFile   string
	exited      chan error
}

// launch starts `run` and reads READY from its output.
func launch(t *testing.T, exe string, peer protocol.Fingerprint, env ...string) *process {
	t.Helper()
	return launchWith(t, exe, peer, []string{"--port", "0"}, env...)
}

// launchWith is launch with the flags of another channel.
func launchWith(t *testing.T, exe string, peer protocol.Fingerprint, channel []string, env ...string) *process {
	t.Helper()
	p := &process{readyFile: filepath.Join(t.TempDir(), "ready"), exited: make(chan error, 1)}
	p.cmd = exec.Command(exe, append([]string{"run", "--peer", hex.EncodeToString(peer[:]), "--deployment", "d1", "--ready-file", p.readyFile}, channel...)...)
	p.cmd.Env = append([]string{
		"STILLFRAME_LAB_VM_UUID=" + strings.ToUpper(testUUID), "STILLFRAME_LAB_LISTEN_HOST=127.0.0.1", "STILLFRAME_LAB_RUN_DIR=" + t.TempDir(),
	}, env...)
	var stderr bytes.Buffer
	p.cmd.Stderr = &stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() {
		if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	match := readyForm.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
	if match == nil {
		t.Fatalf("READY line %q, %v, %s", line, err, &stderr)
	}
	raw, err := hex.DecodeString(match[1])
	if err != nil {
		t.Fatal(err)
	}
	copy(p.fingerprint[:], raw)
	p.address = "127.0.0.1:" + match[2]
	text, err := os.ReadFile(p.readyFile)
	if err != nil || string(text) != line {
		t.Errorf("ready file %q, %v, want %q", text, err, line)
	}
	if info, err := os.Stat(p.readyFile); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of the ready file %v, %v, want 0600", info.Mode(), err)
	}
	return p
}

// ended waits for the end of the agent.
func (p *process) ended(t *testing.T, limit time.Duration) {
	t.Helper()
	select {
	case err := <-p.exited:
		if err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	case <-time.After(limit):
		t.Fatal("the agent does not end")
	}
	if _, err := os.Stat(p.readyFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the ready file is still there: %v", err)
	}
}

// session is the orchestrator's end.
type session struct {
	t    *testing.T
	conn *tls.Conn
	q    uint64
}

func identity(t *testing.T) (tls.Certificate, protocol.Fingerprint) {
	t.Helper()
	own, fingerprint, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return own, fingerprint
}

// dial connects and reads nothing; with TLS 1.3 a refusal shows at the first read.
func dial(ctx context.Context, t *testing.T, own tls.Certificate, p *process, pin protocol.Fingerprint) (*tls.Conn, error) {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: protocol.ClientTLS(own, pin, "d1")}
	conn, err := d.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Log(err)
		}
	})
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

// send writes a message.
func (s *session) send(m protocol.Message, word protocol.Word) {
	s.t.Helper()
	s.q++
	*m.Head() = protocol.Envelope{V: protocol.MaxVersion, T: word, S: strings.Repeat("ab", 16), Q: s.q}
	body, err := protocol.Encode(m)
	if err != nil {
		s.t.Fatal(err)
	}
	frame, err := protocol.AppendFrame(nil, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.conn.Write(frame); err != nil {
		s.t.Fatal(err)
	}
}

// ask sends a message and reads frames until one of the wanted word; an ERROR fails the test.
func (s *session) ask(m protocol.Message, word protocol.Word, want protocol.Word) protocol.Message {
	s.t.Helper()
	s.send(m, word)
	for {
		body, err := protocol.ReadFrame(s.conn)
		if err != nil {
			s.t.Fatalf("wait for %s: %v", want, err)
		}
		got, err := protocol.DecodeForOrchestrator(body)
		if err != nil {
			s.t.Fatal(err)
		}
		if got.Head().T == want {
			return got
		}
		if got.Head().T == protocol.WordError {
			s.t.Fatalf("wait for %s: %s", want, body)
		}
	}
}

func hello() *protocol.Hello {
	return &protocol.Hello{MinV: protocol.MinVersion, MaxV: protocol.MaxVersion, Nonce: "n1", VMUUID: testUUID, Run: "r1", Epoch: 1}
}

func TestRunWithAScriptedFreezer(t *testing.T) {
	exe := build(t, nil, "lab")
	own, fingerprint := identity(t)
	stranger, _ := identity(t)
	script := listenScript(t)
	p := launch(t, exe, fingerprint, "STILLFRAME_LAB_FREEZER=unix:"+script.path)

	conn, err := dial(t.Context(), t, stranger, p, p.fingerprint)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("a stranger got %v, want bad certificate", err)
	}
	if _, err := dial(t.Context(), t, own, p, fingerprint); !errors.Is(err, protocol.ErrFingerprint) {
		t.Errorf("a wrong pin of the agent gave %v, want ErrFingerprint", err)
	}

	conn, err = dial(t.Context(), t, own, p, p.fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, conn: conn}
	answer := s.ask(hello(), protocol.WordHello, protocol.WordHello).(*protocol.HelloAnswer)
	hash, err := hashOf(exe)
	if err != nil {
		t.Fatal(err)
	}
	if answer.VMUUID != testUUID || answer.ExeSHA256 != hash || answer.AgentVersion != "1.2.3" || answer.OS.Family != "linux" || answer.BootID == "" || answer.UptimeUS <= 0 {
		t.Errorf("HELLO = %+v", answer)
	}
	ready := s.ask(&protocol.Arm{Mode: "fs", BackupType: "copy"}, protocol.WordArm, protocol.WordReady).(*protocol.Ready)
	if len(ready.Volumes) != 1 || ready.Volumes[0].ID != "scripted" {
		t.Errorf("READY = %+v", ready)
	}
	s.ask(&protocol.Go{Go: 7, HoldMS: 20000}, protocol.WordGo, protocol.WordFrozen)
	thawed := s.ask(&protocol.Thaw{Go: 7, Reason: "snapshot_done"}, protocol.WordThaw, protocol.WordThawed).(*protocol.Thawed)
	if !thawed.WasHeld || len(thawed.ThawResults) != 1 || !thawed.ThawResults[0].OK {
		t.Errorf("THAWED = %+v", thawed)
	}
	if got := script.words(2); got != "freeze thaw" {
		t.Errorf("the script saw %q", got)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.ended(t, 15*time.Second)
}

// A lab build without an allow-list refuses to freeze anything of the machine that it runs on.
func TestLabBuildWithoutAllowListFreezesNothing(t *testing.T) {
	exe := build(t, nil, "lab")
	own, fingerprint := identity(t)
	p := launch(t, exe, fingerprint)
	conn, err := dial(t.Context(), t, own, p, p.fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, conn: conn}
	answer := s.ask(hello(), protocol.WordHello, protocol.WordHello).(*protocol.HelloAnswer)
	for _, v := range answer.Volumes {
		if v.Supported {
			t.Errorf("volume %+v would be frozen", v)
		}
	}
	no := s.ask(&protocol.Arm{Mode: "fs", BackupType: "copy", Volumes: []string{"/"}}, protocol.WordArm, protocol.WordError).(*protocol.Error)
	if no.Code != "SF4702" {
		t.Errorf("ARM of the root = %+v, want SF4702", no)
	}
}

func TestAgentLeavesWhenNobodyComes(t *testing.T) {
	exe := build(t, nil, "lab")
	_, fingerprint := identity(t)
	p := launch(t, exe, fingerprint, "STILLFRAME_LAB_IDLE=300ms")
	p.ended(t, 10*time.Second)
}

func TestRefusedStartIsToldInTheReadyFile(t *testing.T) {
	exe := build(t, nil, "lab")
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	}()
	ready := filepath.Join(t.TempDir(), "ready")
	args := []string{
		"run", "--peer", strings.Repeat("ab", 32), "--deployment", "d1", "--ready-file", ready,
		"--port", strconv.Itoa(taken.Addr().(*net.TCPAddr).Port),
	}
	env := []string{"STILLFRAME_LAB_VM_UUID=" + testUUID, "STILLFRAME_LAB_LISTEN_HOST=127.0.0.1", "STILLFRAME_LAB_RUN_DIR=" + t.TempDir()}
	for _, want := range []string{"ERROR SF3705 listen: ", "file exists"} { // the second finds the first one's answer
		cmd := exec.Command(exe, args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), want) {
			t.Errorf("run = %v, %q, want status 1 and %q", err, out, want)
		}
		text, err := os.ReadFile(ready)
		if err != nil || !strings.HasPrefix(string(text), "ERROR SF3705 listen: ") || strings.Count(string(text), "\n") != 1 {
			t.Errorf("ready file = %q, %v", text, err)
		}
	}
}

func TestUsage(t *testing.T) {
	peer, file := strings.Repeat("ab", 32), "/tmp/none/ready"
	for _, args := range [][]string{
		{},
		{"freeze"},
		{"version", "x"},
		{"thaw", "x"},
		{"watchdog"},
		{"run"},
		{"run", "--peer", "ab", "--deployment", "d", "--ready-file", file},
		{"run", "--peer", peer, "--deployment", "", "--ready-file", file},
		{"run", "--peer", peer, "--deployment", "a b", "--ready-file", file},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", "ready"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--port", "65536"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--only-mount", "data"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--dial", "192.0.2.1:6466", "--port", "0"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--dial", "192.0.2.1"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--dial", "192.0.2.1:0"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--dial", "0.0.0.0:6466"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--dial", "224.0.0.1:6466"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--dial", "backup.example:6466"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--dial", ""},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "extra"},
		{"run", "--peer", peer, "--deployment", "d", "--ready-file", file, "--unknown"},
	} {
		var out, errs bytes.Buffer
		if got := run(args, &out, &errs); got != exitUsage || out.Len() > 0 || errs.Len() == 0 {
			t.Errorf("run(%q) = %d, %q, %q, want 2 and a text", args, got, &out, &errs)
		}
	}
	var out bytes.Buffer
	if got := run([]string{"version"}, &out, &out); got != exitOK || out.String() != "stillframe-agent dev\n" {
		t.Errorf("version = %d, %q", got, &out)
	}
}

// The systems of the release build; Windows has no freezer yet.
func TestCrossBuilds(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: builds for other systems")
	}
	for _, target := range []string{"linux/arm64", "windows/amd64"} {
		system, arch, _ := strings.Cut(target, "/")
		exe := build(t, []string{"GOOS=" + system, "GOARCH=" + arch}, "")
		if info, err := os.Stat(exe); err != nil || info.Size() > 12<<20 {
			t.Errorf("%s: %v, %v, want at most 12 MiB", target, info, err)
		}
	}
}

// script is the lab's side of the scripted freezer.
type script struct {
	path string
	seen chan string
}

func listenScript(t *testing.T) *script {
	t.Helper()
	s := &script{path: filepath.Join(t.TempDir(), "freezer"), seen: make(chan string, 16)}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			for in := bufio.NewScanner(conn); in.Scan(); {
				s.seen <- in.Text()
				if _, err := fmt.Fprintln(conn, map[string]string{"freeze": "frozen", "thaw": "thawed"}[in.Text()]); err != nil {
					return
				}
			}
			s.seen <- "closed"
		}
	}()
	return s
}

// words gives the next words that the script saw.
func (s *script) words(n int) string {
	var got []string
	for range n {
		select {
		case w := <-s.seen:
			got = append(got, w)
		case <-time.After(5 * time.Second):
			return strings.Join(got, " ")
		}
	}
	return strings.Join(got, " ")
}
