package eventlog

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Events of parts that watch a freeze from outside the agent.
const (
	volsnapHold  = 8    // volsnap: flush-and-hold writes timed out waiting for the release (Microsoft TechNet dd364896)
	volsnapFlush = 9    // volsnap: flush-and-hold writes timed out waiting for a file system's flush (same)
	sqlFrozen    = 3197 // SQL Server: I/O is frozen on a database
	sqlResumed   = 3198 // SQL Server: I/O was resumed on a database
)

// Witnesses are what others saw of a freeze.
type Witnesses struct {
	// HoldRanOut and FlushTooSlow count the events of volsnap: either proves that the volumes were not held.
	HoldRanOut, FlushTooSlow int
	SQL                      []SQLHold
}

// SQLHold is how long SQL Server kept one database still, by its own clock: the time from a 3197 to the 3198 that follows.
type SQLHold struct {
	Instance, Database string
	Held               time.Duration
	// Resumed is false when no 3198 followed; Held is 0 then.
	Resumed bool
}

// Testimony gathers the witnesses of events that are in the order of their log.
func Testimony(events []Event) Witnesses {
	var w Witnesses
	type subject struct{ instance, database string }
	frozen, rows := map[subject]time.Time{}, map[subject]int{}
	for _, e := range events {
		volsnap := strings.EqualFold(e.Provider, "volsnap")
		switch {
		case volsnap && e.ID == volsnapHold:
			w.HoldRanOut++
		case volsnap && e.ID == volsnapFlush:
			w.FlushTooSlow++
		case (e.ID == sqlFrozen || e.ID == sqlResumed) && len(e.Data) > 0 && strings.HasPrefix(strings.ToUpper(e.Provider), "MSSQL"):
			k := subject{e.Provider, e.Data[0]}
			at, still := frozen[k]
			switch {
			case e.ID == sqlFrozen && !still:
				frozen[k], rows[k] = e.At, len(w.SQL)
				w.SQL = append(w.SQL, SQLHold{Instance: k.instance, Database: k.database})
			case e.ID == sqlResumed && still:
				w.SQL[rows[k]].Held, w.SQL[rows[k]].Resumed = e.At.Sub(at), true
				delete(frozen, k)
			}
		}
	}
	return w
}

// Since are the events that are not older than age when it is now by the guest's wall clock: those of one freeze, without
// what was logged before it.
func Since(events []Event, now time.Time, age time.Duration) []Event {
	return slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return now.Sub(e.At) > age })
}

// Witness gives what others saw in the words of the protocol: volsnap_8 and volsnap_9 with the number of events, and
// sql_held_us/<instance>/<database> with the microseconds, or with "frozen" when the database was not resumed.
func Witness(events []Event) map[string]string {
	w, words := Testimony(events), map[string]string{}
	if w.HoldRanOut > 0 {
		words[protocol.WitnessHoldRanOut] = strconv.Itoa(w.HoldRanOut)
	}
	if w.FlushTooSlow > 0 {
		words[protocol.WitnessFlushRanOut] = strconv.Itoa(w.FlushTooSlow)
	}
	for _, s := range w.SQL {
		value := protocol.WitnessFrozen
		if s.Resumed {
			value = strconv.FormatInt(s.Held.Microseconds(), 10)
		}
		words[protocol.WitnessSQLHeld+s.Instance+"/"+s.Database] = value
	}
	return words
}
