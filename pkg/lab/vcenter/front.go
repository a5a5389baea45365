package vcenter

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// maxRequest bounds a SOAP request, in bytes.
const maxRequest = 64 << 20

func newHTTPServer(lifetime context.Context, h http.Handler, config *tls.Config) *http.Server {
	return &http.Server{
		Handler: h, TLSConfig: config, ReadHeaderTimeout: time.Minute,
		BaseContext:  func(net.Listener) context.Context { return lifetime },
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only, as vSphere clients speak it
		ErrorLog:     log.New(io.Discard, "", 0),                               // clients that leave are no news
	}
}

// ServeHTTP answers one exchange: record, half the RTT, fault plan, own answer or the simulator, half the RTT.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	s.work.Add(1)
	half := s.rtt / 2
	s.mu.Unlock()
	defer s.work.Done()
	r, over := s.inSession(r)
	defer over()
	if !strings.HasPrefix(r.URL.Path, "/sdk") || r.Method != http.MethodPost {
		s.servePlain(w, r, half)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	m, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		m = &simulator.Method{Name: "(unreadable)"} // the simulator answers with its own fault
	}
	vm := s.subject(m)
	call := s.calls.begin(s.describe(m, vm))
	done := 0
	defer func() { s.calls.end(call, done) }()
	s.called(call)
	if !s.pause(r.Context(), half) || !s.hush(r.Context()) { //nolint:contextcheck // the request's own, which ends with its session too
		s.abandon(r, w, &done)
		return
	}
	a := orDropped(r, s.answer(r, m, vm, call, body))                                //nolint:contextcheck // a task outlives the request that began it
	if (!s.pause(r.Context(), half) || !s.hush(r.Context())) && !droppedSession(r) { //nolint:contextcheck // as above
		panic(http.ErrAbortHandler)
	}
	done = a.status
	send(w, a)
}

// abandon answers a call whose session was dropped before it happened, and cuts the connection for any other reason.
func (s *Server) abandon(r *http.Request, w http.ResponseWriter, status *int) {
	if !droppedSession(r) {
		panic(http.ErrAbortHandler)
	}
	a := orDropped(r, answer{})
	*status = a.status
	send(w, a)
}

// describe is the call's record.
func (s *Server) describe(m *simulator.Method, vm *machine) Call {
	c := Call{Method: m.Name, Object: m.This.Value, OpID: m.Header.ID}
	if vm != nil {
		c.VM = vm.spec.Name
	}
	switch req := m.Body.(type) {
	case *types.CreateSnapshotEx_Task:
		c.Quiesce, c.Memory = req.QuiesceSpec != nil, req.Memory
	case *types.CreateSnapshot_Task:
		c.Quiesce, c.Memory = req.Quiesce, req.Memory
	}
	return c
}

// answer applies the fault plan, then answers by ourselves or by the simulator.
func (s *Server) answer(r *http.Request, m *simulator.Method, vm *machine, call *Call, body []byte) answer {
	cut, planned := s.applyRule(&s.rules, &s.calls, r, m.Name, vm, call)
	if planned != nil {
		return *planned
	}
	a, ours := s.authorize(r, m, vm)
	if !ours {
		a = s.common(r, m, vm, body, false)
	}
	if cut {
		panic(http.ErrAbortHandler)
	}
	return a
}

// common answers what vCenter and a host answer alike; direct says that it was asked of the host.
func (s *Server) common(r *http.Request, m *simulator.Method, vm *machine, body []byte, direct bool) answer {
	a, ours := s.currentTime(r, m)
	if !ours {
		a, ours = s.hostTime(r, m)
	}
	if !ours {
		a, ours = s.performance(r, m)
	}
	if !ours {
		a, ours = s.override(r, m, vm, direct)
	}
	if !ours {
		a, ours = s.gates.serve(r, m, body, s.nudge)
	}
	if !ours {
		a = s.dispatch(r, body)
	}
	return a
}

