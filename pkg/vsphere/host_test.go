package vsphere

import (
	"errors"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

// hostLab is a vCenter with two hosts that answer for themselves and one VM.
func hostLab(t *testing.T) (*vcenter.Server, *Endpoint, inventory.VM) {
	t.Helper()
	s := startLab(t, vcenter.Options{Hosts: 2, HostUser: "root", HostPassword: "host", VMs: []vcenter.VM{
		{Name: "web", Create: vcenter.TaskPlan{Run: 300 * time.Millisecond}, HostCreate: vcenter.TaskPlan{Run: 20 * time.Millisecond}},
	}})
	e := labEndpoint(t, s.URL(), s.Thumbprint())
	vm, err := e.Find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	return s, e, vm
}

// openHost opens the road to the host of a VM until the test ends.
func openHost(t *testing.T, e *Endpoint, vm inventory.VM) *HostRoad {
	t.Helper()
	host, err := e.HostOf(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := e.OpenHost(t.Context(), host, login("root", "host"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := direct.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	road, err := NewHostRoad(t.Context(), e, direct, host, vm)
	if err != nil {
		t.Fatal(err)
	}
	return road
}

func TestHostRoad(t *testing.T) {
	s, e, vm := hostLab(t)
	road := openHost(t, e, vm)
	if road.Host().Name != "DC0_C0_H0" || !road.direct.IsHost() || e.IsHost() {
		t.Errorf("the road leads to %+v", road.Host())
	}
	if road.vm.InstanceUUID != vm.InstanceUUID || road.vm.Moref == vm.Moref || road.vm.Name != "web" {
		t.Errorf("the host knows the VM as %+v, vCenter as %+v", road.vm, vm)
	}
	name := ourPrefix + "run-1"
	prepared, err := road.Prepare(t.Context(), name, "test")
	if err != nil {
		t.Fatal(err)
	}
	s.Host("DC0_C0_H0").TakeCalls()
	s.TakeCalls()
	snapshot, _, err := prepared.Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.TakeCalls()); n != 0 {
		t.Errorf("%d calls to vCenter while the host made the snapshot", n)
	}
	if err := prepared.Close(t.Context()); err != nil {
		t.Error(err)
	}
	inVCenter, err := NewSnapshotter(e).FindSnapshots(t.Context(), vm, name)
	if err != nil || len(inVCenter) != 1 || inVCenter[0].Moref == snapshot.Moref {
		t.Errorf("vCenter shows %+v of %+v, %v", inVCenter, snapshot, err)
	}
	onHost, err := road.FindSnapshots(t.Context(), name)
	if err != nil || len(onHost) != 1 || onHost[0] != snapshot {
		t.Errorf("the host shows %+v, want %+v, %v", onHost, snapshot, err)
	}
	if _, err := road.Remove(t.Context(), snapshot); err != nil {
		t.Error(err)
	}
	if left := s.SnapshotNames("web"); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestHostRoadMoved has the VM leave before the road is opened, when it is open, and with its snapshot.
func TestHostRoadMoved(t *testing.T) {
	s, e, vm := hostLab(t)
	road := openHost(t, e, vm)
	if err := road.Here(t.Context()); err != nil {
		t.Fatal(err)
	}
	prepared, err := road.Prepare(t.Context(), ourPrefix+"run-1", "test")
	if err != nil {
		t.Fatal(err)
	}
	snapshot, _, err := prepared.Create(t.Context(), nil)
	if err := errors.Join(err, prepared.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate("web", "DC0_C0_H1"); err != nil {
		t.Fatal(err)
	}
	var moved *MovedError
	err = road.Here(t.Context())
	if wantCode(t, err, "SF2702"); !errors.As(err, &moved) || moved.From != "DC0_C0_H0" || moved.To != "DC0_C0_H1" {
		t.Errorf("Here = %v", err)
	}
	if _, err := road.Remove(t.Context(), snapshot); !errors.As(err, &moved) {
		t.Errorf("Remove of a snapshot that went with its VM = %v", err)
	}
	if left := s.SnapshotNames("web"); len(left) != 1 {
		t.Errorf("snapshots are %q, want the one that could not be removed here", left)
	}
	if _, err := NewHostRoad(t.Context(), e, road.direct, road.host, vm); !errors.As(err, &moved) {
		t.Errorf("a road to the host that it left = %v", err)
	}
	if prepared, err = road.Prepare(t.Context(), ourPrefix+"run-2", "test"); err != nil {
		t.Fatal(err)
	}
	_, _, err = prepared.Create(t.Context(), nil)
	wantCode(t, errors.Join(err, prepared.Close(t.Context())), "SF2006")
	if err := s.Stop(); err != nil { // vCenter is gone: the host's own word counts
		t.Fatal(err)
	}
	if err := road.Here(t.Context()); !errors.As(err, &moved) || moved.To != "" {
		t.Errorf("without vCenter Here = %v", err)
	}
	if err := s.Restart(t.Context(), false); err != nil { // for the logout
		t.Fatal(err)
	}
}

// TestOpenHostTrust accepts only the certificate of which vCenter tells the thumbprint.
func TestOpenHostTrust(t *testing.T) {
	_, e, vm := hostLab(t)
	host, err := e.HostOf(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.OpenHost(t.Context(), host, login("root", "wrong"))
	wantCode(t, err, "SF2001")
	other := host
	other.Thumbprint = "00:" + host.Thumbprint[3:]
	_, err = e.OpenHost(t.Context(), other, login("root", "host"))
	wantCode(t, err, "SF2003")
	other.Address = "127.0.0.1:1"
	_, err = e.OpenHost(t.Context(), other, login("root", "host"))
	wantCode(t, err, "SF2004")
}
