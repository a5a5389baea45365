package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/windows/svc/mgr"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// How long the registration is tried to be removed while VSS still uses the provider.
const (
	unregisterTries = 10
	unregisterPause = 500 * time.Millisecond
)

// host is this process's part in VSS: the provider that it serves, and its registration.
type host struct {
	provider *provider.Provider
	server   *provider.Server
	service  string
	// before is the registration of a persistent agent that this one has replaced for its time; nil for none.
	before *provider.Registration
}

// openHost offers the provider and registers it for a service; without a name COM starts exe itself.
func openHost(exe, service string) (*host, error) {
	before, err := persistentRegistration(service)
	if err != nil {
		return nil, err
	}
	h := &host{provider: provider.New(), service: service, before: before}
	if h.server, err = provider.Start(h.provider); err != nil {
		return nil, vssError(fmt.Errorf("serve the VSS provider: %w", err))
	}
	err = inApartment(func() error {
		return provider.Register(provider.Registration{Exe: exe, Service: service, Version: version})
	})
	if err != nil {
		return nil, vssError(errors.Join(err, h.close()))
	}
	return h, nil
}

// close unregisters and takes the provider away. It must come before the end of the process.
func (h *host) close() error {
	if h.before != nil {
		err := inApartment(func() error { return provider.Register(*h.before) })
		return errors.Join(err, h.server.Close())
	}
	return errors.Join(unregisterOwn(h.service), h.server.Close()) // VSS tells the provider when it lets go of it
}

// persistentRegistration gives the registration of an installed agent, if it is in force and not that of service.
func persistentRegistration(service string) (*provider.Registration, error) {
	r, found, err := provider.Registered()
	if err != nil || !found || r.Service != servicePrefix+persistent || r.Service == service {
		return nil, err
	}
	var installed bool
	err = withServices(func(m *mgr.Mgr) error {
		all, err := entries(m)
		installed = slices.ContainsFunc(all, func(e entry) bool { return e.name == r.Service })
		return err
	})
	if err != nil || !installed {
		return nil, err
	}
	r.Version = version
	return &r, nil
}

// unregisterOwn removes the registration unless it has become another agent's meanwhile.
func unregisterOwn(service string) error {
	r, found, err := provider.Registered()
	if err != nil || !found || r.Service != service {
		return err
	}
	return unregister()
}

// unregister removes the registration, once VSS has let go of the provider.
func unregister() error {
	return inApartment(func() error {
		for try := 1; ; try++ {
			err := provider.Unregister()
			if try == unregisterTries || !errors.Is(err, vsscode.VSS_E_PROVIDER_IN_USE) {
				return err
			}
			time.Sleep(unregisterPause)
		}
	})
}

// removeRegistration removes the registration of an agent that is gone: of exe, of a program that is not there any more,
// or of a service without an entry.
func removeRegistration(m *mgr.Mgr, exe string) error {
	r, found, err := provider.Registered()
	if err != nil || !found {
		return err
	}
	if sameFile(r.Exe, exe) || !exists(r.Exe) {
		return unregister()
	}
	all, err := entries(m)
	if err != nil || r.Service == "" {
		return err
	}
	if slices.ContainsFunc(all, func(e entry) bool { return e.name == r.Service }) {
		return nil
	}
	return unregister()
}

// inApartment runs f on a thread of COM.
func inApartment(f func() error) error {
	done := make(chan error, 1)
	go func() {
		leave, err := com.Enter()
		if err == nil {
			err = f()
			leave()
		}
		done <- err
	}()
	return <-done
}

// vssError gives an error of VSS or COM the code of its HRESULT.
func vssError(err error) error {
	var number vsscode.HRESULT
	var refused *com.Error
	switch {
	case errors.As(err, &number):
	case errors.As(err, &refused):
		number = vsscode.HRESULT(refused.HRESULT)
	}
	if code := number.Code(); code != "" {
		return &agent.CodedError{Code: code, Err: err}
	}
	return err
}
