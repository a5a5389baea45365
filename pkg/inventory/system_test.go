package inventory_test

import (
	"testing"

	"github.com/stillframe/stillframe/pkg/inventory"
)

func TestSystem(t *testing.T) {
	for _, c := range []struct {
		family, id string
		want       inventory.System
		old        bool
	}{
		{"linuxGuest", "other5xLinux64Guest", inventory.Linux, false},
		{"linuxGuest", "windows9Server64Guest", inventory.Linux, false},
		{"", "other5xLinux64Guest", "", false},
		{"", "", "", false},
		{"solarisGuest", "solaris11_64Guest", "", false},
		{"windowsGuest", "", inventory.Windows, false},
		{"windowsGuest", "windows9Server64Guest", inventory.Windows, false},
		{"windowsGuest", "windows9_64Guest", inventory.Windows, false},
		{"windowsGuest", "windows11_64Guest", inventory.Windows, false},
		{"windowsGuest", "windows2019srv_64Guest", inventory.Windows, false},
		{"windowsGuest", "windows2022srvNext_64Guest", inventory.Windows, false},
		{"", "windows2022srvNext_64Guest", inventory.Windows, false},
		{"windowsGuest", "windows9Guest", inventory.Windows, true},
		{"windowsGuest", "windows8Server64Guest", inventory.Windows, true},
		{"windowsGuest", "windows7Server64Guest", inventory.Windows, true},
		{"windowsGuest", "windowsHyperVGuest", inventory.Windows, true},
		{"windowsGuest", "winLonghorn64Guest", inventory.Windows, true},
		{"", "winNetEnterprise64Guest", inventory.Windows, true},
	} {
		vm := inventory.VM{GuestFamily: c.family, GuestID: c.id}
		if vm.System() != c.want || vm.OldWindows() != c.old {
			t.Errorf("%q %q: system %q, old %v, want %q, %v", c.family, c.id, vm.System(), vm.OldWindows(), c.want, c.old)
		}
	}
}
