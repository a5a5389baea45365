package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

const usage = `usage: stillframe-agent COMMAND

  run --peer HEX64 --deployment ID (--port N | --dial ADDRESS:PORT | --mailbox) --ready-file PATH [--allow ADDRESS]... [--detach]
          serve one orchestrator by a service of that deployment, wait for its end, then remove it;
          --allow opens the firewall for that address alone; with --detach print what the service says of its start, and leave it running
  thaw    end the agents of this executable and remove what they left
  install --peer HEX64 [--port N] [--allow ADDRESS]...
          serve one orchestrator from now on, and from each start of Windows on; prints READY
  uninstall
          remove all that install made
  inventory [--json]
          print what the agent sees of its guest
  selftest [--mode io|writer] [--hold 1s] [--json]
          freeze this guest once without a hypervisor; status 1 when that fails, 7 when it is not fit
  version print the version

The commands service and com are started by Windows only.
`

func commands() map[string]command {
	return map[string]command{
		"run": runLauncher, "service": runService, "com": runCom, "thaw": runThaw, "inventory": runInventory, "selftest": runSelfTest,
		"install": runInstall, "uninstall": runUninstall,
	}
}

// leave ends the process without asking anybody: os.Exit waits for COM, which may not let go of the provider
// (provider.ErrStays). All that was to be cleaned up has been.
func leave(status int) {
	if err := windows.TerminateProcess(windows.CurrentProcess(), uint32(status)); err != nil {
		os.Exit(status)
	}
}

// begin is the first act of the process: from here on DLLs are loaded from System32 only. It drops what COM adds to the
// command line, and what the lab does.
func begin(args []string) ([]string, error) {
	if err := windows.SetDefaultDllDirectories(windows.LOAD_LIBRARY_SEARCH_SYSTEM32); err != nil {
		return nil, fmt.Errorf("load DLLs from System32 only: %w", err)
	}
	return takeSeams(withoutEmbedding(args))
}
