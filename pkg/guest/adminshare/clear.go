package adminshare

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/stillframe/stillframe/pkg/guest"
)

// Clear takes away what a dead orchestrator left in the guest: it ends the agents of the folder dir, and when one may have
// been started has the agent thaw whatever is still held, then removes the folder. The folder stays when the thaw failed,
// because the next try needs the agent. A dir that is none of ours is refused.
func (a *Access) Clear(ctx context.Context, dir, exe string, started bool) error {
	r := guest.Remote{Deployment: base(dir), Dir: dir, Exe: dir + `\` + exe, Started: started}
	if id, err := hex.DecodeString(r.Deployment); err != nil || len(id) != 16 || dir != windows+home+`\`+r.Deployment {
		return &guest.Error{SF: "SF3950", Op: "clear the guest", Err: fmt.Errorf("%q is no folder of ours", dir)}
	}
	defer a.drop(ctx)
	err := a.with(ctx, "look for "+r.Exe, func(s *session) error {
		file, err := s.admin.Open(ctx, below(r.Exe))
		if err != nil {
			return err
		}
		return file.Close()
	})
	switch {
	case err == nil && started:
		if _, err := a.Rescue(ctx, r); err != nil {
			return err
		}
	case err != nil && guest.CodeOf(err) != codeNotThere:
		return err
	}
	return a.Remove(ctx, r)
}
