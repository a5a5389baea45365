package api

import (
	"context"
	"net/http"
	"time"
)

// Snapshot is one row of the ledger: a snapshot that a run was about to make, and what became of it.
type Snapshot struct {
	ID            string     `json:"id"`
	RunID         string     `json:"run_id"`
	Epoch         int64      `json:"epoch"`
	VCenterID     string     `json:"vcenter_id"`
	VMID          string     `json:"vm_id"`
	VM            string     `json:"vm"`
	VMMoref       string     `json:"vm_moref"`
	Road          string     `json:"road"`
	Name          string     `json:"name"`
	SnapshotMoref string     `json:"snapshot_moref"`
	State         string     `json:"state" doc:"intent, created, in_use, remove_requested, removed, orphan, foreign, lost"`
	Proof         string     `json:"proof" doc:"Why it is, or is not, taken for ours"`
	CreatedAt     time.Time  `json:"created_at"`
	KeepUntil     *time.Time `json:"keep_until,omitempty"`
	RemovedAt     *time.Time `json:"removed_at,omitempty"`
	Attempts      int        `json:"attempts" doc:"Attempts to remove it"`
	NextAttemptAt *time.Time `json:"next_attempt_at,omitempty"`
	LastError     string     `json:"last_error"`
}

// SnapshotFilter says which snapshots are wanted.
type SnapshotFilter struct {
	VCenter string   `query:"vcenter" maxLength:"64"`
	VM      string   `query:"vm" maxLength:"128" doc:"Id of the VM"`
	States  []string `query:"state" enum:"intent,created,in_use,remove_requested,removed,orphan,foreign,lost" doc:"One or more, separated by commas"`
	Orphans bool     `query:"orphans" doc:"Only those that no live run needs"`
}

// Snapshots reads the ledger and removes what a person decided on.
type Snapshots interface {
	// Snapshots lists, the oldest first; it gives the cursor of what follows, empty at the end.
	Snapshots(ctx context.Context, f SnapshotFilter, p Page) ([]Snapshot, string, error)
	// Snapshot gives one, or ErrUnknown.
	Snapshot(ctx context.Context, id string) (Snapshot, error)
	// RemoveSnapshot asks for the removal of the snapshot with that name. ErrConflict: the journal does not agree that it
	// belongs to the run, or a run needs it.
	RemoveSnapshot(ctx context.Context, id, run string) error
}

type listSnapshots struct {
	SnapshotFilter
	Page
}

type removeSnapshot struct {
	ID  string `path:"id" maxLength:"128" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]*$"`
	Run string `query:"run" required:"true" format:"uuid" doc:"The run that made it; it must be the one of the ledger"`
}

func (s *Server) snapshotRoutes() {
	handle(s, operation{id: "snapshots:list", method: http.MethodGet, path: "/snapshots", summary: "List the snapshots of the ledger"},
		func(ctx context.Context, in *listSnapshots) (*body[List[Snapshot]], error) {
			return listed(s.b.Snapshots.Snapshots(ctx, in.SnapshotFilter, in.Page))
		})
	handle(s, operation{
		id: "snapshots:remove", method: http.MethodDelete, path: "/snapshots/{id}", summary: "Remove one snapshot", status: http.StatusAccepted,
		about: "Both the id and the run that made the snapshot have to be named. There is no way to remove several at once.",
	}, s.removeSnapshot)
}

func (s *Server) removeSnapshot(ctx context.Context, in *removeSnapshot) (*body[Snapshot], error) {
	snapshot, err := s.b.Snapshots.Snapshot(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if snapshot.RunID != in.Run {
		return nil, newProblem(http.StatusConflict, "SF1718", "the ledger says that another run made this snapshot")
	}
	err = s.change(ctx, "snapshots:remove", "snapshot "+snapshot.Name, "", func(ctx context.Context) error {
		if err := s.b.Snapshots.RemoveSnapshot(ctx, snapshot.ID, snapshot.RunID); err != nil {
			return err
		}
		snapshot, err = s.b.Snapshots.Snapshot(ctx, snapshot.ID)
		return err
	})
	return answered(snapshot, err)
}
