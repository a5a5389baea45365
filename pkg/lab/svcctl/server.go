// Package svcctl answers as the service control manager of a Windows guest behind the svcctl pipe of a real smbd.
//
// Credible for MS-SCMR's bytes through SMB, for rights of handles and for the numbers with which calls are refused; an
// independent client agrees. What services really do is the business of Services. Never emulates: a deleted service that open
// handles keep, the manager's own policy, such as protected services and triggers, and the hardening of RPC in Windows Server 2025.
package svcctl

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Call is a call of MS-SCMR by its name there.
type Call string

// Calls that can be planned to go wrong.
const (
	Bind                Call = "bind"
	OpenSCManager       Call = "OpenSCManagerW"
	OpenService         Call = "OpenServiceW"
	CreateService       Call = "CreateServiceW"
	StartService        Call = "StartServiceW"
	ControlService      Call = "ControlService"
	DeleteService       Call = "DeleteService"
	CloseHandle         Call = "CloseServiceHandle"
	QueryStatus         Call = "QueryServiceStatus"
	QueryStatusEx       Call = "QueryServiceStatusEx"
	QueryConfig         Call = "QueryServiceConfigW"
	EnumServicesStatus  Call = "EnumServicesStatusW"
	unknownNumberOfCall Call = "unknown"
)

// Effect is what goes wrong with a call.
type Effect int

const (
	// Refuse answers with Fault.Win32, and the call has no effect.
	Refuse Effect = iota
	// RPCFault answers with the fault of RPC that says that there is no such call, as a server that is no Windows does.
	RPCFault
	// Hang makes the call, and never answers on this pipe again.
	Hang
	// Cut makes the call and closes the pipe within the answer.
	Cut
	// Split makes the call and answers byte by byte, as messages of their own.
	Split
	// Late makes the call and answers after Fault.Delay: smbd tells its client with an interim reply that it has to wait.
	Late
)

// Fault is a plan for the next calls of one name. A bind cannot be refused.
type Fault struct {
	Call   Call
	Effect Effect
	Win32  Win32
	// Skip lets as many calls pass before; Count is how many go wrong then, 0 all.
	Skip, Count int
	// Delay is of Late alone.
	Delay time.Duration
}

// Record is one call that was made.
type Record struct {
	Call Call
	// Service is the name of the service it was about, empty for the manager itself.
	Service string
	// Account is who made it, as smbd says, empty when it does not say so.
	Account string
	// Win32 is the answer, 0 for success.
	Win32 Win32
}

// Options say what a server is like.
type Options struct {
	Services Services
	// Words gives what an agent of the lab is to have on its command line, such as --lab-env KEY=VALUE: its seams, which it
	// would have from its environment if a service had one. The double, which stands for Windows here, puts them behind the
	// program in the command line of each service that is made with one of our names, because the product that makes it does
	// not know of them; and it takes them out of a command line that it is asked for.
	Words func() []string
	// Ordinary are accounts that are no administrators: the manager is closed to them, as to a filtered token.
	Ordinary []string
}

// Server is one service control manager. It is safe for concurrent use.
type Server struct {
	options  Options
	path     string
	listener *net.UnixListener
	serving  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	conns   map[net.Conn]bool
	gone    chan struct{} // closed by Close
	plan    []Fault
	records []Record
}

// handoverLimit bounds smbd's handing over of a pipe, and the writing of an answer.
const handoverLimit = 10 * time.Second

// Start serves the svcctl pipe of an smbd whose folder of pipes is given (smb.Server.Pipes). The smbd has none of Samba's own
// RPC servers (smb.Options.OwnPipes), which would take the pipe over. The caller closes it.
func Start(o Options, pipes string) (*Server, error) {
	if o.Services == nil {
		return nil, errors.New("a service control manager needs services")
	}
	path := filepath.Join(pipes, "svcctl")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("serve the svcctl pipe: %w", err)
	}
	s := &Server{options: o, path: path, listener: l, conns: map[net.Conn]bool{}, gone: make(chan struct{})}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.serving.Go(s.accept)
	return s, nil
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // it was closed
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			conn.Close() //nolint:errcheck // nobody has used it
			return
		}
		s.conns[conn] = true
		s.mu.Unlock()
		s.serving.Go(func() {
			defer s.forget(conn)
			serve(s, conn)
		})
	}
}

func (s *Server) forget(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	conn.Close() //nolint:errcheck // the peer has what it was sent
}

// Plan adds a fault; of several for the same call the oldest is used up first.
func (s *Server) Plan(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = append(s.plan, f)
}

// Heal forgets all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = nil
}

// fault takes the next fault of a call from the plan, nil when it goes well.
func (s *Server) fault(call Call) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.plan, func(f Fault) bool { return f.Call == call })
	if i < 0 {
		return nil
	}
	f := &s.plan[i]
	if f.Skip > 0 {
		f.Skip--
		return nil
	}
	out := *f
	if f.Count == 1 {
		s.plan = slices.Delete(s.plan, i, i+1)
	} else if f.Count > 1 {
		f.Count--
	}
	return &out
}

func (s *Server) note(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, r)
}

// Take gives the calls that were made since it was asked last, in their order.
func (s *Server) Take() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.records
	s.records = nil
	return out
}

// words are what is spliced into the command line of a new service.
func (s *Server) words(name string) []string {
	ours := len(name) >= len(servicePrefix) && strings.EqualFold(name[:len(servicePrefix)], servicePrefix)
	if !ours || s.options.Words == nil {
		return nil
	}
	return s.options.Words()
}

func (s *Server) ordinary(account string) bool {
	return len(s.options.Ordinary) > 0 &&
		(account == "" || slices.ContainsFunc(s.options.Ordinary, func(name string) bool { return strings.EqualFold(name, account) }))
}

// Close ends every conversation and waits for the calls in it. It is idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.gone)
	err := s.listener.Close()
	for conn := range s.conns {
		err = errors.Join(err, conn.Close())
	}
	s.mu.Unlock()
	s.serving.Wait()
	return err
}
