package svcctl_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cloudsoda "github.com/cloudsoda/go-smb2"

	client "github.com/stillframe/stillframe/pkg/guest/adminshare/svcctl"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/lab/smb"
	"github.com/stillframe/stillframe/pkg/lab/svcctl"
)

const (
	deployment = "00112233445566778899aabbccddeeff"
	remoteDir  = `Stillframe\` + deployment
	remoteExe  = `C:\windows\` + remoteDir + `\stillframe-agent.exe`
	// listenHost is an address that only the lab's words can give an agent.
	listenHost = "127.71.2.3"
)

// agentSeams are the words of an agent in Wine, which has neither firmware nor disks.
func agentSeams() []string {
	var words []string
	for _, v := range []string{
		"STILLFRAME_LAB_VM_UUID=4211a5b0-0000-4000-8000-000000000001", "STILLFRAME_LAB_LISTEN_HOST=" + listenHost, "STILLFRAME_LAB_DISKS=C:=serial:0",
		"STILLFRAME_LAB_FLUSH=1ms", "STILLFRAME_LAB_BOOT_ID=boot-1",
	} {
		words = append(words, "--lab-env", v)
	}
	return words
}

// TestWine pushes the real agent through ADMIN$ and runs it as a service of a real, if foreign, service control manager.
func TestWine(t *testing.T) {
	lab.Need(t, lab.Wine, lab.Mingw, lab.Smbd)
	agent := filepath.Join(t.TempDir(), "stillframe-agent.exe")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../..", "-trimpath", "-tags", "lab", "-o", agent, "./cmd/agent")
	build.Env = append(build.Environ(), "CGO_ENABLED=0", "GOOS=windows")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	guest, err := guests.StartWine(t.Context(), guests.WineOptions{Name: "W", Dir: t.TempDir(), SizeBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := guest.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	s := startSMB(t, smb.Encrypted, true, filepath.Join(guest.Root(), "windows"))
	scm, err := svcctl.Start(svcctl.Options{Services: guest.Services(), Words: agentSeams}, s.Pipes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := scm.Close(); err != nil {
			t.Error(err)
		}
	})
	w := world{s, scm}
	push(t, w, agent)
	m := open(t, w, "cloudsoda", "Administrator")
	t.Run("cycle", func(t *testing.T) { wineCycle(t, w, m) })
	t.Run("refusals", func(t *testing.T) { wineRefusals(t, m) })
	t.Run("list", func(t *testing.T) {
		names, err := m.List()
		if err != nil || !slices.Contains(names, "RpcSs") || slices.Contains(names, "Stillframe-"+deployment) {
			t.Errorf("List() = %v, %v", names, err)
		}
	})
}

// push puts the agent where the product does.
func push(t *testing.T, w world, agent string) {
	t.Helper()
	conn, err := dial(t, w)
	if err != nil {
		t.Fatal(err)
	}
	d := cloudsoda.Dialer{Initiator: &cloudsoda.NTLMInitiator{User: "Administrator", Password: password}}
	session, err := d.DialConn(t.Context(), conn, "")
	if err != nil {
		t.Fatal(err)
	}
	share, err := session.Mount(`\\127.0.0.1\ADMIN$`)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.ReadFile(agent)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(share.Mkdir("Stillframe", 0o755), share.Mkdir(remoteDir, 0o755), share.WriteFile(remoteDir+`\stillframe-agent.exe`, exe, 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// wineCycle runs the agent twice: the first start of a prefix is a slow one. Each is a deployment of its own, because an agent that
// leaves takes its entry out by its name.
func wineCycle(t *testing.T, w world, m *client.Manager) {
	t.Helper()
	for _, deployment := range []string{deployment, strings.Repeat("01", 16)} {
		file := remoteDir + `\ready-` + deployment
		path := `"` + remoteExe + `" service -service --peer ` + strings.Repeat("ab", 32) + ` --deployment ` + deployment + ` --port 0 --ready-file C:\windows\` + file
		begin := time.Now()
		s, err := m.Create("Stillframe-"+deployment, "Stillframe-"+deployment, path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.ImagePath(); err != nil || got != path {
			t.Errorf("ImagePath() = %q, %v, want %q", got, err, path)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		running, _ := await(t, s, client.Running)
		pid := running.PID
		started := time.Since(begin)
		ready := readyFile(t, w, file)
		if fields := strings.Fields(ready); pid == 0 || len(fields) != 4 || fields[0] != "READY" {
			t.Errorf("process %d says %q", pid, ready)
		} else if conn, err := net.Dial("tcp", net.JoinHostPort(listenHost, fields[2])); err != nil {
			t.Errorf("the agent has not got the lab's words: %v", err)
		} else {
			conn.Close()
		}
		begin = time.Now()
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		// The agent removes its own entry when it stops, and may be faster.
		if end, gone := await(t, s, client.Stopped); !gone && end.PID != 0 {
			t.Errorf("stopped: %+v", end)
		}
		if err := s.Delete(); err != nil && client.Win32(err) != client.ERROR_SERVICE_DOES_NOT_EXIST && client.Win32(err) != client.ERROR_SERVICE_MARKED_FOR_DELETE {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		t.Logf("created and RUNNING after %v, stopped and deleted in %v", started, time.Since(begin))
	}
}

// serviceLimit bounds a change of a service's state on a busy machine.
const serviceLimit = 60 * time.Second

// await waits for a state; a service that goes while it is to stop is gone.
func await(t *testing.T, s *client.Service, want client.State) (status client.Status, gone bool) {
	t.Helper()
	for begin := time.Now(); ; {
		status, err := s.Query()
		if want == client.Stopped && client.Win32(err) == client.ERROR_SERVICE_DOES_NOT_EXIST {
			return status, true
		}
		if err != nil {
			t.Fatal(err)
		}
		if status.State == want {
			return status, false
		}
		if time.Since(begin) > serviceLimit {
			t.Fatalf("the service is %+v after %v", status, serviceLimit)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// readyFile waits for what the agent writes, through the share, and removes it.
func readyFile(t *testing.T, w world, file string) string {
	t.Helper()
	conn, err := dial(t, w)
	if err != nil {
		t.Fatal(err)
	}
	d := cloudsoda.Dialer{Initiator: &cloudsoda.NTLMInitiator{User: "Administrator", Password: password}}
	session, err := d.DialConn(t.Context(), conn, "")
	if err != nil {
		t.Fatal(err)
	}
	share, err := session.Mount(`\\127.0.0.1\ADMIN$`)
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; {
		text, err := share.ReadFile(file)
		if err == nil && strings.HasSuffix(string(text), "\n") {
			return string(text)
		}
		if time.Since(begin) > serviceLimit/3 {
			t.Fatalf("no READY: %q, %v", text, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// wineRefusals are numbers that come from the guest itself.
func wineRefusals(t *testing.T, m *client.Manager) {
	t.Helper()
	if _, err := m.OpenService("Stillframe-none"); client.Win32(err) != client.ERROR_SERVICE_DOES_NOT_EXIST {
		t.Errorf("a service that is not there: %v", err)
	}
	s, err := m.Create("Stillframe-mute", "mute", `"C:\windows\system32\cmd.exe"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create("Stillframe-mute", "mute", `"C:\windows\system32\cmd.exe"`); client.Win32(err) != client.ERROR_SERVICE_EXISTS {
		t.Errorf("a service that is there: %v", err)
	}
	if err := s.Stop(); client.Win32(err) != client.ERROR_SERVICE_NOT_ACTIVE {
		t.Errorf("stop of what does not run: %v", err)
	}
	begin := time.Now()
	var refused *client.Error
	if err := s.Start(); !errors.As(err, &refused) || refused.Code() != "SF3401" {
		t.Errorf("start of a program that is no service: %v, want SF3401", err)
	}
	t.Logf("given up after %v", time.Since(begin))
	if err := errors.Join(s.Delete(), s.Close()); err != nil {
		t.Error(err)
	}
}
