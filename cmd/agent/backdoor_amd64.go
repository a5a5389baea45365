package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/vmware/vmw-guestinfo/message"
	"github.com/vmware/vmw-guestinfo/rpcout"
	"github.com/vmware/vmw-guestinfo/vmcheck"
)

// backdoor speaks to the hypervisor by an I/O port, on one thread: on Linux the right to it is a thread's.
type backdoor struct{ calls chan func() }

// openBackdoor gives the variables of the hypervisor, or errNoGuestinfo. Outside VMware the port's IN instruction ends the
// process (SIGSEGV), so nothing is asked of it before the processor has said where it runs.
func openBackdoor() (guestinfo, error) {
	message.DefaultLogger = silent{}
	b := backdoor{make(chan func())}
	found := make(chan bool)
	go func() {
		runtime.LockOSThread()
		world, err := vmcheck.IsVirtualWorld(true) // iopl may be refused (kernel lockdown); VMware answers all the same
		found <- world && err == nil
		for call := range b.calls {
			call()
		}
	}()
	if !<-found {
		close(b.calls)
		return nil, errNoGuestinfo
	}
	return b, nil
}

// read gives "" for a variable that is not set.
func (b backdoor) read(key string) (string, error) {
	value, ok, err := b.send("info-get " + key)
	if !ok && err == nil && !strings.Contains(value, "No value found") { // hostd's words (open-vm-tools)
		return "", fmt.Errorf("read %s: the hypervisor answered %.80q", key, value)
	}
	if !ok {
		value = ""
	}
	return strings.TrimSpace(value), err
}

func (b backdoor) write(key, value string) error {
	request := "info-set " + key + " " + value
	// The library garbles the last bytes of a request whose length is no multiple of 4 where it has no fast road.
	request += strings.Repeat(" ", (4-len(request)%4)%4)
	answer, ok, err := b.send(request)
	if err == nil && !ok {
		err = fmt.Errorf("write %s: the hypervisor answered %.80q", key, answer)
	}
	return err
}

// send asks once. The library panics at an answer that is shorter than it may be.
func (b backdoor) send(request string) (answer string, ok bool, err error) {
	done := make(chan struct{})
	b.calls <- func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = errors.New("the hypervisor's answer is cut short")
			}
		}()
		var raw []byte
		raw, ok, err = rpcout.SendOneRaw([]byte(request))
		answer = string(raw)
	}
	<-done
	if err != nil {
		err = fmt.Errorf("ask the hypervisor: %w", err)
	}
	return answer, ok, err
}

// silent keeps the library from writing logs: nothing may be written while a guest is held.
type silent struct{}

func (silent) Errorf(string, ...any) {}
func (silent) Debugf(string, ...any) {}
func (silent) Infof(string, ...any)  {}
