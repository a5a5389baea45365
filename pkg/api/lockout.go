package api

import (
	"sync"
	"time"
)

// Limits of wrong tokens. A token cannot be guessed; this keeps a wrong client from filling the log and the store.
const (
	lockoutAfter = 20
	lockoutFor   = time.Minute
	// maxAddresses bounds the memory; when it is full, new addresses count as one.
	maxAddresses = 1024
)

// lockout counts wrong tokens by address. A valid token is never refused by it: others may share the address.
type lockout struct {
	mu    sync.Mutex
	wrong map[string]strikes
}

type strikes struct {
	since time.Time
	count int
}

// strike counts one wrong token; it says how many came from there within the time.
func (l *lockout) strike(address string, now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a, s := range l.wrong {
		if age := now.Sub(s.since); age >= lockoutFor || age < 0 {
			delete(l.wrong, a)
		}
	}
	if _, known := l.wrong[address]; !known && len(l.wrong) >= maxAddresses {
		address = ""
	}
	s := l.wrong[address]
	if s.count == 0 {
		s.since = now
	}
	s.count++
	l.wrong[address] = s
	return s.count
}
