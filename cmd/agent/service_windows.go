package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/windows/svc"
)

// serviceFlag follows the word service on the command line that the service control manager starts. It is explicit
// because svc.IsWindowsService is false under Wine.
const serviceFlag = "-service"

// checkpointPause is how often a service that stops shows that it does something, checkpointHint how long the service
// control manager may wait for the next time.
const (
	checkpointPause = time.Second
	checkpointHint  = 10 * time.Second
)

// runService is the process of the service.
func runService(args []string, _, stderr io.Writer) int {
	if len(args) == 0 || args[0] != serviceFlag {
		return say(stderr, exitUsage, "service: it is started by the service control manager only\n")
	}
	if len(args) > 1 && args[1] == onceFlag {
		return runOnceService(args[2:], stderr)
	}
	args, stays := args[1:], len(args) > 1 && args[1] == persistentFlag
	var err error
	if stays {
		args, err = persistentArgs(args[1:])
	}
	var s settings
	if err == nil {
		s, err = parseSettings(args)
	}
	if err != nil {
		return say(stderr, exitUsage, fmt.Sprintf("service: %v\n", err))
	}
	h := handler{status: exitFailed, serve: func(ctx context.Context) int { return serve(ctx, s, stays) }}
	if err := svc.Run(servicePrefix+s.deployment, &h); err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("service: reach the service control manager: %v\n", err))
	}
	return h.status
}

// handler speaks with the service control manager while serve runs.
type handler struct {
	serve  func(ctx context.Context) int
	status int
}

// Execute implements svc.Handler. It says RUNNING before anything slow, because a service that does not within 30 s is
// given up (error 1053); a stop or a shutdown ends the context of serve, which then releases what is held.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (bool, uint32) {
	changes <- svc.Status{State: svc.StartPending, WaitHint: uint32(checkpointHint.Milliseconds())}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	done := make(chan int, 1)
	go func() { done <- h.serve(ctx) }()
	state := svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	changes <- state
	ticker := time.NewTicker(checkpointPause)
	defer ticker.Stop()
	for {
		select {
		case r := <-requests:
			if r.Cmd == svc.Stop || r.Cmd == svc.Shutdown {
				state = svc.Status{State: svc.StopPending, CheckPoint: state.CheckPoint + 1, WaitHint: uint32(checkpointHint.Milliseconds())}
				stop(errors.New("the service is to stop"))
			}
			changes <- state
		case <-ticker.C:
			if state.State == svc.StopPending {
				state.CheckPoint++
				changes <- state
			}
		case h.status = <-done:
			return h.status != exitOK, uint32(h.status)
		}
	}
}
