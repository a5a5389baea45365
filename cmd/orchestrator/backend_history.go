package main

import (
	"context"
	"encoding/json"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
)

// History lists the windows of a VM, the newest first, as the reports of its runs have them. The cursor is the id of the last run that was read.
func (b backends) History(ctx context.Context, id string, p api.Page) ([]api.PastWindow, string, error) {
	before, err := b.before(ctx, p)
	if err != nil {
		return nil, "", err
	}
	all := []api.PastWindow{}
	for {
		runs, err := b.catalog.Runs(ctx, catalog.RunFilter{VMID: id, Before: before, Limit: p.Limit})
		if err != nil {
			return nil, "", err
		}
		for _, r := range runs {
			before = r
			w, ok := windowOf(r)
			if !ok {
				continue
			}
			if all = append(all, w); len(all) == p.Limit {
				return all, r.ID, nil
			}
		}
		if len(runs) < p.Limit {
			return all, "", nil
		}
	}
}

// windowOf reads the window of a run; false when it had none.
func windowOf(r catalog.Run) (api.PastWindow, bool) {
	var result backup.Result
	if len(r.Report) == 0 || json.Unmarshal(r.Report, &result) != nil || len(result.Window.Phases) == 0 {
		return api.PastWindow{}, false
	}
	w := api.PastWindow{
		RunID: r.ID, At: result.StartedAt, Level: string(r.Level), Mode: string(r.Mode), Result: r.Outcome, ErrorCode: r.ErrorCode,
		HeldSeconds: held(result.Window), BudgetSeconds: result.Window.BudgetSeconds,
	}
	if result.Snapshot.TaskSeconds > 0 {
		w.SnapshotSeconds = &result.Snapshot.TaskSeconds
	}
	for _, phase := range result.Window.Phases {
		w.Phases = append(w.Phases, api.Phase{Name: phase.Name, StartSeconds: phase.StartSeconds, DurationSeconds: phase.DurationSeconds})
	}
	return w, true
}

// held is the longer of the guest's own measure and our bound, nil when neither is known.
func held(w backup.Window) *float64 {
	longer := w.HeldByGuestSeconds
	if most := w.HeldAtMostSeconds; longer == nil || most != nil && *most > *longer {
		longer = most
	}
	return longer
}