// applyRule does what the plan says about a call before it happens: an answer instead of it, or cut = the answer must be
// thrown away. A cut before the call is a panic that net/http turns to a closed connection.
func (s *Server) applyRule(rules *rules, calls *recorder, r *http.Request, method string, vm *machine, call *Call) (cut bool, planned *answer) {
	moref := ""
	if vm != nil {
		moref = vm.ref.Value
	}
	rule := rules.take(method, moref)
	if rule == nil {
		return false, nil
	}
	switch rule.Action {
	case noAction: // Plan refuses it
	case Fault:
		fault, err := newFault(rule.Fault)
		if err != nil {
			panic(err.Error()) // Plan has checked it
		}
		calls.fault(call, rule.Fault)
		a := faultAnswer(fault)
		return false, &a
	case Unavailable:
		return false, &answer{status: http.StatusServiceUnavailable, header: http.Header{}}
	case Cut:
		panic(http.ErrAbortHandler)
	case CutAnswer:
		return true, nil
	case Stall:
		if rule.Delay == 0 {
			select {
			case <-r.Context().Done():
			case <-s.lifetime().Done():
			}
			panic(http.ErrAbortHandler)
		}
		if !s.pause(r.Context(), rule.Delay) {
			panic(http.ErrAbortHandler)
		}
	}
	return false, nil
}

// servePlain passes everything that is not SOAP: guest transfers to the guests, the rest to the simulator.
func (s *Server) servePlain(w http.ResponseWriter, r *http.Request, half time.Duration) {
	call := s.calls.begin(Call{Method: r.Method, Object: r.URL.Path})
	status := 0
	defer func() { s.calls.end(call, status) }()
	if !s.pause(r.Context(), half) {
		panic(http.ErrAbortHandler)
	}
	s.called(call)
	cut, planned := s.applyRule(&s.rules, &s.calls, r, r.Method, nil, call)
	a := answer{header: http.Header{}}
	switch {
	case planned != nil:
		a = *planned
	case strings.HasPrefix(r.URL.Path, restPath):
		s.serveREST(&a, r)
	case s.guests != nil && strings.HasPrefix(r.URL.Path, TransferPath):
		s.guests.ServeHTTP(&a, r)
	case strings.HasPrefix(r.URL.Path, folderPath):
		s.serveFolder(&a, r)
	default:
		s.model.Service.ServeMux.ServeHTTP(&a, r)
	}
	if cut || !s.pause(r.Context(), half) || !s.hush(r.Context()) {
		panic(http.ErrAbortHandler)
	}
	a.WriteHeader(http.StatusOK)
	status = a.status
	send(w, a)
}

// dispatch hands a SOAP request to the simulator in the session of r.
func (s *Server) dispatch(r *http.Request, body []byte) answer {
	inner := r.Clone(r.Context())
	inner.Body = io.NopCloser(bytes.NewReader(body))
	inner.ContentLength = int64(len(body))
	a := answer{header: http.Header{}}
	s.model.Service.ServeMux.ServeHTTP(&a, inner)
	a.WriteHeader(http.StatusOK)
	return a
}

// authenticated asks the simulator whether r carries a living session; its refusal is returned otherwise.
func (s *Server) authenticated(r *http.Request) (answer, bool) {
	a := s.dispatch(r, encodeCall(&methods.CurrentTimeBody{Req: &types.CurrentTime{
		This: types.ManagedObjectReference{Type: "ServiceInstance", Value: "ServiceInstance"},
	}}))
	return a, a.status == http.StatusOK
}

// subject is the VM that a call is about; nil when there is none.
func (s *Server) subject(m *simulator.Method) *machine {
	ref := m.This
	if m.Body != nil {
		if field := reflect.ValueOf(m.Body).Elem().FieldByName("Vm"); field.IsValid() {
			if vm, ok := field.Interface().(types.ManagedObjectReference); ok {
				ref = vm
			}
		}
	}
	if snapshot, ok := s.registry().Get(ref).(*simulator.VirtualMachineSnapshot); ok {
		ref = snapshot.Vm
	}
	return s.machine(ref)
}

func send(w http.ResponseWriter, a answer) {
	for key, values := range a.header {
		w.Header()[key] = values
	}
	w.WriteHeader(a.status)
	if _, err := w.Write(a.body); err != nil {
		panic(http.ErrAbortHandler) // the client has left; net/http closes the connection
	}
}
