package main

import (
	"os"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// persistentReady is the ready file of the persistent agent.
const persistentReady = `C:\windows\Stillframe\persistent\ready`

// renewed has a persistent agent let in another certificate of its orchestrator, and killed with a session of the writers open:
// what it was told outlasts it, and it tells of the session.
func (w *windows) renewed(own identityOf) {
	var next identityOf
	next.cert, next.fingerprint = identity(w.t)
	line := w.agent(exitOK, "install", "--peer", own.fingerprint.String(), "--port", "0")
	p, pid := w.processOf(line), readyOnWindows.FindStringSubmatch(line)[3]

	s, answer := w.greeted(p, own)
	if !answer.Persistent || answer.LeakedSessions != 0 {
		w.t.Errorf("HELLO = %+v, want a persistent agent that leaks nothing", answer)
	}
	kept := s.ask(&protocol.Pin{Next: next.fingerprint.String()}, protocol.WordPin, protocol.WordPin).(*protocol.PinAnswer)
	if kept.Fingerprint != p.fingerprint.String() || kept.Next != "" {
		w.t.Errorf("PIN = %+v, want %v and no other", kept, p.fingerprint)
	}
	w.frozen(s)
	s.ask(&protocol.Thaw{Go: 7, Reason: "snapshot_done"}, protocol.WordThaw, protocol.WordThawed)
	s.ask(&protocol.Abort{Reason: "test"}, protocol.WordAbort, protocol.WordAbort)
	if err := s.conn.Close(); err != nil {
		w.t.Error(err)
	}

	s = w.greetedAtLast(p, next)
	s.ask(&protocol.Arm{Mode: "writer", BackupType: "copy", Volumes: []string{`C:\`}}, protocol.WordArm, protocol.WordReady)
	if out, err := w.Run(w.t.Context(), "taskkill", "/f", "/pid", pid); err != nil {
		w.t.Fatalf("taskkill: %v\n%s", err, out)
	}
	w.endVSS()
	w.until("the start of the service", func() bool {
		_, err := w.Run(w.t.Context(), "sc", "start", "Stillframe-persistent")
		return err == nil
	})
	w.until("another READY", func() bool {
		text, err := os.ReadFile(w.Path(persistentReady))
		match := readyOnWindows.FindStringSubmatch(string(text))
		if err != nil || match == nil || match[3] == pid {
			return false
		}
		p = w.processOf(string(text))
		return true
	})
	if conn, err := dial(w.t.Context(), w.t, own.cert, p, p.fingerprint); err == nil {
		if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad certificate") {
			w.t.Errorf("the forgotten certificate gives %v, want bad certificate", err)
		}
	}
	if _, answer = w.greeted(p, next); answer.LeakedSessions != 1 {
		w.t.Errorf("the agent tells of %d sessions that leaked, want the one that was open when it was killed", answer.LeakedSessions)
	}
	w.agent(exitOK, "uninstall")
}
