package vcenter

import (
	"sync"
	"time"
)

// Call is one exchange that the front saw. It is listed from its start; End is zero while it is in flight.
type Call struct {
	// Method is the SOAP method, or the HTTP method for anything else (guest transfers).
	Method string
	// Object is the moref value that was called, or the HTTP path.
	Object string
	// VM is the name of the VM that the call is about; empty when there is none.
	VM string
	// Start is when the request had been read, End when its answer was about to be written. The injected RTT lies between.
	Start, End time.Time
	// Status is the HTTP status; 0 when the front cut the connection or the client left.
	Status int
	// OpID is the operation id of the SOAP header.
	OpID string
	// Fault is the fault type that the front planned; empty when it planned none.
	Fault string
	// Quiesce and Memory are what a snapshot call asked for.
	Quiesce, Memory bool
}

// recorder keeps the calls in the order of their starts.
type recorder struct {
	mu    sync.Mutex
	calls []*Call
}

func (r *recorder) begin(c Call) *Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Start = time.Now()
	r.calls = append(r.calls, &c)
	return &c
}

func (r *recorder) end(c *Call, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.End, c.Status = time.Now(), status
}

func (r *recorder) fault(c *Call, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Fault = name
}

func (r *recorder) list(take bool) []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Call, len(r.calls))
	for i, c := range r.calls {
		list[i] = *c
	}
	if take {
		r.calls = nil
	}
	return list
}

// Calls lists every call since the start or the last TakeCalls, in the order in which they began.
func (s *Server) Calls() []Call { return s.calls.list(false) }

// TakeCalls lists like Calls and forgets them. A call in flight is listed with a zero End and not again.
func (s *Server) TakeCalls() []Call { return s.calls.list(true) }
