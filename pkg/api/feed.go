package api

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of the event stream.
const (
	ringSize   = 1000
	clientSize = 64
	maxClients = 64
)

// Event is one thing that happened, as it is told to those who follow.
type Event struct {
	// ID is given by the Feed.
	ID    string    `json:"id"`
	At    time.Time `json:"at"`
	Topic string    `json:"topic" enum:"jobs,runs,windows,vms,snapshots,system"`
	// Kind is what happened, such as run.finished.
	Kind string         `json:"kind"`
	Job  string         `json:"job,omitempty"`
	Run  string         `json:"run,omitempty"`
	VM   string         `json:"vm,omitempty"`
	Data map[string]any `json:"data,omitempty"`
}

// Feed hands events to those who follow. Publish never waits for anybody. It is safe for concurrent use.
type Feed struct {
	// boot tells the events of this process from those of a former one, which nobody has any more.
	boot string

	mu      sync.Mutex
	last    uint64
	ring    []Event // the event number n is at n % ringSize
	clients map[*client]bool
	closed  bool
}

// client is one who follows. Its channel is closed when it is dropped: it was too slow, or the Feed ends.
type client struct {
	topics map[string]bool // empty: all
	events chan Event
	slow   bool // read after events was closed
}

// NewFeed makes a feed.
func NewFeed() *Feed {
	return &Feed{boot: strconv.FormatInt(time.Now().UnixMilli(), 36), ring: make([]Event, 0, ringSize), clients: map[*client]bool{}}
}

// Publish tells an event to all who follow its topic. Whoever has 64 waiting is dropped and told so.
func (f *Feed) Publish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.last++
	e.ID = fmt.Sprintf("%s-%d", f.boot, f.last)
	if e.At.IsZero() {
		e.At = time.Now().UTC()
	}
	if len(f.ring) < ringSize {
		f.ring = append(f.ring, e)
	} else {
		f.ring[(f.last-1)%ringSize] = e
	}
	for c := range f.clients {
		if !c.wants(e) {
			continue
		}
		select {
		case c.events <- e:
		default:
			c.slow = true
			f.drop(c)
		}
	}
}

// Close ends every stream. Later events are told to nobody.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for c := range f.clients {
		f.drop(c)
	}
}

func (f *Feed) drop(c *client) {
	delete(f.clients, c)
	close(c.events)
}

func (c *client) wants(e Event) bool { return len(c.topics) == 0 || c.topics[e.Topic] }

// follow adds a client. It gives what happened after the event with the id last; resync is true when that is not known any
// more, so that the client has to read everything anew. A nil client means that there are too many.
func (f *Feed) follow(topics []string, last string) (c *client, missed []Event, resync bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.clients) >= maxClients {
		return nil, nil, false
	}
	c = &client{topics: map[string]bool{}, events: make(chan Event, clientSize)}
	for _, t := range topics {
		c.topics[t] = true
	}
	f.clients[c] = true
	if last == "" {
		return c, nil, false
	}
	boot, number, _ := strings.Cut(last, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || boot != f.boot || n > f.last || f.last-n > uint64(len(f.ring)) {
		return c, nil, true
	}
	for n++; n <= f.last; n++ {
		if e := f.ring[(n-1)%ringSize]; c.wants(e) {
			missed = append(missed, e)
		}
	}
	return c, missed, false
}

// leave takes a client away; one that was dropped is gone already.
func (f *Feed) leave(c *client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.clients[c] {
		f.drop(c)
	}
}
