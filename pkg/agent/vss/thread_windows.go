package vss

import (
	"errors"
	"fmt"

	"github.com/stillframe/stillframe/pkg/agent/com"
)

// thread is the one that owns a session's COM objects.
type thread struct {
	calls chan func()
	ended chan struct{}
}

func startThread() (*thread, error) {
	t := &thread{calls: make(chan func()), ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(t.ended)
		leave, err := com.Enter()
		started <- err
		if err != nil {
			return
		}
		defer leave()
		for call := range t.calls {
			call()
		}
	}()
	if err := <-started; err != nil {
		<-t.ended
		return nil, err
	}
	return t, nil
}

// do runs f on the thread and waits for it. A panic is an error: the session must still be ended in the writers.
func (t *thread) do(f func() error) error {
	done := make(chan error, 1)
	t.calls <- func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("the requestor panicked: %v", p)
			}
		}()
		done <- f()
	}
	return <-done
}

// errStuck is the error of a session whose thread hangs in a call of VSS: only the end of the process ends that session.
var errStuck = errors.New("a call of VSS does not return; the session ends with this process")

// stop ends the thread after what it is doing.
func (t *thread) stop() {
	close(t.calls)
	<-t.ended
}
