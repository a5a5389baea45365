package adminshare

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/adminshare/svcctl"
)

// Step is one thing that the road rests on.
type Step string

// The steps, in the order in which they are met.
const (
	StepPort     Step = "share_port"
	StepLogon    Step = "share_logon"
	StepAdmin    Step = "share_admin"
	StepRoom     Step = "share_room"
	StepServices Step = "service_manager"
	StepWinRM    Step = "winrm"
)

// Seen is what was seen at a step.
type Seen struct {
	Step Step
	// Err is what speaks against it. Skipped is true when it was not looked at, because of what was seen before.
	Err     error
	Skipped bool
	// Evidence is what speaks for it.
	Evidence string
}

// room is what an agent needs in the guest, in bytes, with enough for its small files.
const room = 32 << 20

// Examine looks at each step without changing anything in the guest. One logon is made by SMB and, unless that was refused, one
// by WinRM.
func (a *Access) Examine(ctx context.Context) []Seen {
	defer a.drop(ctx)
	var seen []Seen
	plain, host, err := dial(ctx, a.o)
	if err == nil {
		err = plain.Close()
	}
	seen = append(seen, Seen{Step: StepPort, Err: err, Evidence: host})
	if err != nil {
		return skip(seen, StepLogon, StepAdmin, StepRoom, StepServices, StepWinRM)
	}
	s, err := a.session(ctx)
	var mount *mountError
	if refused := errors.As(err, &mount); err != nil && !refused {
		seen = skip(append(seen, Seen{Step: StepLogon, Err: err}), StepAdmin, StepRoom, StepServices)
		if guest.ClassOf(guest.CodeOf(err)) == guest.ClassAuth { // one more would be one too many
			return skip(seen, StepWinRM)
		}
		return append(seen, a.examineWinRM(ctx))
	} else if refused {
		seen = append(seen, Seen{Step: StepLogon, Evidence: a.o.Account.User}, Seen{Step: StepAdmin, Err: err})
		return append(skip(seen, StepRoom, StepServices), a.examineWinRM(ctx))
	}
	protection := "signed"
	if s.conn.agreed().encrypts {
		protection = "encrypted"
	}
	seen = append(seen, Seen{Step: StepLogon, Evidence: fmt.Sprintf("%s, dialect %#04x, %s, by the library %s", a.o.Account.User, s.conn.agreed().dialect, protection, s.library)},
		Seen{Step: StepAdmin, Evidence: adminShare})
	free, err := s.admin.Room(ctx, home)
	if errors.Is(err, fs.ErrNotExist) { // no agent has been here yet
		free, err = s.admin.Room(ctx, ".")
	}
	if err == nil && free < room {
		err = &guest.Error{SF: "SF3306", Op: "look for room in " + adminShare, Err: fmt.Errorf("%d MiB are free, an agent needs %d", free>>20, room>>20)}
	}
	seen = append(seen, Seen{Step: StepRoom, Err: explain(atFile, "look for room in "+adminShare, s.conn.agreed(), err), Evidence: fmt.Sprintf("%d MiB free", free>>20)})
	manager := &services{a}
	err = manager.manage(ctx, func(*svcctl.Manager) error { return nil })
	seen = append(seen, Seen{Step: StepServices, Err: err, Evidence: "it lets the account make services"})
	return append(seen, a.examineWinRM(ctx))
}

// High integrity and more, by the SIDs of labels (winnt.h, SECURITY_MANDATORY_*_RID): what a token has that UAC did not filter.
const (
	highLabel   = "S-1-16-12288"
	systemLabel = "S-1-16-16384"
	mediumLabel = "S-1-16-8192"
)

// examineWinRM logs on, has a harmless command run, and looks at the token it ran with.
func (a *Access) examineWinRM(ctx context.Context) Seen {
	c := &commands{Access: a, instead: services{a}}
	out, _, err := c.run(ctx, "whoami.exe", "/groups")
	text := string(out.Stdout)
	switch {
	case err != nil:
		return Seen{Step: StepWinRM, Err: err}
	case strings.Contains(text, mediumLabel) && !strings.Contains(text, highLabel):
		return Seen{Step: StepWinRM, Err: &guest.Error{SF: "SF3103", Op: "look at the token of " + a.o.Account.User, Err: errors.New("its integrity is medium: UAC has filtered it")}}
	case strings.Contains(text, highLabel) || strings.Contains(text, systemLabel):
		return Seen{Step: StepWinRM, Evidence: "the token has high integrity: UAC does not filter it"}
	}
	return Seen{Step: StepWinRM, Evidence: fmt.Sprintf("port %d; the token's integrity could not be read", c.o.WinRM.Port())}
}

func skip(seen []Seen, steps ...Step) []Seen {
	for _, s := range steps {
		seen = append(seen, Seen{Step: s, Skipped: true})
	}
	return seen
}
