package agent

import (
	"fmt"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// ring keeps the last events in memory made beforehand, because nothing may be written while anything is held.
type ring struct {
	mu   sync.Mutex
	at   [ringEntries]time.Duration
	what [ringEntries]any
	next int
}

// note keeps an event or an error; it is formatted only when the ring is read.
func (r *ring) note(at time.Duration, what any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at[r.next%ringEntries], r.what[r.next%ringEntries] = at, what
	r.next++
}

// traceEntries is how many of the ring's entries go into THAWED.
const traceEntries = 64

// entries gives the newest entries, the oldest of them first.
func (r *ring) entries() []protocol.TraceEntry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []protocol.TraceEntry
	for i := max(0, r.next-traceEntries); i < r.next; i++ {
		out = append(out, protocol.TraceEntry{AtUS: r.at[i%ringEntries].Microseconds(), What: describe(r.what[i%ringEntries])})
	}
	return out
}

// describe names an event for the trace.
func describe(what any) string {
	switch e := what.(type) {
	case Msg:
		return "word " + string(e.M.Head().T)
	case Hello:
		return "word HELLO"
	case Fired:
		return fmt.Sprintf("timer %d", e.Timer)
	case FreezeEnded:
		if e.Err != nil {
			return "freeze ended: " + e.Err.Error()
		}
		return "freeze ended"
	case PreparedEvent:
		if e.Err != nil {
			return "prepare ended: " + e.Err.Error()
		}
		return "prepare ended"
	case HoldExpired:
		return "hold ended: " + string(e.By)
	case SettledEvent:
		return "set ended: " + e.Result
	case CompletedEvent:
		return "completed: " + e.Result
	case ClosedEvent:
		if e.Err != nil {
			return "close ended: " + e.Err.Error()
		}
		return "close ended"
	case PinKept:
		if e.Err != nil {
			return "renewal ended: " + e.Err.Error()
		}
		return "renewal ended"
	case ThawEnded:
		return "thaw ended"
	case HookEnded:
		if e.Err != nil {
			return "hooks of " + string(e.Point) + " ended: " + e.Err.Error()
		}
		return "hooks of " + string(e.Point) + " ended"
	case HooksReleased:
		return "hooks released"
	case HoldStarted:
		return "hold started"
	case LinkLost:
		return "link lost"
	case ServiceStop:
		return "service stop"
	case error:
		return e.Error()
	}
	return fmt.Sprintf("%T", what)
}
