package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
)

// TestWhatOutlastsASession has a persistent agent asked to freeze again, session after session: by the id of a freeze of the
// session before, with an older epoch, and more often than is allowed in an hour.
func TestWhatOutlastsASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := stay(t, slowly(), &shelf{})
		session := func(id uint64) protocol.Message {
			t.Helper()
			w := m.dialWire(t)
			w.say(t, &protocol.Arm{Mode: "fs"}, protocol.WordArm)
			until[*protocol.Ready](t, w)
			w.say(t, &protocol.Go{Go: id, HoldMS: 20000}, protocol.WordGo)
			answer := <-w.got
			w.say(t, &protocol.Abort{}, protocol.WordAbort)
			until[*protocol.Abort](t, w)
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute + 7*time.Millisecond) // the agent serves the next one by then
			return answer
		}
		code := func(m protocol.Message) string {
			if e, ok := m.(*protocol.Error); ok {
				return e.Code
			}
			return string(m.Head().T)
		}
		if got := code(session(1)); got != "FROZEN" {
			t.Errorf("the first GO gives %s, want FROZEN", got)
		}
		if got := code(session(1)); got != "SF4022" {
			t.Errorf("the same GO in the next session gives %s, want SF4022", got)
		}
		older := m.peer
		older.Epoch--
		if _, err := guest.Connect(t.Context(), older); guest.CodeOf(err) != "SF4022" {
			t.Errorf("an older epoch gives %v, want SF4022", err)
		}
		for id := uint64(2); id <= 12; id++ {
			if got := code(session(id)); got != "FROZEN" {
				t.Errorf("GO %d gives %s, want FROZEN", id, got)
			}
		}
		if got := code(session(13)); got != "SF4023" {
			t.Errorf("the thirteenth GO within an hour gives %s, want SF4023", got)
		}
		time.Sleep(time.Hour)
		if got := code(session(14)); got != "FROZEN" {
			t.Errorf("an hour later GO gives %s, want FROZEN", got)
		}
		m.stop()
		m.end(t)
	})
}
