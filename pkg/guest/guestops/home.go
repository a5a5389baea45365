package guestops

import (
	"strings"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// home is how pushed agents live in the guests of one system.
type home struct {
	// folder holds one folder for each pushed agent, exe is the agent's name in it.
	folder, exe string
	separator   string
	// service is true where the agent that was started hands over to a service, and registers itself in the system: then
	// its "thaw" ends every process of it, and takes away what a terminated one left registered.
	service bool
	// removals is how often the removal of a file is tried.
	removals int
}

func homeOf(system inventory.System) home {
	if system == inventory.Windows {
		// Below C:\Windows, whose ACL lets ordinary users read and execute only. Where Windows was installed in another
		// folder this one is made, by an administrator, on the drive's root (unverified: such guests were not seen).
		return home{folder: `C:\Windows\Stillframe`, separator: `\`, exe: guest.AgentName(system), service: true, removals: 20}
	}
	// On a disk, because /run is mounted noexec.
	return home{folder: "/var/lib/stillframe/agent", separator: "/", exe: guest.AgentName(system), removals: 1}
}

func (h home) join(dir, name string) string { return dir + h.separator + name }

// base is the last element of a path.
func (h home) base(path string) string { return path[strings.LastIndex(path, h.separator)+1:] }

// names are the file names of what a guest lists of a folder. The guest is not trusted: what names no file in the folder
// itself is left out.
func (h home) names(listed []string) []string {
	var names []string
	for _, path := range listed {
		name := h.base(path)
		if name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/:") {
			names = append(names, name)
		}
	}
	return names
}
