package provider

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/stillframe/stillframe/pkg/agent/com"
)

// Server offers a Provider to VSS while it runs. It owns the thread that owns the class.
type Server struct {
	stop chan struct{}
	done chan error
}

// Start makes p the process's provider and offers it to VSS. It sets the security of COM, so nothing in this process may
// have used COM before, and it works once in a process. The caller closes the Server before the process ends.
func Start(p *Provider) (*Server, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("the VSS provider runs on 64-bit x86 Windows only, not on %s", runtime.GOARCH)
	}
	if !served.CompareAndSwap(nil, p) {
		return nil, errors.New("this process serves a VSS provider already")
	}
	if err := p.Warm(); err != nil {
		return nil, err
	}
	s := &Server{stop: make(chan struct{}), done: make(chan error, 1)}
	started := make(chan error)
	go func() { s.done <- s.run(started) }()
	if err := <-started; err != nil {
		<-s.done
		return nil, err
	}
	return s, nil
}

// run tells started how its begin went, and ends when the Server is closed.
func (s *Server) run(started chan<- error) (err error) {
	leave, err := com.Enter()
	if err != nil {
		started <- err
		return nil
	}
	defer leave()
	sddl, err := access()
	if err == nil {
		err = com.Secure(sddl)
	}
	if err == nil {
		err = com.FailOnFault()
	}
	if err != nil {
		started <- err
		return nil
	}
	makeTables()
	revoke, err := com.Serve(ClassID(), unsafe.Pointer(&factory))
	started <- err
	if err != nil {
		return nil
	}
	<-s.stop
	err = revoke()
	letGo()
	return err
}

const (
	// letGoLimit bounds the wait for VSS to release the provider: vssvc may keep it loaded as long as it likes.
	letGoLimit = 2 * time.Second
	// letGoGrace is for calls that are just returning to VSS.
	letGoGrace = 50 * time.Millisecond
	// closeLimit bounds Close.
	closeLimit = 5 * time.Second
)

// letGo waits until VSS has released the provider. An apartment that is left in the middle of such a call may wait for ever
// (seen in Wine 8.0).
func letGo() {
	for begun := time.Now(); references.Load() > 0 && time.Since(begun) < letGoLimit; {
		time.Sleep(letGoGrace / 5)
	}
	time.Sleep(letGoGrace)
}

// ErrStays is given by Close when COM does not let go of this process. It is then to be ended by TerminateProcess:
// os.Exit would wait for the same thing.
var ErrStays = errors.New("COM does not let go of the VSS provider")

// Close takes the provider away from VSS, within 5 s. Nothing may be armed any more. It is called once.
func (s *Server) Close() error {
	close(s.stop)
	select {
	case err := <-s.done:
		return err
	case <-time.After(closeLimit):
		return ErrStays
	}
}

// mayCall are the accounts that VSS's writers run under: SYSTEM, Administrators, Backup Operators, LocalService and
// NetworkService may call this process, locally (COM_RIGHTS_EXECUTE | COM_RIGHTS_EXECUTE_LOCAL, 0x3). The requestor is a
// COM server too: without NetworkService its writers' callbacks end as event 8194.
const mayCall = "O:BAG:BAD:(A;;0x3;;;SY)(A;;0x3;;;BA)(A;;0x3;;;BO)(A;;0x3;;;LS)(A;;0x3;;;NS)"

// accessControl lists further accounts of writers, by name, with 1 for yes (Microsoft, Security Considerations for
// Writers).
const accessControl = `SYSTEM\CurrentControlSet\Services\VSS\VssAccessControl`

// access gives the security descriptor of this process for COM, in SDDL.
func access() (sddl string, err error) {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, accessControl, registry.QUERY_VALUE)
	if errors.Is(err, registry.ErrNotExist) {
		return mayCall, nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", accessControl, err)
	}
	defer func() { err = errors.Join(err, key.Close()) }()
	names, err := key.ReadValueNames(0)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", accessControl, err)
	}
	var more strings.Builder
	for _, name := range names {
		if allowed, _, err := key.GetIntegerValue(name); err != nil || allowed != 1 {
			continue // another type, or a no
		}
		sid, _, _, err := windows.LookupSID("", name)
		if err != nil {
			continue // an account that is gone cannot call either
		}
		more.WriteString("(A;;0x3;;;" + sid.String() + ")")
	}
	return mayCall + more.String(), nil
}
