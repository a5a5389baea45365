package vcenter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// errSessionDropped is the cause with which a call in flight ends when DropSessions forgets its session.
var errSessionDropped = errors.New("the lab dropped the session")

// OnCall adds a hook that is told of each call when its request has been read, by its SOAP method (the HTTP method for
// guest transfers) and the name of its VM, which may be empty. Hooks run in the call's own goroutine: one that blocks
// holds the call up.
func (s *Server) OnCall(hook func(method, vm string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, hook)
}

func (s *Server) called(c *Call) {
	s.mu.Lock()
	watchers := append([]func(method, vm string){}, s.watchers...)
	s.mu.Unlock()
	for _, hook := range watchers {
		hook(c.Method, c.VM)
	}
}

// outage is what is wrong with the front itself. The server's lock guards it.
type outage struct {
	// silent is closed when the front answers again; nil while it does.
	silent chan struct{}
	// dropped is closed, and replaced, by DropSessions.
	dropped chan struct{}
	// known are the session cookies seen so far, forgotten those that no longer count.
	known, forgotten map[string]bool
}

func newOutage() outage {
	return outage{dropped: make(chan struct{}), known: map[string]bool{}, forgotten: map[string]bool{}}
}

// listen serves the front on l with a certificate. The caller holds the lock, or nobody else knows the server yet. It
// serves for as long as the server lives, not only for the start.
func (s *Server) listen(l net.Listener, cert *certificate) {
	front := newHTTPServer(s.lifetime(), s, cert.config)
	s.http = front
	s.work.Go(func() {
		// Serve ends with http.ErrServerClosed, or with the listener's own error, which the clients then see.
		if err := front.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.cancel()
		}
	})
}

// Stop closes the front's listener and all its connections: vCenter has gone. Its tasks go on, as those of hosts do. It
// is idempotent.
func (s *Server) Stop() error {
	s.mu.Lock()
	front := s.http
	s.http = nil
	s.mu.Unlock()
	if front == nil {
		return nil
	}
	if err := front.Close(); err != nil {
		return fmt.Errorf("stop lab vcenter: %w", err)
	}
	return nil
}

// Restart stops the front if it runs, and listens again at the same address. Sessions are forgotten, as vpxd forgets
// them. With newCertificate the front has another certificate and thumbprint from now on.
func (s *Server) Restart(ctx context.Context, withNewCertificate bool) error {
	if err := s.Stop(); err != nil {
		return err
	}
	s.DropSessions()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("listen again for lab vcenter: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.http != nil {
		return errors.Join(errors.New("restart lab vcenter: it was closed or started meanwhile"), l.Close())
	}
	if withNewCertificate {
		made, err := newCertificate(l.Addr())
		if err != nil {
			return errors.Join(err, l.Close())
		}
		s.certificate = made
		s.tellThumbprint(made.sha1)
	}
	s.listen(l, s.certificate) //nolint:contextcheck // it serves for as long as the server lives
	return nil
}

// tellThumbprint makes the hosts tell the front's certificate: clients pin it for guest transfers. Hosts that answer for
// themselves keep their own.
func (s *Server) tellThumbprint(sha1 string) {
	if len(s.hosts) > 0 {
		return
	}
	ctx := s.context()
	for _, host := range s.registry().All("HostSystem") {
		ctx.WithLock(host, func() { host.(*simulator.HostSystem).Summary.Config.SslThumbprint = sha1 })
	}
}

// Silence makes the front keep every answer back, also of calls in flight, until Speak: connections stay open and new
// ones are taken, but nothing comes. It is idempotent.
func (s *Server) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outage.silent == nil {
		s.outage.silent = make(chan struct{})
	}
}

// Speak ends Silence; what was kept back is answered now.
func (s *Server) Speak() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outage.silent != nil {
		close(s.outage.silent)
		s.outage.silent = nil
	}
}

// hush waits while the front is silent; false when ctx or the server ended first.
func (s *Server) hush(ctx context.Context) bool {
	for {
		s.mu.Lock()
		silent := s.outage.silent
		s.mu.Unlock()
		if silent == nil {
			return true
		}
		select {
		case <-silent:
		case <-ctx.Done():
			return false
		case <-s.lifetime().Done():
			return false
		}
	}
}

// DropSessions forgets every session: calls in flight end in NotAuthenticated, later ones need a login.
func (s *Server) DropSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for cookie := range s.outage.known {
		s.outage.forgotten[cookie] = true
	}
	clear(s.tags.sessions)
	close(s.outage.dropped)
	s.outage.dropped = make(chan struct{})
}

// inSession takes the cookie of a forgotten session from r, and gives r a context that ends when its session is dropped.
// The caller calls the returned function when the call is over.
func (s *Server) inSession(r *http.Request) (*http.Request, func()) {
	cookie := sessionCookie(r)
	if cookie == "" {
		return r, func() {}
	}
	s.mu.Lock()
	s.outage.known[cookie] = true
	forgotten, dropped := s.outage.forgotten[cookie], s.outage.dropped
	s.mu.Unlock()
	if forgotten {
		r = r.Clone(r.Context())
		r.Header.Del("Cookie")
		return r, func() {}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	over := make(chan struct{})
	s.work.Go(func() {
		select {
		case <-dropped:
			cancel(errSessionDropped)
		case <-over:
		}
	})
	return r.WithContext(ctx), func() { close(over); cancel(nil) }
}

// orDropped is a, or the fault that a call meets whose session was dropped while it was in flight.
func orDropped(r *http.Request, a answer) answer {
	if droppedSession(r) {
		return faultAnswer(&types.NotAuthenticated{})
	}
	return a
}

func droppedSession(r *http.Request) bool {
	return errors.Is(context.Cause(r.Context()), errSessionDropped)
}
