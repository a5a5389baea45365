package guests

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// authManager is the GuestAuthManager.
type authManager struct {
	mo.GuestAuthManager
	unlocked
	all *Managers
}

// ValidateCredentialsInGuest checks a user and password.
func (a *authManager) ValidateCredentialsInGuest(ctx *simulator.Context, req *types.ValidateCredentialsInGuest) soap.HasFault {
	if _, _, fault := a.all.admit(ctx, req.Vm, req.Auth); fault != nil {
		return &methods.ValidateCredentialsInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.ValidateCredentialsInGuestBody{Res: &types.ValidateCredentialsInGuestResponse{}}
}

// logOn checks and counts the credentials, and returns the user's name.
func (g *machine) logOn(auth types.BaseGuestAuthentication) (string, types.BaseMethodFault) {
	given, ok := auth.(*types.NamePasswordAuthentication)
	if !ok {
		return "", &types.OperationNotSupportedByGuest{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if password, known := g.Users[given.Username]; !known || password != given.Password {
		g.logons.Refused++
		return "", &types.InvalidGuestLogin{}
	}
	g.logons.Good++
	return given.Username, nil
}
