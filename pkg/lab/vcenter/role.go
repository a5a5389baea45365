package vcenter

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// needs gives the privilege that each method asks for on its VM; others are free.
func needs() map[string]string {
	return map[string]string{
		"CreateSnapshotEx_Task": "VirtualMachine.State.CreateSnapshot", "CreateSnapshot_Task": "VirtualMachine.State.CreateSnapshot",
		"RemoveSnapshot_Task": "VirtualMachine.State.RemoveSnapshot", "RemoveAllSnapshots_Task": "VirtualMachine.State.RemoveSnapshot",
		"ConsolidateVMDisks_Task":         "VirtualMachine.State.RemoveSnapshot",
		"ValidateCredentialsInGuest":      "VirtualMachine.GuestOperations.Query",
		"ListProcessesInGuest":            "VirtualMachine.GuestOperations.Query",
		"ListFilesInGuest":                "VirtualMachine.GuestOperations.Query",
		"InitiateFileTransferFromGuest":   "VirtualMachine.GuestOperations.Query",
		"InitiateFileTransferToGuest":     "VirtualMachine.GuestOperations.Modify",
		"MakeDirectoryInGuest":            "VirtualMachine.GuestOperations.Modify",
		"CreateTemporaryDirectoryInGuest": "VirtualMachine.GuestOperations.Modify",
		"DeleteFileInGuest":               "VirtualMachine.GuestOperations.Modify",
		"DeleteDirectoryInGuest":          "VirtualMachine.GuestOperations.Modify",
		"StartProgramInGuest":             "VirtualMachine.GuestOperations.Execute",
		"TerminateProcessInGuest":         "VirtualMachine.GuestOperations.Execute",
	}
}

// lacks says whether the role of the one account lacks a privilege on an object: everywhere, or on that VM.
func (s *Server) lacks(ref types.ManagedObjectReference, privilege string) bool {
	if slices.Contains(s.missing, privilege) {
		return true
	}
	m := s.machine(ref)
	return m != nil && slices.Contains(m.spec.Missing, privilege)
}

// authorize answers what the role forbids, and what asks about the role; false when the call is neither. A request
// without a session is left to the simulator.
func (s *Server) authorize(r *http.Request, m *simulator.Method, vm *machine) (answer, bool) {
	var a answer
	switch req := m.Body.(type) {
	case *types.HasPrivilegeOnEntities:
		a = s.hasPrivilege(*req)
	case *types.FetchUserPrivilegeOnEntities:
		a = s.fetchPrivilege(*req)
	default:
		privilege := needs()[m.Name]
		if privilege == "" || vm == nil || !s.lacks(vm.ref, privilege) {
			return answer{}, false
		}
		a = faultAnswer(&types.NoPermission{Object: &vm.ref, PrivilegeId: privilege})
	}
	if _, ok := s.authenticated(r); !ok {
		return answer{}, false
	}
	return a, true
}

func (s *Server) hasPrivilege(req types.HasPrivilegeOnEntities) answer {
	res := &types.HasPrivilegeOnEntitiesResponse{}
	for _, entity := range req.Entity {
		p := types.EntityPrivilege{Entity: entity}
		for _, id := range req.PrivId {
			p.PrivAvailability = append(p.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: !s.lacks(entity, id)})
		}
		res.Returnval = append(res.Returnval, p)
	}
	return resultAnswer("HasPrivilegeOnEntities", res)
}

func (s *Server) fetchPrivilege(req types.FetchUserPrivilegeOnEntities) answer {
	manager := s.registry().Get(*s.model.ServiceContent.AuthorizationManager).(*simulator.AuthorizationManager)
	all := object.AuthorizationRoleList(manager.RoleList).ByName("Admin").Privilege
	res := &types.FetchUserPrivilegeOnEntitiesResponse{}
	for _, entity := range req.Entities {
		held := slices.DeleteFunc(slices.Clone(all), func(id string) bool { return s.lacks(entity, id) })
		res.Returnval = append(res.Returnval, types.UserPrivilegeResult{Entity: entity, Privileges: held})
	}
	return resultAnswer("FetchUserPrivilegeOnEntities", res)
}

// resultAnswer is the answer of a method. It panics on a result that cannot be encoded, which is a bug of ours.
func resultAnswer(method string, result any) answer {
	var text bytes.Buffer
	start := xml.StartElement{
		Name: xml.Name{Local: method + "Response"}, Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: "urn:" + vim25.Namespace}},
	}
	if err := xml.NewEncoder(&text).EncodeElement(result, start); err != nil {
		panic(fmt.Sprintf("encode %T: %v", result, err))
	}
	return xmlAnswer(http.StatusOK, text.String())
}
