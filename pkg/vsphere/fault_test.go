package vsphere

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"

	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// TestFailureReadsEveryShape holds failure to errors of every shape, those whose Unwrap gives nothing included.
func TestFailureReadsEveryShape(t *testing.T) {
	busy := soap.WrapVimFault(&types.TaskInProgress{Task: types.ManagedObjectReference{Type: "Task", Value: "task-1"}})
	nested := task.Error{LocalizedMethodFault: &types.LocalizedMethodFault{Fault: &types.SnapshotFault{
		VimFault: types.VimFault{MethodFault: types.MethodFault{FaultCause: &types.LocalizedMethodFault{Fault: &types.NoDiskSpace{}}}},
	}}}
	for _, tc := range []struct {
		name, want string
		err        error
	}{
		{"a host name that does not resolve", "SF2004", &url.Error{Op: "Post", URL: "https://vc", Err: &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "vc"}}}},
		{"joined with nothing", "SF2201", errors.Join(&net.DNSError{}, fmt.Errorf("call: %w", busy))},
		{"a cause within a task's error", "SF2206", nested},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var coded interface{ Code() string }
			if err := failure("call", "vc", tc.err); !errors.As(err, &coded) || coded.Code() != tc.want {
				t.Errorf("failure(%v) = %v, want %s", tc.err, err, tc.want)
			}
		})
	}
}
