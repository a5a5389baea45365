package vcenter_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/vcenter"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// TestManyAtOnce creates and removes snapshots of many VMs at one time, while others read: no deadlock, and (under the
// race detector) no race.
func TestManyAtOnce(t *testing.T) {
	const machines, rounds = 12, 3
	plan := vcenter.TaskPlan{Queue: 5 * time.Millisecond, Run: 30 * time.Millisecond}
	var vms []vcenter.VM
	for i := range machines {
		vms = append(vms, vcenter.VM{Name: fmt.Sprintf("vm%02d", i), Create: plan, Remove: plan})
	}
	s := start(t, vcenter.Options{VMs: vms})
	c := connect(t, s)
	var work sync.WaitGroup
	for i := range machines {
		vm := object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: s.Moref(vms[i].Name)})
		work.Go(func() {
			for range rounds {
				task, err := vm.CreateSnapshot(t.Context(), "one", "", false, false)
				if err != nil {
					t.Error(err)
					return
				}
				info, err := task.WaitForResult(t.Context(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := methods.RemoveSnapshot_Task(t.Context(), c.Client, &types.RemoveSnapshot_Task{This: info.Result.(types.ManagedObjectReference)})
				if err != nil {
					t.Error(err)
					return
				}
				if err := object.NewTask(c.Client, res.Returnval).Wait(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
		work.Go(func() {
			for range 10 {
				var props mo.VirtualMachine
				if err := property.DefaultCollector(c.Client).RetrieveOne(t.Context(), vm.Reference(), []string{"snapshot", "recentTask", "runtime", "layoutEx", "config.hardware.device"}, &props); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	for _, vm := range vms {
		if got := s.SnapshotNames(vm.Name); got != nil {
			t.Errorf("%s: snapshots = %q", vm.Name, got)
		}
	}
}
