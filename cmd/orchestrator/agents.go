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
	"github.com/stillframe/stillframe/pkg/statefile"
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
			if enrolled && !cmd.Flags().Changed("agent-port") {
				v.guests.port = old.Port
			}
			if v.guests.port == 0 {
				return invalid("an agent that stays needs a port that stays: give one by --agent-port")
			}
			done, err := v.install(ctx, old)
			if err != nil {
				return err
			}
			return errors.Join(c.enrolled(f.output, done), done.left)
		})
	}
	f.flags(cmd)
	return cmd
}

// installed is what came of an installation.
type installed struct {
	agent    enrolment.Agent
	attempts []backup.Attempt
	// left is why something is left that should have gone; the agent is enrolled all the same.
	left error
}

// enrolled prints an installed agent.
func (c *cli) enrolled(output string, i installed) error {
	if output == "json" {
		return writeJSON(c.stdout, map[string]any{"api_version": backup.APIVersion, "agent": i.agent, "attempts": i.attempts})
	}
	for _, t := range i.attempts {
		say(c.stdout, printable(attempted(t)))
	}
	a := i.agent
	say(c.stdout, printable(fmt.Sprintf("enrolled %s: version %s, port %d, certificate %s", a.Path, a.Version, a.Port, a.Fingerprint)))
	return nil
}

// install installs the agent by the first way that goes well, speaks with it, and enrols it. What an older one of ours ran is
// removed.
func (v visit) install(ctx context.Context, old enrolment.Agent) (i installed, err error) {
	ctx, cancel := context.WithTimeout(ctx, installLimit)
	defer cancel()
	own, err := v.guests.book.Current(ctx, v.guests.now())
	if err != nil {
		return i, err
	}
	w := v.guests.way(v.vm, ledger{v.store, v.about()})
	if err := w.recall(ctx); err != nil {
		return i, err
	}
	w.enrolled = false // it is not the way to install one
	var all error
	for _, one := range w.candidates(ctx, v.guests.road) {
		way, ok := one.Access.(guest.Installer)
		if !ok {
			continue
		}
		if err = v.installBy(ctx, way, own, old, &i); err == nil {
			return i, nil
		}
		all = errors.Join(all, err)
		if guest.ClassOf(guest.CodeOf(err)).Final() || ctx.Err() != nil {
			break
		}
	}
	if all == nil {
		all = &guest.Error{SF: "SF3020", Op: "install the agent", Err: errors.New("no road that is allowed can bring it into this guest")}
	}
	return i, all
}

// installBy installs by one way. When that fails the folder is removed again. Whatever is cut off is written down: the new agent until
// it is enrolled, the older one's folder from then on.
func (v visit) installBy(ctx context.Context, way guest.Installer, own enrolment.Identity, old enrolment.Agent, i *installed) error {
	try := func(stage guest.Stage, do func() error) error {
		begin := time.Now()
		err := do()
		a := backup.Attempt{Road: string(way.Way().Road), Start: string(way.Way().Start), Stage: string(stage), OK: err == nil, Seconds: time.Since(begin).Seconds()}
		if err != nil {
			a.Code, a.Text, a.Class = guest.CodeOf(err), err.Error(), string(guest.ClassOf(guest.CodeOf(err)))
		}
		i.attempts = append(i.attempts, a)
		return err
	}
	notes := ledger{v.store, v.about()}
	var remote, before guest.Remote
	var id guest.Identity
	touched := false
	err := try(guest.StagePush, func() (err error) { remote, err = way.Put(ctx, v.payload); return err })
	if err == nil {
		err = v.store.Intend(ctx, notes.intent(statefile.Installed, remote))
	}
	if err == nil {
		touched = true
		err = try(guest.StageStart, func() (err error) {
			id, err = way.Install(ctx, remote, v.guests.way(v.vm, nil).bootstrap(own.Fingerprint, v.guests.port))
			return err
		})
	}
	i.agent = enrolment.Agent{
		VM: v.vm.InstanceUUID, Path: v.vm.Path, VCenter: v.vcenter, Fingerprint: id.Fingerprint.String(), Own: own.Fingerprint.String(), Port: id.Port,
		Exe: remote.Exe, System: string(v.payload.System), EnrolledAt: v.guests.now().UTC(),
	}
	if err == nil {
		err = try(guest.StageHello, func() error { return v.greet(ctx, &i.agent) })
	}
	if err == nil && old.Exe != "" && old.Exe != remote.Exe {
		before = guest.Remote{Dir: folderOf(old.Exe), Exe: old.Exe}
		err = notes.Intend(ctx, guest.StagePush, before)
	}
	if err == nil {
		err = v.guests.book.Put(ctx, i.agent)
	}
	if err != nil {
		if remote.Dir != "" {
			err = errors.Join(err, try(guest.StageCleanup, func() error { return v.takeBack(ctx, way, remote, touched, old) }))
		}
		if before.Dir != "" {
			err = errors.Join(err, notes.Settle(context.WithoutCancel(ctx), before))
		}
		return err
	}
	i.left = v.store.Settle(context.WithoutCancel(ctx), notes.intent(statefile.Installed, remote), notes.intent(statefile.Folder, remote)) // it is to stay
	if before.Dir != "" {
		i.left = errors.Join(i.left, try(guest.StageCleanup, func() error { return remove(ctx, way, before) }))
	}
	return nil
}

