package guestops

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/guest"
)

// Reuse logs on once, and reads the program back that a former deployment kept.
func (a *Access) Reuse(ctx context.Context, p guest.Payload, deployment string) (r guest.Remote, same bool, err error) {
	r = a.remote(deployment, p)
	if err := a.ops.Validate(ctx); err != nil {
		return r, false, fmt.Errorf("log on to the guest: %w", err)
	}
	back, err := a.ops.Fetch(ctx, r.Exe, p.Size+1)
	if ctx.Err() != nil {
		return r, false, fmt.Errorf("read the agent back that was kept in %s: %w", r.Exe, errors.Join(err, context.Cause(ctx)))
	}
	if err != nil || sha256.Sum256(back) != p.SHA256 {
		return r, false, nil
	}
	if err := a.intend(ctx, guest.StagePush, r); err != nil {
		return r, false, err
	}
	// Without the mark, what a crash of this run leaves is a leftover. One that cannot be taken away, because somebody reads it, is
	// no harm.
	if err := a.remove(ctx, a.home.join(r.Dir, guest.KeptFile), false); err != nil && ctx.Err() != nil {
		return r, true, err
	}
	return r, true, nil
}

// keep removes all of a folder but the program, and marks it. names are what is there.
func (a *Access) keep(ctx context.Context, dir string, names []string) (err error) {
	for _, name := range names {
		if name != a.home.exe && name != guest.KeptFile {
			err = errors.Join(err, a.remove(ctx, a.home.join(dir, name), false))
		}
	}
	if err != nil || slices.Contains(names, guest.KeptFile) {
		return err
	}
	path := a.home.join(dir, guest.KeptFile)
	if err := a.ops.Upload(ctx, path, int64(len(guest.KeptText)), strings.NewReader(guest.KeptText)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
