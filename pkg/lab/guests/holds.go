package guests

import (
	"sync"
	"time"
)

// Hold is one time in which a guest could not write, as the lab itself saw it.
type Hold struct {
	// From is the last acknowledgement before the hold, To the first after it: the hold lies within. To is zero while
	// it lasts.
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
	// Seen counts the samples in which the writer was found blocked by a frozen file system, by the kernel's word; for a
	// scripted guest it is 1.
	Seen int `json:"seen"`
	// FirstSeen is the first of those samples, which bounds the hold from below.
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
}

// Length is the time from From to To, up to now while the hold lasts.
func (h Hold) Length(now time.Time) time.Duration {
	if h.To.IsZero() {
		return now.Sub(h.From)
	}
	return h.To.Sub(h.From)
}

// Witness watches one guest's writer from outside: by its acknowledgements and by samples of what blocks it. It knows
// nothing of agents. It is safe for concurrent use.
type Witness struct {
	mu      sync.Mutex
	acks    []time.Time // acks[n-1] is when record n was acknowledged
	holds   []Hold
	longest time.Duration
	stopped time.Time
}

// Acknowledged counts the records acknowledged so far.
func (w *Witness) Acknowledged() uint64 { return w.AcknowledgedBefore(time.Now().Add(time.Hour)) }

// AcknowledgedBefore counts the records acknowledged before t on the lab's clock.
func (w *Witness) AcknowledgedBefore(t time.Time) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.acks)
	for n > 0 && !w.acks[n-1].Before(t) {
		n--
	}
	return uint64(n)
}

// Last is when the last acknowledgement came, zero before the first.
func (w *Witness) Last() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last()
}

// Holds lists the holds, the oldest first.
func (w *Witness) Holds() []Hold {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Hold{}, w.holds...)
}

// LongestStall is the longest time without an acknowledgement since the first one, whatever the reason: no hold can
// have been longer. A stall in progress counts.
func (w *Witness) LongestStall() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.acks) == 0 {
		return 0
	}
	end := time.Now()
	if !w.stopped.IsZero() {
		end = w.stopped
	}
	return max(w.longest, end.Sub(w.last()))
}

// Between is the longest hold that overlaps the time from from to to, zero when there was none.
func (w *Witness) Between(from, to time.Time) (Hold, bool) {
	return longestBetween(w.Holds(), from, to)
}

func longestBetween(holds []Hold, from, to time.Time) (Hold, bool) {
	var found Hold
	for _, h := range holds {
		if h.From.After(to) || (!h.To.IsZero() && h.To.Before(from)) {
			continue
		}
		if h.Length(to) >= found.Length(to) || found.From.IsZero() {
			found = h
		}
	}
	return found, !found.From.IsZero()
}

func (w *Witness) last() time.Time {
	if len(w.acks) == 0 {
		return time.Time{}
	}
	return w.acks[len(w.acks)-1]
}

// acknowledge notes that record n was acknowledged at t; false when n is not the next number.
func (w *Witness) acknowledge(n uint64, t time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n != uint64(len(w.acks))+1 {
		return false
	}
	if len(w.acks) > 0 {
		w.longest = max(w.longest, t.Sub(w.last()))
	}
	w.acks = append(w.acks, t)
	if k := len(w.holds); k > 0 && w.holds[k-1].To.IsZero() {
		w.holds[k-1].To = t
	}
	return true
}

// held notes that the writer was found held at t.
func (w *Witness) held(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.acks) == 0 || !t.After(w.last()) {
		return // the acknowledgement came meanwhile
	}
	k := len(w.holds)
	if k == 0 || !w.holds[k-1].To.IsZero() {
		w.holds = append(w.holds, Hold{From: w.last(), FirstSeen: t})
		k++
	}
	w.holds[k-1].Seen++
	w.holds[k-1].LastSeen = t
}

// stop ends the watch: the time after it is no stall.
func (w *Witness) stop(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped.IsZero() {
		w.stopped = t
	}
}
