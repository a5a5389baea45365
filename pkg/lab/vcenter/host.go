package vcenter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// Host is one ESXi host that answers for itself beside vCenter: it shows the VMs that run on it under morefs of its own,
// has its own account, certificate, sessions and round trip, and makes its snapshots by VM.HostCreate. What is made here is
// seen in vCenter at once, which takes a while in truth.
//
// It is credible for a session past vCenter, for morefs that differ, and for a VM that leaves. It never emulates lockdown
// mode, licences, or what only hosts have.
type Host struct {
	s           *Server
	name        string
	ref         types.ManagedObjectReference
	address     string
	listener    net.Listener
	certificate *certificate
	calls       recorder
	rules       rules

	mu   sync.Mutex
	http *http.Server // nil while stopped
	rtt  time.Duration
}

// newHost listens for a host of the model; nothing is answered before serve.
func (s *Server) newHost(ctx context.Context, of *simulator.HostSystem, rtt time.Duration) (*Host, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for lab host %s: %w", of.Name, err)
	}
	cert, err := newCertificate(listener.Addr())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &Host{
		s: s, name: of.Name, ref: of.Self, address: listener.Addr().String(), listener: listener, certificate: cert, rtt: rtt,
	}, nil
}

func (h *Host) serve() {
	front := newHTTPServer(h.s.lifetime(), h, h.certificate.config)
	h.http = front
	h.s.work.Go(func() {
		if err := front.ServeTLS(h.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			h.s.cancel()
		}
	})
}

