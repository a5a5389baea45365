package vsphere

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Observer hears what was asked of a vCenter. It is called inside freeze windows, so it must do no more than count.
type Observer interface {
	// Called is told of each call when it has ended: its method, and ok, cancelled or a code of the error catalogue.
	Called(method, code string)
	// TaskEnded is told how long a task waited and worked by vCenter's own clock.
	TaskEnded(task string, queued, running time.Duration)
}

// Up says whether the session was good when vCenter was heard last.
func (e *Endpoint) Up() bool { return !e.down.Load() }

// heard takes in how a call ended.
func (e *Endpoint) heard(ctx context.Context, req soap.HasFault, err error) {
	code := "ok"
	switch {
	case err == nil:
		e.down.Store(false)
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errCallLimit):
		code = "cancelled" // it says nothing of vCenter
	default:
		r := read(err)
		if code = r.code; r.fault == "" {
			code = "SF2004"
		}
		if r.fault == "" || r.fault == "NotAuthenticated" || r.fault == "InvalidLogin" {
			e.down.Store(true)
		}
	}
	if e.observer != nil {
		e.observer.Called(strings.TrimSuffix(reflect.TypeOf(req).Elem().Name(), "Body"), code)
	}
}

// ended tells of a task that succeeded. Times between which vCenter's clock was set back are not told.
func (e *Endpoint) ended(task string, info types.TaskInfo) {
	if e.observer == nil || info.State != types.TaskInfoStateSuccess || info.StartTime == nil || info.CompleteTime == nil {
		return
	}
	queued, running := info.StartTime.Sub(info.QueueTime), info.CompleteTime.Sub(*info.StartTime)
	if queued >= 0 && running >= 0 {
		e.observer.TaskEnded(task, queued, running)
	}
}
