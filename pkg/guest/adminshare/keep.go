package adminshare

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/stillframe/stillframe/pkg/guest"
)

// Reuse reads the program back that a former deployment kept.
func (a *Access) Reuse(ctx context.Context, p guest.Payload, deployment string) (r guest.Remote, same bool, err error) {
	r = remote(deployment, p)
	if _, err := a.session(ctx); err != nil {
		return r, false, err
	}
	err = a.with(ctx, "look for the agent that was kept in "+r.Dir, func(s *session) error {
		sum, _, err := weigh(ctx, s.admin, below(r.Exe), p.Size)
		same = err == nil && sum == p.SHA256
		return err
	})
	if err != nil && ctx.Err() != nil {
		return r, false, err
	}
	if !same {
		return r, false, nil
	}
	if err := a.intend(ctx, guest.StagePush, r); err != nil {
		return r, false, err
	}
	// Without the mark, what a crash of this run leaves is a leftover. One that cannot be taken away, because somebody reads it, is
	// no harm.
	if err := a.remove(ctx, r.Dir+`\`+guest.KeptFile); err != nil && ctx.Err() != nil {
		return r, true, err
	}
	return r, true, nil
}

// keep removes all of a folder but the program, and marks it. names are what is there.
func (a *Access) keep(ctx context.Context, r guest.Remote, names []string) (err error) {
	for _, name := range names {
		if name != base(r.Exe) && name != guest.KeptFile {
			err = errors.Join(err, a.remove(ctx, r.Dir+`\`+name))
		}
	}
	if err != nil || slices.Contains(names, guest.KeptFile) {
		return err
	}
	path := r.Dir + `\` + guest.KeptFile
	return a.with(ctx, "write "+path, func(s *session) error {
		file, err := s.admin.Create(ctx, below(path))
		if err != nil {
			return err
		}
		_, err = io.WriteString(file, guest.KeptText)
		return errors.Join(err, file.Close())
	})
}