// Stop closes the host's listener and its connections; its tasks go on. It is idempotent.
func (h *Host) Stop() error {
	h.mu.Lock()
	front := h.http
	h.http = nil
	h.mu.Unlock()
	if front == nil {
		if err := h.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
	if err := front.Close(); err != nil {
		return fmt.Errorf("stop lab host %s: %w", h.name, err)
	}
	return nil
}

// Host is the host of this name, such as DC0_C0_H0; nil when it does not answer for itself.
func (s *Server) Host(name string) *Host {
	for _, h := range s.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// URL is the SDK's address, without a user.
func (h *Host) URL() *url.URL { return &url.URL{Scheme: "https", Host: h.address, Path: "/sdk"} }

// Thumbprint is the SHA-256 of the host's certificate as upper-case hex pairs with colons.
func (h *Host) Thumbprint() string { return h.certificate.sha256 }

// SetRTT changes the round trip time of exchanges that begin from now on.
func (h *Host) SetRTT(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rtt = d
}

// Plan adds a rule for the host's own calls.
func (h *Host) Plan(r Rule) error { return h.s.addRule(&h.rules, r) }

// Calls and TakeCalls are those of Server, of this host alone.
func (h *Host) Calls() []Call { return h.calls.list(false) }

// TakeCalls lists the calls and forgets them.
func (h *Host) TakeCalls() []Call { return h.calls.list(true) }

// Migrate moves a VM to another host of its cluster at once, as the end of a vMotion does.
func (s *Server) Migrate(vm, host string) error {
	m, err := s.mustFind(vm)
	if err != nil {
		return err
	}
	var to *simulator.HostSystem
	for _, o := range s.registry().All("HostSystem") {
		if h, ok := o.(*simulator.HostSystem); ok && h.Name == host {
			to = h
		}
	}
	ctx := s.context()
	object := s.virtualMachine(m)
	switch {
	case to == nil:
		return fmt.Errorf("move %q: no host %q", vm, host)
	case *object.Runtime.Host == to.Self:
		return fmt.Errorf("move %q: it runs on %q already", vm, host)
	}
	from := s.registry().Get(*object.Runtime.Host).(*simulator.HostSystem)
	if *from.Parent != *to.Parent {
		return fmt.Errorf("move %q: host %q is in another cluster", vm, host)
	}
	ctx.WithLock(from, func() { simulator.RemoveReference(&from.Vm, m.ref) })
	ctx.WithLock(to, func() { to.Vm = append(to.Vm, m.ref) })
	ctx.Map.AtomicUpdate(ctx, object, []types.PropertyChange{
		{Name: "runtime.host", Val: to.Self}, {Name: "summary.runtime.host", Val: to.Self},
	})
	return nil
}

// HostOf is the name of the host that runs the VM; empty when there is no such VM.
func (s *Server) HostOf(vm string) string {
	m := s.find(vm)
	if m == nil {
		return ""
	}
	return s.registry().Get(s.runsOn(m)).(*simulator.HostSystem).Name
}

func (s *Server) runsOn(m *machine) (host types.ManagedObjectReference) {
	s.context().WithLock(m.ref, func() { host = *s.virtualMachine(m).Runtime.Host })
	return host
}

// The morefs that a host has of its own: VMs are numbers there.
var (
	outward = []*regexp.Regexp{ //nolint:gochecknoglobals // a table
		regexp.MustCompile(`(type="VirtualMachine"[^>]*>)vm-([0-9]+<)`),
		regexp.MustCompile(`(type="VirtualMachineSnapshot"[^>]*>)(snapshot-)`),
		regexp.MustCompile(`(type="Task"[^>]*>)(task-)`),
	}
	outwardTo = []string{"${1}${2}", "${1}ha-${2}", "${1}ha-${2}"} //nolint:gochecknoglobals // a table
	inward    = []*regexp.Regexp{                                  //nolint:gochecknoglobals // a table
		regexp.MustCompile(`(type="VirtualMachine"[^>]*>)([0-9]+<)`),
		regexp.MustCompile(`(type="(?:VirtualMachineSnapshot|Task)"[^>]*>)ha-`),
	}
	inwardTo = []string{"${1}vm-${2}", "${1}"}                               //nolint:gochecknoglobals // a table
	aVM      = regexp.MustCompile(`type="VirtualMachine"[^>]*>(vm-[0-9]+)<`) //nolint:gochecknoglobals // a table
)

func rewrite(body []byte, what []*regexp.Regexp, to []string) []byte {
	for i, w := range what {
		body = w.ReplaceAll(body, []byte(to[i]))
	}
	return body
}

// ServeHTTP answers one exchange as the front of vCenter does.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.s
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	h.mu.Lock()
	half := h.rtt / 2
	h.mu.Unlock()
	if !strings.HasPrefix(r.URL.Path, "/sdk") || r.Method != http.MethodPost {
		s.servePlain(w, r, half)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	foreign := aVM.Match(body) // morefs of vCenter mean nothing here
	body = rewrite(body, inward, inwardTo)
	m, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		m = &simulator.Method{Name: "(unreadable)"}
	}
	vm := s.subject(m)
	call := h.calls.begin(s.describe(m, vm))
	done := 0
	defer func() { h.calls.end(call, done) }()
	if !s.pause(r.Context(), half) {
		panic(http.ErrAbortHandler)
	}
	a := h.answer(r, m, vm, call, body, foreign) //nolint:contextcheck // a task outlives the request that began it
	a.body = rewrite(a.body, outward, outwardTo)
	if !s.pause(r.Context(), half) {
		panic(http.ErrAbortHandler)
	}
	done = a.status
	send(w, a)
}

func (h *Host) answer(r *http.Request, m *simulator.Method, vm *machine, call *Call, body []byte, foreign bool) answer {
	s := h.s
	cut, planned := s.applyRule(&h.rules, &h.calls, r, m.Name, vm, call)
	if planned != nil {
		return *planned
	}
	a, ours := h.itself(r, m, body, foreign)
	if !ours {
		a = s.common(r, m, vm, body, true)
	}
	if cut {
		panic(http.ErrAbortHandler)
	}
	return a
}

// itself answers what a host answers in another way than vCenter; false when it is none of that.
func (h *Host) itself(r *http.Request, m *simulator.Method, body []byte, foreign bool) (answer, bool) {
	s := h.s
	switch req := m.Body.(type) {
	case *types.RetrieveServiceContent:
		return h.content(), true
	case *types.Login:
		if req.UserName != s.hostUser || req.Password != s.hostPassword {
			return faultAnswer(&types.InvalidLogin{}), true
		}
		as := *req
		as.UserName, as.Password = s.user, s.password
		return s.dispatch(r, encodeCall(&methods.LoginBody{Req: &as})), true
	case *types.SessionIsActive:
		return faultAnswer(&types.NotImplemented{}), true
	case *types.CreateContainerView:
		if req.Container == s.model.ServiceContent.RootFolder {
			of := *req
			of.Container = h.ref
			return s.dispatch(r, encodeCall(&methods.CreateContainerViewBody{Req: &of})), true
		}
	case *types.FindByUuid, *types.FindByInventoryPath:
		a := s.dispatch(r, body)
		if gone := h.elsewhere(a.body); gone != "" {
			return xmlAnswer(http.StatusOK, "<"+m.Name+`Response xmlns="urn:vim25"></`+m.Name+"Response>"), true
		}
		return a, true
	}
	gone := h.elsewhere(body)
	if vm := s.subject(m); gone == "" && vm != nil && s.runsOn(vm) != h.ref {
		gone = vm.ref.Value
	}
	if gone == "" && !foreign {
		return answer{}, false
	}
	if refusal, ok := s.authenticated(r); !ok {
		return refusal, true
	}
	return faultAnswer(&types.ManagedObjectNotFound{Obj: types.ManagedObjectReference{
		Type: "VirtualMachine", Value: strings.TrimPrefix(gone, "vm-"),
	}}), true
}

// elsewhere is the moref of a VM in body that does not run on this host; empty when there is none.
func (h *Host) elsewhere(body []byte) string {
	for _, found := range aVM.FindAllSubmatch(body, -1) {
		ref := types.ManagedObjectReference{Type: "VirtualMachine", Value: string(bytes.Clone(found[1]))}
		if m := h.s.machine(ref); m != nil && h.s.runsOn(m) != h.ref {
			return ref.Value
		}
	}
	return ""
}

// content is what the host says that it is.
func (h *Host) content() answer {
	content := h.s.model.ServiceContent
	about := &content.About
	about.Name, about.ApiType, about.ProductLineId, about.InstanceUuid = "VMware ESXi", "HostAgent", "embeddedEsx", ""
	about.FullName = fmt.Sprintf("%s %s build-%s", about.Name, about.Version, about.Build)
	content.CustomFieldsManager = nil
	return resultAnswer("RetrieveServiceContent", &types.RetrieveServiceContentResponse{Returnval: content})
}
