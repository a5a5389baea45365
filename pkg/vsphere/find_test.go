package vsphere

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// vmOf gives a VM of the model.
func vmOf(t *testing.T, m *simulator.Model, name string) *simulator.VirtualMachine {
	t.Helper()
	for _, e := range m.Map().All("VirtualMachine") {
		if vm, ok := e.(*simulator.VirtualMachine); ok && vm.Name == name {
			return vm
		}
	}
	t.Fatalf("no VM %q in the model", name)
	return nil
}

func rename(t *testing.T, e *Endpoint, ref types.ManagedObjectReference, name string) {
	t.Helper()
	res, err := methods.Rename_Task(t.Context(), e.vim, &types.Rename_Task{This: ref, NewName: name})
	if err == nil {
		err = e.finish(t.Context(), "", res.Returnval)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	w := newWorld(t, nil)
	e := w.open()
	vm := vmOf(t, w.model, "DC0_H0_VM0")
	twin := vmOf(t, w.model, "DC1_H0_VM0")
	rename(t, e, vmOf(t, w.model, "DC1_C0_RP0_VM0").Self, "with%2fslash")
	for _, query := range []string{
		"DC0_H0_VM0", vm.Self.Value, "VirtualMachine:" + vm.Self.Value, vm.Config.InstanceUuid,
		strings.ToUpper(vm.Config.InstanceUuid), "/DC0/vm/DC0_H0_VM0", "DC0/vm/DC0_H0_VM0", "vm/DC0_H0_VM0", " DC0_H0_VM0 ",
	} {
		got, err := e.Find(t.Context(), query)
		if err != nil {
			t.Errorf("Find(%q): %v", query, err)
			continue
		}
		if got.Moref != vm.Self.Value || got.Path != "/DC0/vm/DC0_H0_VM0" || got.Name != "DC0_H0_VM0" ||
			got.InstanceUUID != vm.Config.InstanceUuid || got.UUID != vm.Config.Uuid || got.PowerState != "poweredOff" ||
			got.ConnectionState != "connected" {
			t.Errorf("Find(%q) = %+v", query, got)
		}
	}
	if got, err := e.Find(t.Context(), "with/slash"); err != nil || got.Name != "with/slash" {
		t.Errorf("Find(with/slash) = %+v, %v", got, err)
	}

	var missing *NotFoundError
	_, err := e.Find(t.Context(), "dc0_h0_vm1")
	wantCode(t, err, "SF2009")
	if !errors.As(err, &missing) || !slices.Contains(missing.Near, "DC0_H0_VM0") {
		t.Errorf("Find of a misspelt name gave %v, want DC0_H0_VM0 among the near misses", err)
	}
	_, err = e.Find(t.Context(), "DC0_*")
	wantCode(t, err, "SF2009")
	if !strings.Contains(err.Error(), "patterns are not supported") {
		t.Errorf("Find of a pattern gave %v", err)
	}
	for _, query := range []string{"", "vm-999999", "/DC0/vm", "/DC0/host/DC0_H0", "00000000-0000-0000-0000-000000000000"} {
		_, err := e.Find(t.Context(), query)
		wantCode(t, err, "SF2009")
	}

	rename(t, e, twin.Self, "DC0_H0_VM0")
	var several *AmbiguousError
	_, err = e.Find(t.Context(), "DC0_H0_VM0")
	wantCode(t, err, "SF2010")
	if want := []string{"/DC0/vm/DC0_H0_VM0", "/DC1/vm/DC0_H0_VM0"}; !errors.As(err, &several) || !slices.Equal(several.Paths, want) {
		t.Errorf("Find of two namesakes gave %v, want %v", err, want)
	}
	if got, err := e.Find(t.Context(), "/DC1/vm/DC0_H0_VM0"); err != nil || got.Moref != twin.Self.Value {
		t.Errorf("Find by path of a namesake = %+v, %v", got, err)
	}
	if a, b := w.count("CreateContainerView"), w.count("DestroyView"); a != b {
		t.Errorf("%d views made, %d destroyed", a, b)
	}
}
