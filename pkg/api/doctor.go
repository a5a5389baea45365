package api

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// doctorLimit is how long an examination may take: it dials vCenter, host and guest.
const doctorLimit = 2 * time.Minute

// Check is one row of the doctor's table.
type Check struct {
	ID       string   `json:"id"`
	Title    string   `json:"title"`
	Status   string   `json:"status" enum:"ok,warn,fail,unknown"`
	Evidence []string `json:"evidence" nullable:"false"`
	Remedy   []string `json:"remedy" nullable:"false"`
	Code     string   `json:"code"`
}

// Examination is what the doctor found.
type Examination struct {
	VMID   string  `json:"vm_id" doc:"Empty when the installation was examined"`
	Checks []Check `json:"checks" nullable:"false"`
}

// Doctor examines without changing anything.
type Doctor interface {
	// Examine looks at one VM, or with an empty id at the installation. An empty road is the one that a run would take.
	Examine(ctx context.Context, vmID, road string) ([]Check, error)
}

type examine struct {
	VM   string `query:"vm" maxLength:"512" doc:"Id, inventory path, moref, instance UUID or name; without it the installation is examined"`
	Road string `query:"road" enum:"auto,persistent,adminshare,guestops"`
}

func (s *Server) doctorRoutes() {
	handle(s, operation{id: "doctor:examine", method: http.MethodGet, path: "/doctor", summary: "What keeps a VM, or all, from a consistent snapshot", limit: doctorLimit}, s.examine)
}

func (s *Server) examine(ctx context.Context, in *examine) (*body[Examination], error) {
	extend(ctx, doctorLimit+answerLimit)
	found := Examination{}
	if in.VM != "" {
		vm, err := s.b.VMs.VM(ctx, in.VM)
		if errors.Is(err, ErrUnknown) {
			return nil, invalid(Fault{"query.vm", "there is no such VM, or there are several by that name"})
		}
		if err != nil {
			return nil, err
		}
		found.VMID = vm.ID
	}
	checks, err := s.b.Doctor.Examine(ctx, found.VMID, in.Road)
	for i := range checks {
		checks[i].Evidence, checks[i].Remedy = orEmpty(checks[i].Evidence), orEmpty(checks[i].Remedy)
	}
	found.Checks = orEmpty(checks)
	return answered(found, err)
}
