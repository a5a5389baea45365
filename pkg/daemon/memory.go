package daemon

import (
	"context"
	"slices"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/statefile"
)

// memory is one run's memory in the catalog. A snapshot that is kept on purpose stays the run's until the run has ended, and
// is then handed to the ledger (catalog.KeepSnapshot), so that there is no instant in which nobody would remember it.
type memory struct {
	catalog.Memory
	kept *[]string // names
}

var _ backup.Memory = memory{}

func newMemory(m catalog.Memory) memory { return memory{m, &[]string{}} }

// Intend implements backup.Journal.
func (m memory) Intend(ctx context.Context, intents ...statefile.Intent) error {
	var all []statefile.Intent
	for _, i := range intents {
		if i.Kind == statefile.KeptSnapshot {
			*m.kept = append(*m.kept, i.Subject)
			continue
		}
		all = append(all, i)
	}
	return m.Memory.Intend(ctx, all...)
}

// Settle implements backup.Journal.
func (m memory) Settle(ctx context.Context, intents ...statefile.Intent) error {
	return m.Memory.Settle(ctx, slices.DeleteFunc(slices.Clone(intents), func(i statefile.Intent) bool {
		return i.Kind == statefile.Snapshot && slices.Contains(*m.kept, i.Subject)
	})...)
}

// sessions is one run's ledger of sessions with writers.
type sessions struct {
	*Daemon
	fence journal.Fence
}

// Opening implements backup.Sessions.
func (s sessions) Opening(ctx context.Context, boot, session, set string) error {
	return s.Catalog.Hear(ctx, s.fence, catalog.Heard{BootID: boot, Session: session, SetID: set, State: catalog.SessionOpen, Opened: s.Now()})
}
