package adminshare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/adminshare/svcctl"
)

// services starts the agent by the guest's service control manager, over the pipe of the same session.
type services struct{ *Access }

var _ starter = (*services)(nil)

// Waiting for services.
const (
	stopLimit = 11 * time.Second // from the request to stop to STOPPED
	onceLimit = 58 * time.Second // the agent's thaw: two services that do not stop, 5 s each, and VSS that lets go late; its install: 30 s until READY
)

// manage opens the manager of the guest's services for one piece of work.
func (s *services) manage(ctx context.Context, do func(*svcctl.Manager) error) error {
	return s.with(ctx, "speak to the service control manager", func(now *session) error {
		pipe, err := now.pipe(ctx, "svcctl")
		if err != nil {
			return err
		}
		m, err := svcctl.Open(pipe)
		if err == nil {
			err = errors.Join(do(m), m.Close())
		}
		return coded(errors.Join(err, pipe.Close()))
	})
}

// coded gives what the manager refused the form of this package.
func coded(err error) error {
	if err == nil || guest.CodeOf(err) == "" {
		return err
	}
	return &guest.Error{SF: guest.CodeOf(err), Op: "manage the agent's service", Err: err}
}

func (s *services) start(ctx context.Context, r guest.Remote, words []string) (began bool, err error) {
	path := strings.Join(append([]string{quoted(r.Exe), "service", "-service"}, words...), " ")
	err = s.manage(ctx, func(m *svcctl.Manager) error {
		one, err := m.Create(servicePrefix+r.Deployment, servicePrefix+r.Deployment, path)
		began = !refused(err)
		if err != nil {
			return err
		}
		return errors.Join(one.Start(), one.Close())
	})
	return began, err
}

// refused says whether a call was answered with a refusal, so that it had no effect. With any other error it may have had one.
func refused(err error) bool {
	var number *svcctl.Error
	var fault *svcctl.Fault
	return errors.As(err, &number) || errors.As(err, &fault)
}

// find opens a service; it is nil where there is none.
func find(m *svcctl.Manager, name string) (*svcctl.Service, error) {
	one, err := m.OpenService(name)
	if svcctl.Win32(err) == svcctl.ERROR_SERVICE_DOES_NOT_EXIST {
		return nil, nil
	}
	return one, err
}

func (s *services) running(ctx context.Context, r guest.Remote) (runs bool, err error) {
	err = s.manage(ctx, func(m *svcctl.Manager) error {
		one, err := find(m, servicePrefix+r.Deployment)
		if one == nil || err != nil {
			return err
		}
		status, err := one.Query()
		runs = status.State != svcctl.Stopped
		return errors.Join(err, one.Close())
	})
	return runs, err
}

// why reads how the service ended, which is gone when it took itself out.
func (s *services) why(ctx context.Context, r guest.Remote) error {
	said := errors.New("its service ended before it was ready, and took itself out")
	err := s.manage(ctx, func(m *svcctl.Manager) error {
		one, err := find(m, servicePrefix+r.Deployment)
		if one == nil || err != nil {
			return err
		}
		status, err := one.Query()
		said = fmt.Errorf("its service ended before it was ready: Win32 %d, its own exit code %d", status.Win32Exit, status.SpecificExit)
		return errors.Join(err, one.Close())
	})
	return errors.Join(said, err)
}

// once makes a service of the command, because services are all that can be started this way.
func (s *services) once(ctx context.Context, r guest.Remote, command string, args ...string) (exit int, err error) {
	ctx, cancel := context.WithTimeout(ctx, onceLimit)
	defer cancel()
	name := servicePrefix + r.Deployment + "-" + command
	path := strings.Join(append([]string{quoted(r.Exe), "service", "-service", "--once", name, command}, args...), " ")
	err = s.manage(ctx, func(m *svcctl.Manager) error {
		if err := former(ctx, m, r, command); err != nil {
			return err
		}
		one, err := m.Create(name, name, path)
		if err != nil {
			return err
		}
		err = one.Start()
		if err == nil {
			exit, err = ended(ctx, one)
		}
		return errors.Join(err, takeOut(one), one.Close())
	})
	return exit, err
}

