package daemon

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// pruneEvery is how often old runs are looked for.
const pruneEvery = time.Hour

// prune forgets the runs that ended longer ago than the daemon was told to keep them, at its start and then every hour, until ctx
// ends; with no time given it forgets nothing. That each of several nodes does so harms nobody: what one has removed the others do not find.
func (d *Daemon) prune(ctx context.Context) {
	keep := d.Options.Config.Store.KeepRuns.Duration
	if keep <= 0 {
		return
	}
	ticker := time.NewTicker(pruneEvery)
	defer ticker.Stop()
	for {
		n, err := d.Catalog.Prune(ctx, d.Now().Add(-keep))
		if n > 0 {
			d.Log.Info("old runs were forgotten", zap.Int64("runs", n), zap.Duration("kept_for", keep))
		}
		if err != nil && ctx.Err() == nil {
			d.Log.Error("forget old runs", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
