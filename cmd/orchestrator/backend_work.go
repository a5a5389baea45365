package main

import (
	"context"

	"github.com/stillframe/stillframe/pkg/api"
)

// StartRun makes one run by hand.
func (b backends) StartRun(ctx context.Context, s api.Start) error {
	return translated(b.daemon.Order(ctx, s))
}

// CancelRun asks for the end of a run, on whatever node it is. Its owner hears of it within 3 s.
func (b backends) CancelRun(ctx context.Context, id string) error {
	return translated(b.catalog.Cancel(ctx, id))
}

// Windows are the freeze windows that are open now.
func (b backends) Windows(ctx context.Context) ([]api.Window, error) { return b.daemon.Windows(ctx) }
