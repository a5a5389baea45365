package inventory

import (
	"testing"
	"time"
)

// TestTaskTime has vCenter's clock set while its task runs.
func TestTaskTime(t *testing.T) {
	ours, theirs := time.Now(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		queued, completed time.Time
		unseen            bool
		want              time.Duration
	}{
		"as it was":            {queued: theirs, completed: theirs.Add(900 * time.Millisecond), want: 900 * time.Millisecond},
		"set forward":          {queued: theirs, completed: theirs.Add(time.Hour), want: time.Second},
		"set back":             {queued: theirs, completed: theirs.Add(-time.Hour), want: time.Second},
		"set back a little":    {queued: theirs, completed: theirs.Add(-time.Nanosecond), want: time.Second},
		"not told":             {queued: theirs},
		"without our own time": {queued: theirs, completed: theirs.Add(time.Hour), unseen: true},
	} {
		timing := Timing{Sent: ours, PushSeen: ours.Add(time.Second), Queued: c.queued, Completed: c.completed}
		if c.unseen {
			timing.PushSeen = time.Time{}
		}
		if got := timing.Task(); got != c.want {
			t.Errorf("%s: Task() = %v, want %v", name, got, c.want)
		}
	}
}