// former takes out services of commands that were cut off. An installation may still be at work in the guest, and is waited for
// before the next one; a thaw waits for nothing.
func former(ctx context.Context, m *svcctl.Manager, r guest.Remote, command string) error {
	of := []string{command}
	if command != "thaw" {
		of = []string{"install", "uninstall"}
	}
	for _, one := range of {
		old, err := find(m, servicePrefix+r.Deployment+"-"+one)
		if err == nil && old != nil {
			if command != "thaw" {
				_, err = ended(ctx, old)
			}
			err = errors.Join(err, takeOut(old), old.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ended waits for the end of a service that does one command, and gives the command's status.
func ended(ctx context.Context, one *svcctl.Service) (exit int, err error) {
	status, err := settle(ctx, one, onceLimit)
	if err != nil {
		return 0, fmt.Errorf("wait for the end of the service: %w", err)
	}
	if status.Win32Exit != 0 && status.Win32Exit != svcctl.ERROR_SERVICE_SPECIFIC_ERROR {
		return 0, fmt.Errorf("the service ended with Windows error %d", status.Win32Exit)
	}
	return int(status.SpecificExit), nil
}

// settle waits for a service to be stopped.
func settle(ctx context.Context, one *svcctl.Service, limit time.Duration) (svcctl.Status, error) {
	for begin, pause := time.Now(), firstPause; ; pause = min(2*pause, longestPause) {
		status, err := one.Query()
		if err != nil || status.State == svcctl.Stopped {
			return status, err
		}
		if time.Since(begin) >= limit {
			return status, fmt.Errorf("it is %s after %v", status.State, limit)
		}
		if err := sleep(ctx, pause); err != nil {
			return status, err
		}
	}
}

// ignore takes one number of Windows for success.
func ignore(err error, number uint32) error {
	if svcctl.Win32(err) == number {
		return nil
	}
	return err
}

// takeOut deletes a service. One that is gone or about to go is as good: an agent that is stopped takes itself out.
func takeOut(one *svcctl.Service) error {
	return ignore(ignore(one.Delete(), svcctl.ERROR_SERVICE_MARKED_FOR_DELETE), svcctl.ERROR_SERVICE_DOES_NOT_EXIST)
}

// end waits for a greeted agent to leave, which takes its service out by itself. Any other is stopped; where that does not
// help, its thaw ends it.
func (s *services) end(ctx context.Context, r guest.Remote, there bool) error {
	if r.Greeted {
		left, err := s.left(ctx, r, leaveLimit)
		if left || err != nil {
			return err
		}
	}
	stopped, err := s.stop(ctx, r)
	if err != nil {
		return err
	}
	if !stopped && there {
		if _, err := thaw(ctx, s, r); err != nil {
			return err
		}
	}
	left, err := s.left(ctx, r, stopLimit)
	if err == nil && !left {
		err = &guest.Error{SF: "SF3404", Op: "take out the service " + servicePrefix + r.Deployment, Err: errStillThere}
	}
	return err
}

// left waits for the service to be out of the guest.
func (s *services) left(ctx context.Context, r guest.Remote, patience time.Duration) (bool, error) {
	for begin, pause := time.Now(), firstPause; ; pause = min(2*pause, longestPause) {
		gone := false
		err := s.manage(ctx, func(m *svcctl.Manager) error {
			one, err := find(m, servicePrefix+r.Deployment)
			if one == nil || err != nil {
				gone = err == nil
				return err
			}
			return one.Close()
		})
		if err != nil || gone || time.Since(begin) >= patience {
			return gone, err
		}
		if err := sleep(ctx, pause); err != nil {
			return false, err
		}
	}
}

// stop stops the service and takes it out; false when it does not stop.
func (s *services) stop(ctx context.Context, r guest.Remote) (stopped bool, err error) {
	err = s.manage(ctx, func(m *svcctl.Manager) error {
		one, err := find(m, servicePrefix+r.Deployment)
		if one == nil || err != nil {
			stopped = err == nil
			return err
		}
		if err = ignore(one.Stop(), svcctl.ERROR_SERVICE_NOT_ACTIVE); err == nil {
			status, waitErr := settle(ctx, one, stopLimit)
			stopped = waitErr == nil && status.State == svcctl.Stopped
			err = ctx.Err()
		}
		return errors.Join(err, takeOut(one), one.Close())
	})
	return stopped, err
}
