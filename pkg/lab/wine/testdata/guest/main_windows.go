// Command guest is a Windows program for the tests of pkg/lab/wine: it says hello, is a service, or reads the event log.
package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
)

var (
	wevtapi   = windows.NewLazySystemDLL("wevtapi.dll")
	evtQuery  = wevtapi.NewProc("EvtQuery")
	evtNext   = wevtapi.NewProc("EvtNext")
	evtRender = wevtapi.NewProc("EvtRender")
	evtClose  = wevtapi.NewProc("EvtClose")
)

func main() {
	word := "hello"
	if len(os.Args) > 1 {
		word = os.Args[1]
	}
	var err error
	switch word {
	case "hello":
		_, err = fmt.Fprintln(os.Stdout, "hello from", os.Getpid())
	case "service":
		err = svc.Run("labguest", service{})
	case "events":
		err = printEvents(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type service struct{}

func (service) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	status <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop}
	for r := range requests {
		if r.Cmd == svc.Stop {
			break
		}
		status <- r.CurrentStatus
	}
	status <- svc.Status{State: svc.StopPending}
	return false, 0
}

// printEvents prints a channel's events as XML, one a line.
func printEvents(channel string) error {
	path, err := windows.UTF16PtrFromString(channel)
	if err != nil {
		return err
	}
	set, _, err := evtQuery.Call(0, uintptr(unsafe.Pointer(path)), 0, 1)
	if set == 0 {
		return err
	}
	for {
		var handles [2]uintptr
		var n uint32
		ok, _, err := evtNext.Call(set, uintptr(len(handles)), uintptr(unsafe.Pointer(&handles[0])), 0, 0, uintptr(unsafe.Pointer(&n)))
		if ok == 0 && errors.Is(err, windows.ERROR_NO_MORE_ITEMS) {
			return closeHandle(set)
		}
		if ok == 0 {
			return err
		}
		for _, event := range handles[:n] {
			if err := printEvent(event); err != nil {
				return err
			}
		}
	}
}

func closeHandle(handle uintptr) error {
	if ok, _, err := evtClose.Call(handle); ok == 0 {
		return fmt.Errorf("EvtClose: %w", err)
	}
	return nil
}

func printEvent(event uintptr) (err error) {
	defer func() { err = errors.Join(err, closeHandle(event)) }()
	var size, properties uint32
	_, _, err = evtRender.Call(0, event, 1, 0, 0, uintptr(unsafe.Pointer(&size)), uintptr(unsafe.Pointer(&properties)))
	if !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) {
		return fmt.Errorf("EvtRender without a buffer: %w", err)
	}
	text := make([]uint16, size/2)
	ok, _, err := evtRender.Call(0, event, 1, uintptr(size), uintptr(unsafe.Pointer(&text[0])), uintptr(unsafe.Pointer(&size)), uintptr(unsafe.Pointer(&properties)))
	if ok == 0 {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, windows.UTF16ToString(text))
	return err
}
