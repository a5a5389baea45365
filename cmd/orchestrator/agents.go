package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/enrolment"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// installLimit bounds the installation of an agent: a push, and two services that wait 30 s each.
const installLimit = 3 * time.Minute

func (c *cli) agentDeployCommand() *cobra.Command {
	return c.installing(&cobra.Command{
		Use: "deploy [VM]", Short: "Install an agent that stays in the guest, and enrol it",
		Long: `Puts the agent into the guest by the admin share or by guest operations, installs it there as a service that starts with
the system, and keeps what each side is known by: the fingerprints of two certificates, no password. From then on runs of this VM
need neither an account in the guest nor the admin share nor VMware Tools: only the agent's TCP port.

Other ways to install it, such as by group policy or a package, are in docs/persistent-agent.md.`,
	}, func(enrolled bool) error { return nil })
}

func (c *cli) agentUpgradeCommand() *cobra.Command {
	return c.installing(&cobra.Command{
		Use: "upgrade [VM]", Short: "Put this version's agent in the place of an installed one",
		Long: `Does what "stillframe agent deploy" does for a VM whose agent is enrolled already: the agent keeps its certificate. It goes by the admin
share or by guest operations, because an agent takes no program from its orchestrator. Upgrades are not urgent: an orchestrator speaks
with agents of its own and of the former protocol version.`,
	}, func(enrolled bool) error {
		if !enrolled {
			return invalid("no agent of this VM is enrolled: \"stillframe agent deploy\" installs one")
		}
		return nil
	})
}

// installing completes a command that installs an agent; check is asked first.
func (c *cli) installing(cmd *cobra.Command, check func(enrolled bool) error) *cobra.Command {
	var f visitFlags
	cmd.Args = oneVM
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.visit(cmd.Context(), f, args, true, func(ctx context.Context, v visit) error {
			old, enrolled, err := v.guests.book.Agent(v.vm.InstanceUUID)
			if err == nil {
				err = check(enrolled)
			}
			if err != nil {
				return err
			}
			a, attempts, err := v.install(ctx, old)
			if err != nil {
				return err
			}
			return c.enrolled(f.output, a, attempts)
		})
	}
	f.flags(cmd)
	return cmd
}

// enrolled prints an installed agent.
func (c *cli) enrolled(output string, a enrolment.Agent, attempts []backup.Attempt) error {
	if output == "json" {
		return writeJSON(c.stdout, map[string]any{"api_version": backup.APIVersion, "agent": a, "attempts": attempts})
	}
	for _, t := range attempts {
		say(c.stdout, printable(attempted(t)))
	}
	say(c.stdout, printable(fmt.Sprintf("enrolled %s: version %s, port %d, certificate %s", a.Path, a.Version, a.Port, a.Fingerprint)))
	return nil
}

// install installs the agent by the first way that goes well, speaks with it, and enrols it. What an older one of ours ran is
// removed.
func (v visit) install(ctx context.Context, old enrolment.Agent) (a enrolment.Agent, attempts []backup.Attempt, err error) {
	ctx, cancel := context.WithTimeout(ctx, installLimit)
	defer cancel()
	own, err := v.guests.book.Current(ctx, v.guests.now())
	if err != nil {
		return a, nil, err
	}
	w := v.guests.way(v.vm, ledger{v.store, v.about()})
	if err := w.recall(ctx); err != nil {
		return a, nil, err
	}
	w.enrolled = false // it is not the way to install one
	var all error
	for _, one := range w.candidates(ctx, v.guests.road) {
		way, ok := one.Access.(guest.Installer)
		if !ok {
			continue
		}
		var tried []backup.Attempt
		a, tried, err = v.installBy(ctx, way, own, old)
		if attempts = append(attempts, tried...); err == nil {
			return a, attempts, nil
		}
		all = errors.Join(all, err)
		if guest.ClassOf(guest.CodeOf(err)).Final() || ctx.Err() != nil {
			break
		}
	}
	if all == nil {
		all = &guest.Error{SF: "SF3020", Op: "install the agent", Err: errors.New("no road that is allowed can bring it into this guest")}
	}
	return a, attempts, all
}

