package guests

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"syscall"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// listPage is how many files ListFilesInGuest returns when the client does not say (ListFilesInGuest.maxResults).
const listPage = 50

// tempTries bounds the search for a free temporary name.
const tempTries = 100

// fileManager is the GuestFileManager.
type fileManager struct {
	mo.GuestFileManager
	unlocked
	all *Managers
}

// enter admits the caller and brings the path below the root.
func (f *fileManager) enter(ctx *simulator.Context, vm types.ManagedObjectReference, auth types.BaseGuestAuthentication,
	guestPath string,
) (*machine, string, types.BaseMethodFault) {
	guest, _, fault := f.all.admit(ctx, vm, auth)
	if fault != nil {
		return nil, "", fault
	}
	at, fault := guest.locate(guestPath)
	return guest, at, fault
}

// MakeDirectoryInGuest makes a folder with mode 0755; one that exists is FileAlreadyExists, unless parents are asked for.
func (f *fileManager) MakeDirectoryInGuest(ctx *simulator.Context, req *types.MakeDirectoryInGuest) soap.HasFault {
	guest, at, fault := f.enter(ctx, req.Vm, req.Auth, req.DirectoryPath)
	if fault == nil {
		makeDir := guest.root.Mkdir
		if req.CreateParentDirectories {
			makeDir = guest.root.MkdirAll
		}
		fault = fileFault(makeDir(at, 0o755), req.DirectoryPath)
	}
	if fault != nil {
		return &methods.MakeDirectoryInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.MakeDirectoryInGuestBody{Res: &types.MakeDirectoryInGuestResponse{}}
}

// CreateTemporaryDirectoryInGuest makes a folder with mode 0700 and a name that was free.
func (f *fileManager) CreateTemporaryDirectoryInGuest(ctx *simulator.Context, req *types.CreateTemporaryDirectoryInGuest,
) soap.HasFault {
	dir := req.DirectoryPath
	if dir == "" {
		dir = f.temporary(ctx, req.Vm, "/tmp")
	}
	guest, at, fault := f.enter(ctx, req.Vm, req.Auth, dir)
	name := ""
	for i := 0; fault == nil; i++ {
		name = req.Prefix + newToken()[:8] + req.Suffix
		err := guest.root.Mkdir(path.Join(at, name), 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || i == tempTries {
			fault = fileFault(err, dir)
		}
	}
	if fault != nil {
		return &methods.CreateTemporaryDirectoryInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.CreateTemporaryDirectoryInGuestBody{
		Res: &types.CreateTemporaryDirectoryInGuestResponse{Returnval: guest.join(dir, name)},
	}
}

// temporary is the folder of temporary files when the client names none.
func (f *fileManager) temporary(ctx *simulator.Context, ref types.ManagedObjectReference, linux string) string {
	vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return linux
	}
	var instance, name string
	ctx.WithLock(vm, func() { instance, name = vm.Config.InstanceUuid, vm.Name })
	if guest := f.all.find(instance, name); guest == nil || guest.Windows == nil {
		return linux
	}
	return `C:\windows\temp`
}

// DeleteFileInGuest removes a file; a folder is NotAFile.
func (f *fileManager) DeleteFileInGuest(ctx *simulator.Context, req *types.DeleteFileInGuest) soap.HasFault {
	guest, at, fault := f.enter(ctx, req.Vm, req.Auth, req.FilePath)
	if fault == nil {
		info, err := guest.root.Lstat(at)
		switch {
		case err != nil:
			fault = fileFault(err, req.FilePath)
		case info.IsDir():
			fault = &types.NotAFile{FileFault: types.FileFault{File: req.FilePath}}
		default:
			fault = fileFault(guest.root.Remove(at), req.FilePath)
		}
	}
	if fault != nil {
		return &methods.DeleteFileInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.DeleteFileInGuestBody{Res: &types.DeleteFileInGuestResponse{}}
}

// DeleteDirectoryInGuest removes a folder, with what it holds when asked; a file is NotADirectory.
func (f *fileManager) DeleteDirectoryInGuest(ctx *simulator.Context, req *types.DeleteDirectoryInGuest) soap.HasFault {
	guest, at, fault := f.enter(ctx, req.Vm, req.Auth, req.DirectoryPath)
	if fault == nil {
		info, err := guest.root.Lstat(at)
		switch {
		case err != nil:
			fault = fileFault(err, req.DirectoryPath)
		case !info.IsDir():
			fault = &types.NotADirectory{FileFault: types.FileFault{File: req.DirectoryPath}}
		case req.Recursive:
			fault = fileFault(guest.root.RemoveAll(at), req.DirectoryPath)
		default:
			fault = fileFault(guest.root.Remove(at), req.DirectoryPath)
		}
	}
	if fault != nil {
		return &methods.DeleteDirectoryInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.DeleteDirectoryInGuestBody{Res: &types.DeleteDirectoryInGuestResponse{}}
}

// ListFilesInGuest lists a folder by base names, with . and .. as Tools do (unverified), or one file.
func (f *fileManager) ListFilesInGuest(ctx *simulator.Context, req *types.ListFilesInGuest) soap.HasFault {
	guest, at, fault := f.enter(ctx, req.Vm, req.Auth, req.FilePath)
	var list types.GuestListFileInfo
	if fault == nil {
		list, fault = guest.list(at, req)
	}
	if fault != nil {
		return &methods.ListFilesInGuestBody{Fault_: refuse(fault)}
	}
	return &methods.ListFilesInGuestBody{Res: &types.ListFilesInGuestResponse{Returnval: list}}
}

func (g *machine) list(at string, req *types.ListFilesInGuest) (types.GuestListFileInfo, types.BaseMethodFault) {
	var list types.GuestListFileInfo
	pattern, err := regexp.Compile(req.MatchPattern)
	if err != nil || req.Index < 0 || req.MaxResults < 0 {
		return list, &types.InvalidArgument{InvalidProperty: "matchPattern, index or maxResults"}
	}
	info, err := g.root.Lstat(at)
	if err != nil {
		return list, fileFault(err, req.FilePath)
	}
	files := []types.GuestFileInfo{}
	add := func(name string, info fs.FileInfo) {
		if pattern.MatchString(name) {
			files = append(files, g.fileInfo(name, info))
		}
	}
	if !info.IsDir() {
		add(path.Base(at), info)
	} else {
		entries, err := fs.ReadDir(g.root.FS(), at)
		if err != nil {
			return list, fileFault(err, req.FilePath)
		}
		add(".", info)
		add("..", info)
		for _, entry := range entries {
			if info, err := entry.Info(); err == nil { // one that has gone meanwhile is not listed
				add(entry.Name(), info)
			}
		}
	}
	limit := int(req.MaxResults)
	if limit == 0 {
		limit = listPage
	}
	files = files[min(int(req.Index), len(files)):]
	list.Files = files[:min(limit, len(files))]
	list.Remaining = int32(len(files) - len(list.Files))
	return list, nil
}

// fileInfo is a file as guest operations tell it.
func (g *machine) fileInfo(name string, info fs.FileInfo) types.GuestFileInfo {
	kind := types.GuestFileTypeFile
	switch {
	case info.IsDir():
		kind = types.GuestFileTypeDirectory
	case info.Mode()&fs.ModeSymlink != 0:
		kind = types.GuestFileTypeSymlink
	}
	return types.GuestFileInfo{Path: name, Type: string(kind), Size: info.Size(), Attributes: g.attributes(info)}
}

func (g *machine) attributes(info fs.FileInfo) types.BaseGuestFileAttributes {
	modified := info.ModTime()
	if g.Windows != nil {
		return &types.GuestWindowsFileAttributes{GuestFileAttributes: types.GuestFileAttributes{ModificationTime: &modified}}
	}
	a := &types.GuestPosixFileAttributes{Permissions: int64(info.Mode().Perm())}
	a.ModificationTime = &modified
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		owner, group := int32(stat.Uid), int32(stat.Gid)
		a.OwnerId, a.GroupId = &owner, &group
	}
	return a
}

// fileFault turns an error of the file system to vSphere's fault; nil for nil. A path that leaves the root by a symbolic
// link is CannotAccessFile.
func fileFault(err error, guestPath string) types.BaseMethodFault {
	file := types.FileFault{File: guestPath}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY):
		return &types.FileAlreadyExists{FileFault: file}
	case errors.Is(err, fs.ErrNotExist):
		return &types.FileNotFound{FileFault: file}
	case errors.Is(err, syscall.ENOTEMPTY):
		return &types.DirectoryNotEmpty{FileFault: file}
	case errors.Is(err, syscall.ENOTDIR):
		return &types.NotADirectory{FileFault: file}
	case errors.Is(err, fs.ErrPermission):
		return &types.GuestPermissionDenied{}
	}
	return &types.CannotAccessFile{FileFault: file}
}
