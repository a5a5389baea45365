package agent

import (
	"sync"
	"time"
)

// gapTick is how often the agent looks whether it ran.
const gapTick = 10 * time.Millisecond

// gap measures the longest time that this process did not run while it held: a stun of the VM, or starvation.
type gap struct {
	mu     sync.Mutex
	stop   chan struct{}
	widest time.Duration
}

// begin starts the measurement in a goroutine of group.
func (g *gap) begin(group *sync.WaitGroup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.widest, g.stop = 0, make(chan struct{})
	stop := g.stop
	group.Go(func() {
		ticker := time.NewTicker(gapTick)
		defer ticker.Stop()
		last := time.Now()
		for {
			select {
			case <-stop:
				return
			case now := <-ticker.C:
				g.see(now.Sub(last))
				last = now
			}
		}
	})
}

func (g *gap) see(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.widest = max(g.widest, d)
}

// end stops the measurement, if one runs, and gives its result.
func (g *gap) end() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop != nil {
		close(g.stop)
		g.stop = nil
	}
	return g.widest
}
