package vsphere

import (
	"context"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// Programs lists the processes of the guest that run the program exe with the first argument word and have not ended,
// whoever started them. The command line is compared as VMware Tools report it, with the program in quotes or without.
func (g *GuestOps) Programs(ctx context.Context, exe, word string) ([]int64, error) {
	var pids []int64
	err := g.do(ctx, "list guest processes", g.vm.Name, true, func(m guestManagers, auth types.BaseGuestAuthentication) error {
		res, err := methods.ListProcessesInGuest(ctx, g.e.vim, &types.ListProcessesInGuest{
			This: m.processes, Vm: vmRef(g.vm.Moref), Auth: auth,
		})
		if err != nil {
			return err
		}
		pids = nil
		for _, p := range res.Returnval {
			if p.EndTime == nil && commandIs(p.CmdLine, exe, word) {
				pids = append(pids, p.Pid)
			}
		}
		return nil
	})
	return pids, err
}

// commandIs says whether a command line is that of exe with the first argument word.
func commandIs(line, exe, word string) bool {
	return strings.HasPrefix(strings.ReplaceAll(line, `"`, "")+" ", exe+" "+word+" ")
}
