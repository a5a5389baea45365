package main

import (
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/daemon"
	"github.com/stillframe/stillframe/pkg/lab"
)

// notified is a fake of systemd's socket.
func notified(t *testing.T, s *station) *safeLog {
	t.Helper()
	path := filepath.Join(filepath.Dir(s.env["STILLFRAME_CONFIG"]), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	log, ended := &safeLog{}, make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			log.Write(append(b[:n], '\n')) //nolint:errcheck // into memory
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
		t.Logf("systemd heard\n%s", log)
	})
	s.env["NOTIFY_SOCKET"], s.env["WATCHDOG_USEC"] = path, "3000000"
	return log
}

// TestSystemd listens to what systemd hears of a daemon: in an open window, at a reload, and at its end with a guest held.
func TestSystemd(t *testing.T) {
	lab.Need(t, lab.Root, lab.Loop)
	t.Parallel()
	w := start(t, "recover-killed")
	s := w.station(t, "frozen", "  - {name: job, select: {vms: [frozen]}}\n")
	heard := notified(t, s)
	d := s.begin()
	s.ready()
	await(t, "READY, a status and the watchdog's food", func() bool {
		text := heard.String()
		return strings.HasPrefix(text, "READY=1\n") && strings.Contains(text, "STATUS=no window open\n") && strings.Count(text, "WATCHDOG=1\n") > 2
	})
	if err := d.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	reload := regexp.MustCompile(`RELOADING=1\nMONOTONIC_USEC=\d{6,}\n(STATUS=.*\n|WATCHDOG=1\n)*READY=1\n`)
	await(t, "the reload", func() bool { return reload.MatchString(heard.String()) })
	if o := s.do("jobs", "run", "job"); o.exit != exitOK {
		t.Fatalf("jobs run: exit status %d", o.exit)
	}
	open := regexp.MustCompile(`STATUS=1 window open, worst \d+\.\d s of 20\n`)
	await(t, "the window in the status", func() bool { return open.MatchString(heard.String()) })
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := d.end(t); exit != exitOK {
		t.Errorf("exit status %d, want 0", exit)
	}
	await(t, "STOPPING, more time for the open window, and a status", func() bool {
		_, ending, found := strings.Cut(heard.String(), "STOPPING=1\n")
		return found && strings.Contains(ending, "EXTEND_TIMEOUT_USEC=30000000\n") && strings.Contains(ending, "STATUS=ending: ")
	})
}

// TestStatus is what systemctl status shows.
func TestStatus(t *testing.T) {
	t.Parallel()
	open := []daemon.OpenWindow{
		{Run: catalog.Run{ID: "a"}, Since: time.Now().Add(-7200 * time.Millisecond), Budget: 20 * time.Second},
		{Run: catalog.Run{ID: "b"}, Since: time.Now(), Budget: 20 * time.Second},
	}
	for want, got := range map[string]string{
		`^no window open$`:                               statusOf(nil, false),
		`^2 windows open, worst \d+\.\d s of 20$`:        statusOf(open, false),
		`^ending: 1 window open, worst \d+\.\d s of 20$`: statusOf(open[:1], true),
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("the status is %q, want %s", got, want)
		}
	}
}
