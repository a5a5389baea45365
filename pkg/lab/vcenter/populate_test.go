package vcenter

import (
	"fmt"
	"testing"
	"time"
)

// TestPopulateThousand: the time is told, not asserted; docs/vcsim.md names what was measured.
func TestPopulateThousand(t *testing.T) {
	var vms []VM
	for i := range 1000 {
		vms = append(vms, VM{Name: fmt.Sprintf("bulk-%04d", i+1)})
	}
	begin := time.Now()
	s, err := Start(t.Context(), Options{User: "u", Password: "p", VMs: vms})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("1,000 VMs in %v", time.Since(begin))
	if s.Moref("bulk-1000") == "" || len(s.machines) != 1000 {
		t.Errorf("%d VMs, the last is %q", len(s.machines), s.Moref("bulk-1000"))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
