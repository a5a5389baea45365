package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/lab/wine"
)

// processOf is the agent that said line, which nothing of this test waits for.
func (w *windows) processOf(line string) *process {
	w.t.Helper()
	match := readyOnWindows.FindStringSubmatch(line)
	if match == nil {
		w.t.Fatalf("READY line %q", line)
	}
	raw, err := hex.DecodeString(match[1])
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{address: "127.0.0.1:" + match[2], readyFile: w.Path(guestFile)}
	copy(p.fingerprint[:], raw)
	return p
}

func runArgs(own identityOf, more ...string) []string {
	args := []string{"run", "--peer", hex.EncodeToString(own.fingerprint[:]), "--deployment", "d1", "--ready-file", guestFile}
	return append(args, more...)
}

// detached has the launcher leave before anybody has spoken to the service.
func (w *windows) detached(own identityOf) {
	p := w.processOf(w.agent(exitOK, runArgs(own, "--port", "0", "--detach")...))
	s, _ := w.greeted(p, own)
	w.frozen(s)
	s.ask(&protocol.Thaw{Go: 7, Reason: "snapshot_done"}, protocol.WordThaw, protocol.WordThawed)
	s.ask(&protocol.Abort{Reason: "test"}, protocol.WordAbort, protocol.WordAbort)
	w.gone(p.readyFile)
	w.awaitNoService("Stillframe-d1")
}

// detachedRefused has a service that cannot listen, and then one that cannot answer.
func (w *windows) detachedRefused(own identityOf) {
	port := takenPort(w.t)
	if out := w.agent(exitFailed, runArgs(own, "--port", port, "--detach")...); !strings.HasPrefix(out, "ERROR SF3705 listen: ") {
		w.t.Errorf("run --detach = %q, want SF3705", out)
	}
	w.awaitNoService("Stillframe-d1")
	if err := os.Remove(w.Path(guestFile)); err != nil {
		w.t.Error(err)
	}
	args := runArgs(own, "--port", "0", "--detach")
	args[len(args)-4] = guestDir + `\none\ready`
	begin := time.Now()
	out := w.agent(exitFailed, args...)
	if !strings.Contains(out, "has ended without a word") || time.Since(begin) > 25*time.Second {
		w.t.Errorf("run --detach = %q after %v, want the end of the service", out, time.Since(begin))
	}
	w.awaitNoService("Stillframe-d1")
}

// thawService has services made by who can do nothing else: of a guest that nobody holds, of one that is held, and after it.
func (w *windows) thawService(own identityOf) {
	programs, err := wine.Build(w.t.Context())
	if err == nil {
		err = w.Install(filepath.Join(programs, "startservice.exe"), `C:\windows\system32\startservice.exe`)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	rescue := func(want int) {
		w.t.Helper()
		const name = "Stillframe-d1-thaw"
		out, err := w.Run(w.t.Context(), "startservice", name, guestExe+" service -service --once "+name+" thaw")
		win32 := 0
		if want != exitOK {
			win32 = 1066 // ERROR_SERVICE_SPECIFIC_ERROR
		}
		if text := fmt.Sprintf("stopped %d %d", win32, want); err != nil || strings.TrimSpace(out) != text {
			w.t.Errorf("the service = %v, %q, want %q", err, out, text)
		}
		w.awaitNoService(name)
	}
	rescue(exitOK)
	p, _ := w.launch(own.fingerprint)
	s, _ := w.greeted(p, own)
	w.frozen(s)
	rescue(exitThawed)
	thawed := s.next(protocol.WordThawed).(*protocol.Thawed)
	if !thawed.Expired || thawed.ExpiredBy != "service_stop" {
		w.t.Errorf("THAWED = %+v", thawed)
	}
	<-p.exited
	rescue(exitOK)
	for _, args := range [][]string{{}, {"Spooler", "thaw"}, {"Stillframe-a b", "thaw"}, {"Stillframe-a"}, {"Stillframe-a", "selftest"}} {
		w.agent(exitUsage, append([]string{"service", serviceWord, "--once"}, args...)...)
	}
}
