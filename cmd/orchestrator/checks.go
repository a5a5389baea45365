package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

var _ backup.Checks = guests{}

// Preflight is the table for a VM as far as the roads into it matter: what only guest operations need keeps no VM from its window that
// has another road.
func (g guests) Preflight(ctx context.Context, vm inventory.VM) ([]inventory.Check, error) {
	checks, err := g.endpoint.Preflight(ctx, vm)
	if err != nil {
		return nil, err
	}
	w := g.way(vm, nil)
	if err := w.recall(ctx); err != nil {
		return nil, err
	}
	for i := range checks {
		c := &checks[i]
		if c.Status != inventory.CheckFail || c.ID != inventory.CheckGuestOperations && c.ID != inventory.CheckGuestPrivileges {
			continue
		}
		switch {
		case !g.road.Allows(guest.WayGuestOps):
			c.Status = inventory.CheckUnknown
			c.Evidence = append(c.Evidence, fmt.Sprintf("not needed: the road into the guest is %s", g.road))
		case w.otherwise():
			c.Status = inventory.CheckWarn
		}
	}
	return checks, nil
}

// otherwise says whether there is a road into the guest besides guest operations.
func (w *way) otherwise() bool {
	s := guest.Situation{Policy: w.road, System: w.vm.System(), Account: w.account.Username(), Known: w.known, Now: w.now(), Enrolled: w.enrolled}
	return len(w.addresses) > 0 && slices.ContainsFunc(s.Choose(), func(c guest.Choice) bool { return c.Code == "" && c.Way != guest.WayGuestOps })
}
