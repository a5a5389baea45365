package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
)

// providersPath lists the VSS providers, a key each, named by its id.
const providersPath = `SYSTEM\CurrentControlSet\Services\VSS\Providers`

// neededServices are those that a freeze goes through.
func neededServices() []string {
	return []string{"COMSysApp", "EventSystem", "MSDTC", "RpcSs", "swprv", "VSS"}
}

// runInventory prints what the agent sees; what it cannot find out is a line of its own, not a failure.
func runInventory(args []string, stdout, stderr io.Writer) int {
	set := flag.NewFlagSet("inventory", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	asJSON := set.Bool("json", false, "")
	if err := set.Parse(args); err != nil || set.NArg() > 0 {
		return say(stderr, exitUsage, usage)
	}
	if err := takeInventory(context.Background()).print(stdout, *asJSON); err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("inventory: %v\n", err))
	}
	return exitOK
}

func takeInventory(ctx context.Context) inventory {
	i := inventory{
		Version: version, UptimeSeconds: windows.DurationSinceBoot().Truncate(time.Millisecond).Seconds(),
		Services: []serviceState{}, Providers: []providerEntry{}, Volumes: []protocol.Volume{},
		Foreign: []foreign{}, Problems: []string{},
	}
	problem := func(err error) {
		if err != nil {
			i.Problems = append(i.Problems, err.Error())
		}
	}
	exe, err := executable()
	problem(err)
	o, err := guest(currentSeams(), exe)
	problem(err)
	i.ExeSHA256, i.OS, i.VMUUID, i.BootID = o.ExeSHA256, o.OS, o.VMUUID, o.BootID
	i.Token, err = ownToken()
	problem(err)
	i.Policies, err = policies()
	problem(err)
	i.Providers, err = listProviders()
	problem(err)
	problem(withServices(func(m *mgr.Mgr) error {
		var err error
		if i.Services, err = serviceStates(m, neededServices()); err != nil {
			return err
		}
		i.Foreign, err = foreignServices(m)
		return err
	}))
	for _, p := range i.Providers {
		if vendor := vendorOfProvider(p.Name); vendor != "" && !p.Ours {
			i.Foreign = append(i.Foreign, foreign{vendor, "provider", p.Name, "registered"})
		}
	}
	i.Volumes, err = listVolumes(ctx, currentSeams())
	problem(err)
	return i
}

// listProviders reads the registered VSS providers.
func listProviders() ([]providerEntry, error) {
	all := []providerEntry{}
	root, err := registry.OpenKey(registry.LOCAL_MACHINE, providersPath, registry.ENUMERATE_SUB_KEYS)
	if err != nil {
		return all, unlessAbsent(err)
	}
	ids, err := root.ReadSubKeyNames(0)
	for _, id := range ids {
		p, readErr := readProvider(id)
		err = errors.Join(err, readErr)
		all = append(all, p)
	}
	if err = errors.Join(err, root.Close()); err != nil {
		return all, fmt.Errorf("list the VSS providers: %w", err)
	}
	return all, nil
}

func readProvider(id string) (providerEntry, error) {
	p := providerEntry{ID: id}
	if g, err := com.ParseGUID(id); err == nil {
		p.Ours = g == provider.ID()
	}
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, providersPath+`\`+id, registry.QUERY_VALUE)
	if err != nil {
		return p, err
	}
	var versionErr error
	p.Name, _, err = key.GetStringValue("")
	p.Version, _, versionErr = key.GetStringValue("Version")
	kind, _, typeErr := key.GetIntegerValue("Type")
	p.Type = providerType(kind)
	return p, errors.Join(unlessAbsent(err), unlessAbsent(versionErr), unlessAbsent(typeErr), key.Close())
}

// providerType names a VSS_PROVIDER_TYPE (vss.h).
func providerType(kind uint64) string {
	names := []string{"unknown", "system", "software", "hardware", "file share"}
	if kind < uint64(len(names)) {
		return names[kind]
	}
	return names[0]
}

// serviceStates looks at services by name; one that is not there is "absent".
func serviceStates(m *mgr.Mgr, names []string) ([]serviceState, error) {
	var rows []serviceState
	for _, name := range names {
		row, err := readState(m, name)
		if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
			row, err = serviceState{name, "absent", "absent"}, nil
		}
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func readState(m *mgr.Mgr, name string) (serviceState, error) {
	s, err := m.OpenService(name)
	if err != nil {
		return serviceState{}, serviceError("open", name, err)
	}
	_, start, err := serviceCommand(s)
	status, statusErr := s.Query()
	if err := errors.Join(err, statusErr, s.Close()); err != nil {
		return serviceState{}, serviceError("read", name, err)
	}
	return serviceState{name, startName(start), stateName(status.State)}, nil
}

func startName(start uint32) string {
	switch start {
	case mgr.StartAutomatic:
		return "automatic"
	case mgr.StartManual:
		return "manual"
	case mgr.StartDisabled:
		return "disabled"
	}
	return "at boot"
}

func stateName(state svc.State) string {
	switch state {
	case svc.Running:
		return "running"
	case svc.Stopped:
		return "stopped"
	case svc.Paused:
		return "paused"
	default:
		return "changing"
	}
}

// foreignServices finds the services of other backup products.
func foreignServices(m *mgr.Mgr) ([]foreign, error) {
	names, err := m.ListServices()
	if err != nil {
		return nil, serviceError("list", "*", err)
	}
	found := []foreign{}
	for _, name := range names {
		vendor := vendorOfService(name)
		if vendor == "" {
			continue
		}
		row, err := readState(m, name)
		if err != nil {
			return found, err
		}
		found = append(found, foreign{vendor, "service", name, row.State})
	}
	return found, nil
}