// installBy installs by one way. When that fails the folder is removed again.
func (v visit) installBy(ctx context.Context, way guest.Installer, own enrolment.Identity, old enrolment.Agent) (enrolment.Agent, []backup.Attempt, error) {
	var attempts []backup.Attempt
	try := func(stage guest.Stage, do func() error) error {
		begin := time.Now()
		err := do()
		a := backup.Attempt{Road: string(way.Way().Road), Start: string(way.Way().Start), Stage: string(stage), OK: err == nil, Seconds: time.Since(begin).Seconds()}
		if err != nil {
			a.Code, a.Text, a.Class = guest.CodeOf(err), err.Error(), string(guest.ClassOf(guest.CodeOf(err)))
		}
		attempts = append(attempts, a)
		return err
	}
	var remote guest.Remote
	var id guest.Identity
	touched := false
	err := try(guest.StagePush, func() (err error) { remote, err = way.Put(ctx, v.payload); return err })
	if err == nil {
		touched = true
		err = try(guest.StageStart, func() (err error) {
			id, err = way.Install(ctx, remote, v.bootstrap(own.Fingerprint, v.guests.port))
			return err
		})
	}
	a := enrolment.Agent{
		VM: v.vm.InstanceUUID, Path: v.vm.Path, VCenter: v.vcenter, Fingerprint: id.Fingerprint.String(), Own: own.Fingerprint.String(), Port: id.Port,
		Exe: remote.Exe, System: string(v.payload.System), EnrolledAt: v.guests.now().UTC(),
	}
	if err == nil {
		err = try(guest.StageHello, func() error { return v.greet(ctx, &a) })
	}
	if err == nil {
		err = v.guests.book.Put(ctx, a)
	}
	if err != nil {
		if remote.Dir != "" {
			err = errors.Join(err, try(guest.StageCleanup, func() error { return v.takeBack(ctx, way, remote, touched, own, old) }))
		}
		return a, attempts, err
	}
	err = v.store.Settle(ctx, ledger{v.store, v.about()}.both(remote)...) // it is to stay
	if err == nil && old.Exe != "" && old.Exe != a.Exe {
		before := guest.Remote{Dir: folderOf(old.Exe), Exe: old.Exe}
		err = try(guest.StageCleanup, func() error { return way.Remove(context.WithoutCancel(ctx), before) })
	}
	return a, attempts, err
}

// bootstrap is what an installed agent is told.
func (v visit) bootstrap(peer protocol.Fingerprint, port uint16) guest.Bootstrap {
	b := guest.Bootstrap{Peer: peer, Port: port}
	if v.payload.System == inventory.Windows { // the others have no firewall of their own to open
		b.Allow = guest.OwnAddresses(v.guests.way(v.vm, nil).addresses)
	}
	return b
}

// takeBack removes what a failed installation left, and puts the older agent back where there was one.
func (v visit) takeBack(ctx context.Context, way guest.Installer, r guest.Remote, touched bool, own enrolment.Identity, old enrolment.Agent) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), installLimit)
	defer cancel()
	switch {
	case touched && old.Exe != "":
		if _, err := way.Install(ctx, guest.Remote{Deployment: r.Deployment, Exe: old.Exe}, v.bootstrap(own.Fingerprint, old.Port)); err != nil {
			return fmt.Errorf("put the older agent back: %w", err)
		}
	case touched:
		if err := way.Uninstall(ctx, r); err != nil {
			return err
		}
	}
	return way.Remove(ctx, r)
}

// folderOf is the folder of a program in a guest.
func folderOf(exe string) string { return exe[:max(strings.LastIndexAny(exe, `\/`), 0)] }

// greet speaks with an installed agent, and takes over what it says of itself.
func (v visit) greet(ctx context.Context, a *enrolment.Agent) error {
	w := v.guests.way(v.vm, nil)
	w.agent, w.enrolled = *a, true
	d := guest.Deployer{Ways: []guest.Candidate{{Choice: guest.Choice{Way: guest.WayPersistent}, Access: w.access(guest.WayPersistent)}}, Port: a.Port}
	deployment, err := d.Open(ctx, guest.Target{Addresses: w.addresses, VMUUID: v.vm.UUID, Run: v.run, Epoch: v.epoch})
	if err != nil {
		return errors.Join(err, deployment.Close(ctx))
	}
	a.Version, a.SeenAt = deployment.Session.Hello.AgentVersion, v.guests.now().UTC()
	return deployment.Close(ctx)
}

