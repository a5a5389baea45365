package admission

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Room bounds how much goes on at once on each thing that is shared: a vCenter, a host, a datastore. It counts who is there,
// in the order in which they came. It is safe for concurrent use.
type Room struct {
	mu     sync.Mutex
	places map[string]*semaphore.Weighted
}

// NewRoom makes an empty room.
func NewRoom() *Room { return &Room{places: map[string]*semaphore.Weighted{}} }

// Place is one thing that is shared, and how many may use it at once; 1 is the least. The first who names a place says how
// many that are.
type Place struct {
	Name string
	Most int
}

// Enter waits for room in all places, until ctx ends, and takes all or none. The caller leaves once.
func (r *Room) Enter(ctx context.Context, places []Place) (leave func(), err error) {
	sorted := slices.Clone(places)
	slices.SortFunc(sorted, func(a, b Place) int { // always the same order, so that two never wait for each other
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	var entered []*semaphore.Weighted
	leave = func() {
		for _, s := range entered {
			s.Release(1)
		}
	}
	for _, p := range sorted {
		s := r.place(p)
		if err := s.Acquire(ctx, 1); err != nil {
			leave()
			return nil, fmt.Errorf("no room: %d are at work on %s: %w", p.Most, p.Name, err)
		}
		entered = append(entered, s)
	}
	return leave, nil
}

func (r *Room) place(p Place) *semaphore.Weighted {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.places[p.Name]
	if !ok {
		s = semaphore.NewWeighted(int64(max(p.Most, 1)))
		r.places[p.Name] = s
	}
	return s
}
