package guests

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// locateWindows is the path below drive C: as os.Root wants it. Names are compared without regard to case where the exact
// one is not there, as Windows does.
func locateWindows(root *os.Root, guestPath string) (string, types.BaseMethodFault) {
	refused := &types.InvalidArgument{InvalidProperty: "path"}
	rest, found := strings.CutPrefix(strings.ReplaceAll(guestPath, "/", `\`), `C:\`)
	if !found || strings.ContainsAny(rest, "\x00:*?\"<>|") {
		return "", refused
	}
	at := "."
	for name := range strings.SplitSeq(rest, `\`) {
		switch name {
		case "", ".":
			continue
		case "..":
			return "", refused
		}
		at = path.Join(at, spelled(root, at, name))
	}
	return at, nil
}

// spelled is the name as the folder has it.
func spelled(root *os.Root, folder, name string) string {
	if _, err := root.Lstat(path.Join(folder, name)); err == nil {
		return name
	}
	entries, err := fs.ReadDir(root.FS(), folder)
	if err != nil {
		return name
	}
	if i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return strings.EqualFold(e.Name(), name) }); i >= 0 {
		return entries[i].Name()
	}
	return name
}

// startWindows starts a program by the guest's tools.
func (p *processManager) startWindows(guest *machine, user string, spec *types.GuestProgramSpec) (int64, types.BaseMethodFault) {
	at, fault := guest.locate(spec.ProgramPath)
	if fault != nil {
		return 0, fault
	}
	if info, err := guest.root.Stat(at); err != nil || info.IsDir() {
		return 0, &types.FileNotFound{FileFault: types.FileFault{File: spec.ProgramPath}}
	}
	if len(spec.EnvVariables) > 0 { // its tools hand on what they have themselves
		return 0, &types.OperationNotSupportedByGuest{}
	}
	folder := spec.WorkingDirectory
	if folder == "" {
		folder = `C:\`
	}
	environment, log := guest.environment(), "NUL"
	guest.mu.Lock()
	defer guest.mu.Unlock()
	if guest.Logs != "" {
		log = `\\?\unix` + strings.ReplaceAll(filepath.Join(guest.Logs, guest.logName()), "/", `\`)
	}
	line := strings.TrimSpace(`"` + spec.ProgramPath + `" ` + spec.Arguments)
	pid, boot, err := guest.Windows.tools.run(environment, folder, line, log)
	if err != nil {
		return 0, guestFault(err)
	}
	guest.programs = append(guest.programs, windowsProgram{
		pid: pid, boot: boot, start: time.Now(), path: spec.ProgramPath, args: spec.Arguments, user: user,
	})
	return pid, nil
}

// windowsProgram is what guest operations started in a Windows guest. pid is the guest's, in one life of it.
type windowsProgram struct {
	pid              int64
	boot             int
	path, args, user string
	start, end       time.Time
}

// listWindows lists every process of the guest. Those that guest operations started stay listed after their end.
func (g *machine) listWindows(pids []int64) ([]types.GuestProcessInfo, error) {
	all, boot, err := g.Windows.tools.list(g.environment())
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []types.GuestProcessInfo
	for _, p := range all {
		if len(pids) > 0 && !slices.Contains(pids, p.pid) {
			continue
		}
		info := types.GuestProcessInfo{Name: windowsBase(p.program), Pid: p.pid, Owner: "SYSTEM", CmdLine: p.program}
		i := slices.IndexFunc(g.programs, func(one windowsProgram) bool { return one.pid == p.pid && one.boot == boot })
		if i >= 0 {
			one := &g.programs[i]
			if p.ended && one.end.IsZero() {
				one.end = time.Now()
			}
			info.Name, info.Owner, info.StartTime = windowsBase(one.path), one.user, one.start
			info.CmdLine = strings.TrimSpace(`"` + one.path + `" ` + one.args)
			if !one.end.IsZero() {
				end := one.end
				info.EndTime, info.ExitCode = &end, p.code
			}
		}
		list = append(list, info)
	}
	return list, nil
}

// endWindows is false when no such process lives.
func (g *machine) endWindows(pid int64) (bool, error) {
	err := g.Windows.tools.end(g.environment(), pid)
	var refused *toolsError
	if errors.As(err, &refused) {
		return false, nil
	}
	return err == nil, err
}

func windowsBase(path string) string { return path[strings.LastIndex(path, `\`)+1:] }
