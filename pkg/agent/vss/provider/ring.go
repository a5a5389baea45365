package provider

import (
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// ringLines is how much of the past the ring keeps; a set leaves about a dozen lines.
const ringLines = 256

// Line is one thing that VSS asked, and what it was answered.
type Line struct {
	// At is the time since the provider was made.
	At     time.Duration
	What   string
	Result vsscode.HRESULT
	Thread int
}

// ring keeps the last lines in memory that it has from the start: while a guest is held nothing is written anywhere.
type ring struct {
	mu    sync.Mutex
	next  int
	count int
	kept  [ringLines]Line
}

func (r *ring) note(at time.Duration, what string, hr vsscode.HRESULT) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[r.next] = Line{at, what, hr, threadID()}
	r.next = (r.next + 1) % ringLines
	r.count = min(r.count+1, ringLines)
}

func (r *ring) lines() []Line {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Line, 0, r.count)
	for i := range r.count {
		out = append(out, r.kept[(r.next-r.count+i+ringLines)%ringLines])
	}
	return out
}