func (c *cli) agentStatusCommand() *cobra.Command {
	var state, output string
	cmd := &cobra.Command{
		Use: "status", Short: "List the agents that stay in guests", Args: cobra.NoArgs,
		Long: `Lists what is known of installed agents: their version, when one was spoken with last, and what is wrong with the renewal of
certificates. Nothing is contacted; "stillframe doctor --road persistent" tries one.`,
		RunE: func(*cobra.Command, []string) error {
			book, err := c.book(state)
			if err != nil {
				return err
			}
			all, err := book.Agents()
			if err != nil {
				return err
			}
			var rows [][]string
			for _, a := range all {
				behind := ""
				if a.Version != version {
					behind = "another version than this stillframe's"
				}
				rows = append(rows, []string{a.Path, a.System, a.Version, fmt.Sprint(a.Port), stamp(&a.EnrolledAt), stamp(&a.SeenAt), first(a.Trouble, behind)})
			}
			return c.printList(output, "agents", all, "VM|SYSTEM|VERSION|PORT|ENROLLED|SEEN|NOTE", rows)
		},
	}
	stateFlag(cmd, &state)
	outputFlag(cmd, &output)
	return cmd
}

func (c *cli) agentRemoveCommand() *cobra.Command {
	var f visitFlags
	var forget bool
	cmd := &cobra.Command{
		Use: "remove [VM]", Short: "Take an installed agent out of the guest", Args: oneVM,
		Long: `Uninstalls the agent by the admin share or by guest operations: its service, its registration, its certificate and its program. With
--forget nothing is contacted: the agent is only struck out here, for a guest that is gone.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if forget {
				return c.forgetAgent(cmd.Context(), f.state, args)
			}
			return c.visit(cmd.Context(), f, args, true, func(ctx context.Context, v visit) error { return c.removeAgent(ctx, v) })
		},
	}
	cmd.Flags().BoolVar(&forget, "forget", false, "only strike it out, for a guest that is gone: VM is the path or the instance UUID that \"agent status\" shows")
	f.flags(cmd)
	return cmd
}

// removeAgent uninstalls by a fresh push, because the program that serves cannot be trusted to be there.
func (c *cli) removeAgent(ctx context.Context, v visit) error {
	old, enrolled, err := v.guests.book.Agent(v.vm.InstanceUUID)
	if err != nil {
		return err
	}
	if !enrolled {
		return invalid("no agent of %s is enrolled here", v.vm.Path)
	}
	ctx, cancel := context.WithTimeout(ctx, installLimit)
	defer cancel()
	w := v.guests.way(v.vm, ledger{v.store, v.about()})
	if err := w.recall(ctx); err != nil {
		return err
	}
	w.enrolled = false
	var all error
	for _, one := range w.candidates(ctx, v.guests.road) {
		way, ok := one.Access.(guest.Installer)
		if !ok {
			continue
		}
		r, err := way.Put(ctx, v.payload)
		if err == nil {
			err = way.Uninstall(ctx, r)
		}
		if r.Dir != "" {
			err = errors.Join(err, way.Remove(context.WithoutCancel(ctx), r))
		}
		if err == nil && old.Exe != "" {
			err = way.Remove(context.WithoutCancel(ctx), guest.Remote{Dir: folderOf(old.Exe), Exe: old.Exe})
		}
		if err == nil {
			say(c.stdout, printable("removed the agent of "+v.vm.Path))
			return v.guests.book.Remove(ctx, v.vm.InstanceUUID)
		}
		if all = errors.Join(all, err); guest.ClassOf(guest.CodeOf(err)) == guest.ClassAuth || ctx.Err() != nil {
			break
		}
	}
	if all == nil {
		all = &guest.Error{SF: "SF3020", Op: "remove the agent", Err: errors.New("no road that is allowed leads into this guest: uninstall it there, then --forget")}
	}
	return all
}

// forgetAgent strikes an agent out.
func (c *cli) forgetAgent(ctx context.Context, state string, args []string) error {
	name := first(append(args, c.getenv("GOVC_VM"))...)
	book, err := c.book(state)
	if err != nil {
		return err
	}
	all, err := book.Agents()
	if err != nil {
		return err
	}
	for _, a := range all {
		if name != "" && (a.Path == name || strings.EqualFold(a.VM, name)) {
			return book.Remove(ctx, a.VM)
		}
	}
	return &backup.Refusal{SF: "SF2009", Err: fmt.Errorf("no agent of a VM %q is enrolled: \"stillframe agent status\" lists them", name)}
}
