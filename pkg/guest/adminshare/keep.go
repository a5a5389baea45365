package adminshare

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/stillframe/stillframe/pkg/guest"
)

// Reuse reads the program back that a former deployment kept. What is not the payload's is removed.
func (a *Access) Reuse(ctx context.Context, p guest.Payload, deployment string) (guest.Remote, bool, error) {
	r := remote(deployment, p)
	same := false
	err := a.with(ctx, "look for the agent that was kept in "+r.Dir, func(s *session) error {
		sum, _, err := weigh(ctx, s.admin, below(r.Exe), p.Size)
		same = err == nil && sum == p.SHA256
		return err
	})
	if code := guest.CodeOf(err); err != nil && code != codeNotThere && code != codeInUse {
		return guest.Remote{}, false, err
	}
	if err := a.intend(ctx, guest.StagePush, r); err != nil {
		return guest.Remote{}, false, err
	}
	if !same {
		if err := a.Remove(ctx, r); err != nil && ctx.Err() != nil { // else it is written down, for a later recovery
			return guest.Remote{}, false, err
		}
		return guest.Remote{}, false, nil
	}
	// Without the mark, what a crash of this run leaves is a leftover.
	if err := a.remove(ctx, r.Dir+`\`+guest.KeptFile); err != nil {
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
