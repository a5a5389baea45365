package vcenter

import (
	"bytes"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// gateRetry is how often a wait in flight is asked again to leave: the simulator loses a cancel that comes too early.
const gateRetry = time.Millisecond

// gates keep the filters of a property collector from changing while a wait reads them: the simulator guards neither
// (a race, and a panic when a filter goes away). A change interrupts the wait inside the simulator, happens, and the wait
// goes on; the client sees one long poll. A new filter is also pushed at once, as vCenter does and the simulator does not.
type gates struct {
	dispatch func(r *http.Request, body []byte) answer

	mu      sync.Mutex
	gates   map[string]*gate  // by session cookie and collector
	filters map[string]string // filter moref to collector moref

	created *regexp.Regexp // finds the moref in the simulator's answer to CreateFilter
}

// gate is the door of one collector in one session.
type gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting int // waits inside the simulator
	want    int // changes that ask to be let in
	busy    bool
	inLoop  int // waits that the client believes to be in flight
	cancels int // the client's own CancelWaitForUpdates not yet answered
}

func newGates(dispatch func(r *http.Request, body []byte) answer) *gates {
	return &gates{
		dispatch: dispatch, gates: map[string]*gate{}, filters: map[string]string{},
		created: regexp.MustCompile(`<returnval type="PropertyFilter"[^>]*>([^<]+)</returnval>`),
	}
}

func (g *gates) of(r *http.Request, collector string) *gate {
	key := sessionCookie(r) + " " + collector
	g.mu.Lock()
	defer g.mu.Unlock()
	door := g.gates[key]
	if door == nil {
		door = &gate{}
		door.changed = sync.NewCond(&door.mu)
		g.gates[key] = door
	}
	return door
}

// serve answers the methods of collectors and filters; false when the method is none of them.
func (g *gates) serve(r *http.Request, m *simulator.Method, body []byte, nudge func()) (answer, bool) {
	switch m.Name {
	case "WaitForUpdatesEx", "WaitForUpdates":
		return g.wait(r, m, body), true
	case "CancelWaitForUpdates":
		door := g.of(r, m.This.Value)
		door.mu.Lock()
		if door.inLoop > door.cancels {
			door.cancels++
		}
		door.mu.Unlock()
		return g.dispatch(r, body), true
	case "CreateFilter":
		a := g.change(r, m.This.Value, body)
		if found := g.created.FindSubmatch(a.body); found != nil {
			g.mu.Lock()
			g.filters[string(found[1])] = m.This.Value
			g.mu.Unlock()
			nudge()
		}
		return a, true
	case "DestroyPropertyCollector":
		return g.change(r, m.This.Value, body), true
	case "DestroyPropertyFilter":
		g.mu.Lock()
		collector := g.filters[m.This.Value]
		delete(g.filters, m.This.Value)
		g.mu.Unlock()
		return g.change(r, collector, body), true
	}
	return answer{}, false
}

// change performs a call while no wait of the collector is inside the simulator.
func (g *gates) change(r *http.Request, collector string, body []byte) answer {
	door := g.of(r, collector)
	door.mu.Lock()
	door.want++
	for door.waiting > 0 || door.busy {
		door.mu.Unlock()
		g.interrupt(r, collector)
		<-time.After(gateRetry)
		door.mu.Lock()
	}
	door.busy = true
	door.mu.Unlock()
	a := g.dispatch(r, body)
	door.mu.Lock()
	door.busy = false
	door.want--
	door.changed.Broadcast()
	door.mu.Unlock()
	return a
}

// interrupt asks a wait inside the simulator to leave.
func (g *gates) interrupt(r *http.Request, collector string) {
	g.dispatch(r, encodeCall(&methods.CancelWaitForUpdatesBody{Req: &types.CancelWaitForUpdates{
		This: types.ManagedObjectReference{Type: "PropertyCollector", Value: collector},
	}}))
}

// wait is the long poll: inside the simulator, out of it while filters change, in again.
func (g *gates) wait(r *http.Request, m *simulator.Method, body []byte) answer {
	door := g.of(r, m.This.Value)
	door.mu.Lock()
	door.inLoop++
	door.mu.Unlock()
	defer func() {
		door.mu.Lock()
		door.inLoop--
		door.cancels = min(door.cancels, door.inLoop)
		door.mu.Unlock()
	}()
	stop := g.interruptAtEnd(r, door, m.This.Value)
	defer stop()
	begun := time.Now()
	for {
		door.mu.Lock()
		for door.want > 0 {
			door.changed.Wait()
		}
		door.waiting++
		door.mu.Unlock()
		a := g.dispatch(r, body)
		door.mu.Lock()
		door.waiting--
		door.changed.Broadcast()
		canceled := a.status != http.StatusOK && bytes.Contains(a.body, []byte("RequestCanceledFault"))
		if canceled && door.cancels > 0 {
			door.cancels--
			canceled = false
		}
		door.mu.Unlock()
		if !canceled || r.Context().Err() != nil {
			return a
		}
		body = remaining(m, body, time.Since(begun))
	}
}

// interruptAtEnd makes the wait leave the simulator when the client has left or the server is closed. The caller must
// call the returned function, which waits for the helper.
func (g *gates) interruptAtEnd(r *http.Request, door *gate, collector string) func() {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-done:
			return
		case <-r.Context().Done():
		}
		for {
			g.interrupt(r, collector)
			select {
			case <-done:
				return
			case <-time.After(gateRetry):
			}
		}
	}()
	return func() { close(done); <-ended }
}

// remaining is the wait's request with its time limit shortened by what it has waited already; at least 1 s is left, so
// that an interrupted poll never becomes a plain read.
func remaining(m *simulator.Method, body []byte, waited time.Duration) []byte {
	req, ok := m.Body.(*types.WaitForUpdatesEx)
	if !ok || req.Options == nil || req.Options.MaxWaitSeconds == nil {
		return body
	}
	again, options := *req, *req.Options
	left := max(*req.Options.MaxWaitSeconds-int32(waited/time.Second), 1)
	options.MaxWaitSeconds = &left
	again.Options = &options
	return encodeCall(&methods.WaitForUpdatesExBody{Req: &again})
}
