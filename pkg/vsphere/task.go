package vsphere

import (
	"context"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Unfinished lists the VM's tasks that are queued or run, from its recent tasks, which hold every one that has not ended
// (vSphere API reference, ManagedEntity.recentTask). One whose info may not be read is left out. Never call it inside a
// freeze window.
func (s *Snapshotter) Unfinished(ctx context.Context, vm inventory.VM) ([]inventory.Task, error) {
	objects, err := s.e.retrieve(ctx, types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{Obj: vmRef(vm.Moref), Skip: types.NewBool(true), SelectSet: []types.BaseSelectionSpec{
			&types.TraversalSpec{Type: "VirtualMachine", Path: "recentTask"},
		}}},
		PropSet: []types.PropertySpec{{Type: "Task", PathSet: []string{"info"}}},
	})
	if err != nil {
		return nil, failure("list tasks of", vm.Name, err)
	}
	var tasks []inventory.Task
	for _, o := range objects {
		info := value[types.TaskInfo](propertyMap(o), "info")
		if info.State != types.TaskInfoStateQueued && info.State != types.TaskInfoStateRunning {
			continue
		}
		kind := info.DescriptionId[strings.LastIndexByte(info.DescriptionId, '.')+1:] // VirtualMachine.createSnapshot
		tasks = append(tasks, inventory.Task{Moref: o.Obj.Value, Kind: kind, State: string(info.State)})
	}
	return tasks, nil
}
