package guests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The agent's fixed names (docs/windows-agent.md).
const (
	ourService     = "Stillframe-"
	ourProvider    = "{1ff4bafb-1cad-4364-8592-221443e14ef6}"
	ourClass       = "{c9bbb1b2-2fae-46ce-ad73-ba48df4715d1}"
	ourApplication = "{8ec46b07-939b-40bb-a8be-2fc312d402b7}"
)

// Where Windows keeps them.
const (
	servicesKey  = `HKLM\SYSTEM\CurrentControlSet\Services`
	providersKey = servicesKey + `\VSS\Providers`
	classesKey   = `HKLM\SOFTWARE\Classes\`
)

// asyncFinished is VSS_S_ASYNC_FINISHED.
const asyncFinished = 0x4230a

// otherLimit bounds the backup of another product.
const otherLimit = 30 * time.Second

// VSSSession is what one requestor did with one session in VSS, by the fakes' trace.
type VSSSession struct {
	PID int `json:"pid"`
	// Completed and Aborted count the BackupCompletes that finished and the AbortBackups that were answered well.
	Completed int `json:"completed"`
	Aborted   int `json:"aborted"`
}

// Look is what is in the guest of an agent, and what became of the sessions in VSS.
type Look struct {
	// Registered are the keys of agents that the registry has: services, VSS provider, COM class and its AppID.
	Registered []string `json:"registered"`
	// Rules are the rules of agents that the guest's firewall has (testing/cpp/netsh.cpp).
	Rules []string `json:"rules"`
	// Sessions are those of all requestors, the oldest first. Of those that VSS opened Closed were ended properly and Leaked
	// were left to it; the others are open, or their VSS has died.
	Sessions []VSSSession `json:"sessions"`
	Opened   int          `json:"opened"`
	Closed   int          `json:"closed"`
	Leaked   int          `json:"leaked"`
	// Served are the providers that got a volume into a set, and Asked counts the times our provider was asked whether it
	// supports one.
	Served []string `json:"served"`
	Asked  int      `json:"asked"`
}

// Look reads the registry and the trace.
func (g *Wine) Look(ctx context.Context) (Look, error) {
	l := Look{Registered: []string{}, Rules: []string{}, Sessions: []VSSSession{}, Served: []string{}}
	for _, key := range []string{servicesKey, providersKey, classesKey + "CLSID", classesKey + "AppID"} {
		if err := g.registered(ctx, &l, key); err != nil {
			return l, err
		}
	}
	rules, err := g.prefix.FirewallRules()
	if err != nil {
		return l, err
	}
	for _, rule := range rules {
		if strings.HasPrefix(rule, "name="+ourService) {
			l.Rules = append(l.Rules, rule)
		}
	}
	trace, err := g.prefix.Trace()
	if err != nil {
		return l, err
	}
	for _, line := range trace {
		switch {
		case line.Who == "session":
			l.count(line.What)
		case line.Kind == "mark" && line.Who == "coordinator" && line.What == "volume":
			l.Served = append(l.Served, line.Fields["provider"])
		case line.Kind == "mark" && line.Who == "provider" && line.What == "supports" && "{"+line.Fields["provider"]+"}" == ourProvider:
			l.Asked++
		case line.Who == "requestor":
			l.requested(line.PID, line.Kind, line.What, line.HR)
		}
	}
	return l, nil
}

func (l *Look) count(what string) {
	switch what {
	case "opened":
		l.Opened++
	case "closed":
		l.Closed++
	case "leaked":
		l.Leaked++
	}
}

// requested counts what a requestor did in its last session.
func (l *Look) requested(pid int, kind, what string, hr uint32) {
	if kind == "end" && what == "InitializeForBackup" && hr == 0 {
		l.Sessions = append(l.Sessions, VSSSession{PID: pid})
		return
	}
	for i, s := range slices.Backward(l.Sessions) {
		if s.PID != pid {
			continue
		}
		switch {
		case kind == "end" && what == "AbortBackup" && hr == 0:
			l.Sessions[i].Aborted++
		case kind == "mark" && what == "BackupComplete result" && hr == asyncFinished:
			l.Sessions[i].Completed++
		}
		return
	}
}

// registered adds what of an agent's lies right below a key; one that is not there has nothing.
func (g *Wine) registered(ctx context.Context, l *Look, key string) error {
	text, err := g.prefix.Run(ctx, "reg.exe", "query", key)
	if err != nil && !strings.Contains(text, "Unable to find the specified registry key") {
		return err
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name := line[strings.LastIndex(line, `\`)+1:]
		if !strings.HasPrefix(line, "HKEY_") {
			continue // a value
		}
		if strings.HasPrefix(name, ourService) || slices.ContainsFunc([]string{ourProvider, ourClass, ourApplication}, func(id string) bool { return strings.EqualFold(id, name) }) {
			l.Registered = append(l.Registered, line)
		}
	}
	return nil
}

// StopService has the service control manager stop a service.
func (g *Wine) StopService(ctx context.Context, name string) error {
	_, err := g.prefix.Run(ctx, "sc.exe", "stop", name)
	return err
}

// OtherBackup lets another product ask for a shadow copy of C:, without any of the faults that the guest's VSS is to have. It
// is told that a set is being made, or gets a provider that supports the volume.
func (g *Wine) OtherBackup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, otherLimit)
	defer cancel()
	cmd := g.prefix.Command(ctx, "otherbackup.exe")
	cmd.Env = append(cmd.Env, `LAB_VSS_CONFIG=C:\lab\none`)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the other product's backup: %w", err)
	}
	return nil
}

// RegisterOld registers the provider as an agent of another version did which has gone without a word: another program, a
// service that is not there, another version of the provider.
func (g *Wine) RegisterOld(ctx context.Context) error {
	const exe, version = `C:\Windows\Stillframe\old\stillframe-agent.exe`, "{4d80892c-e1ff-4c94-842d-f0acb266c0eb}"
	provider, class, application := providersKey+`\`+ourProvider, classesKey+`CLSID\`+ourClass, classesKey+`AppID\`+ourApplication
	var errs []error
	for _, value := range [][]string{
		{provider, "/ve", "/d", "Stillframe VSS provider"},
		{provider, "/v", "Version", "/d", "0.0.1"},
		{provider, "/v", "VersionId", "/d", version},
		{provider, "/v", "Type", "/t", "REG_DWORD", "/d", "2"},
		{provider + `\CLSID`, "/ve", "/d", ourClass},
		{class, "/v", "AppID", "/d", ourApplication},
		{class + `\LocalServer32`, "/ve", "/d", `"` + exe + `" com`},
		{application, "/v", "LocalService", "/d", ourService + strings.Repeat("0", 32)},
	} {
		_, err := g.prefix.Run(ctx, "reg.exe", append(append([]string{"add"}, value...), "/f")...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
