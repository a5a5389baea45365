package guests

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// temporaryFolder is where temporary files are made when the client names no folder. A real guest has /tmp; here it lies
// below HomePrefix, so that a program whose arguments name the file finds the same one.
const temporaryFolder = HomePrefix + "/tmp"

// CreateTemporaryFileInGuest makes an empty file with mode 0600 and a name that was free. Stock govc needs it for the
// output of guest.run.
func (f *fileManager) CreateTemporaryFileInGuest(ctx *simulator.Context, req *types.CreateTemporaryFileInGuest) soap.HasFault {
	dir := req.DirectoryPath
	if dir == "" {
		dir = f.temporary(ctx, req.Vm, temporaryFolder)
	}
	guest, at, fault := f.enter(ctx, req.Vm, req.Auth, dir)
	if fault == nil && req.DirectoryPath == "" {
		fault = fileFault(guest.root.MkdirAll(at, 0o700), dir)
	}
	name := ""
	for i := 0; fault == nil; i++ {
		name = req.Prefix + newToken()[:8] + req.Suffix
		made, err := guest.root.OpenFile(path.Join(at, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			fault = fileFault(made.Close(), dir)
			break
		}
		if !errors.Is(err, fs.ErrExist) || i == tempTries {
			fault = fileFault(err, dir)
		}
	}
	if fault != nil {
		return &methods.CreateTemporaryFileInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.CreateTemporaryFileInGuestBody{Res: &types.CreateTemporaryFileInGuestResponse{Returnval: guest.join(dir, name)}}
}