// removeLimit bounds the removal of a folder.
const removeLimit = 30 * time.Second

// remove removes a folder, whatever has ended.
func remove(ctx context.Context, way guest.Access, r guest.Remote) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
	defer cancel()
	return way.Remove(ctx, r)
}

// bootstrap is what an installed agent is told.
func (w *way) bootstrap(peer protocol.Fingerprint, port uint16) guest.Bootstrap {
	b := guest.Bootstrap{Peer: peer, Port: port}
	if w.vm.System() == inventory.Windows { // the others have no firewall of their own to open
		b.Allow = guest.OwnAddresses(w.addresses)
	}
	return b
}

// putBack undoes an installation by r: the enrolled agent is there as it was, knowing us by the certificate that it was told last, or none.
func (w *way) putBack(ctx context.Context, by guest.Installer, r guest.Remote) error {
	if w.agent.Exe == "" {
		return by.Uninstall(ctx, r)
	}
	peer, err := protocol.ParseFingerprint(w.agent.Own)
	if err == nil {
		_, err = by.Install(ctx, guest.Remote{Deployment: r.Deployment, Exe: w.agent.Exe}, w.bootstrap(peer, w.agent.Port))
	}
	if err != nil {
		return fmt.Errorf("put the older agent back: %w", err)
	}
	return nil
}

// takeBack removes what a failed installation left, and puts the older agent back where there was one.
func (v visit) takeBack(ctx context.Context, by guest.Installer, r guest.Remote, touched bool, old enrolment.Agent) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), installLimit)
	defer cancel()
	if touched {
		w := v.guests.way(v.vm, nil)
		w.agent = old
		if err := w.putBack(ctx, by, r); err != nil {
			return err
		}
	}
	return errors.Join(v.store.Settle(ctx, ledger{v.store, v.about()}.intent(statefile.Installed, r)), by.Remove(ctx, r))
}

// folderOf is the folder of a program in a guest, remoteOf what a run left in a folder of ours.
func folderOf(exe string) string { return exe[:max(strings.LastIndexAny(exe, `\/`), 0)] }

func remoteOf(system inventory.System, folder string) guest.Remote {
	parent := folderOf(folder)
	name := folder[min(len(parent)+1, len(folder)):]
	return guest.Remote{Deployment: name, Dir: folder, Exe: folder + folder[len(parent):len(folder)-len(name)] + guest.AgentName(system)}
}

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
			err = errors.Join(err, remove(ctx, way, r))
		}
		if err == nil && old.Exe != "" {
			err = remove(ctx, way, guest.Remote{Dir: folderOf(old.Exe), Exe: old.Exe})
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
