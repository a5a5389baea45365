package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/enrolment"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/adminshare"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
	"github.com/stillframe/stillframe/pkg/guest/persistent"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

// guests are the ways into the guests of one endpoint.
type guests struct {
	endpoint *vsphere.Endpoint
	store    notebook
	vcenter  string
	account  *url.Userinfo
	payloads payloads
	book     *enrolment.Book
	reach
	now func() time.Time
	// epoch draws the number that an agent is told at its hello: one that stays in its guest lets in none that is lower than one
	// it has heard, and much may be heard between the beginning of a run and its hello.
	epoch func(context.Context) (uint64, error)
}

var _ backup.Guests = guests{}

// drawn draws epochs of a state folder.
func drawn(store *statefile.Store) func(context.Context) (uint64, error) {
	return func(ctx context.Context) (uint64, error) {
		begun, err := store.Begin(ctx)
		return begun.Epoch, err
	}
}

// Open puts the agent into the guest by the first way that goes well, and remembers which one did.
func (g guests) Open(ctx context.Context, vm inventory.VM, run string, epoch uint64) (*guest.Deployment, error) {
	about := statefile.Intent{Run: run, Epoch: epoch, VCenter: g.vcenter, VM: vm.InstanceUUID, Path: vm.Path, Moref: vm.Moref}
	in := g.way(vm, ledger{g.store, about})
	if err := in.recall(ctx); err != nil {
		return &guest.Deployment{}, err
	}
	d := guest.Deployer{
		Ways: in.candidates(ctx, g.road), Port: g.port, Channels: g.channels, Reverse: g.reverse, Keep: g.keep, Kept: in.known.Kept,
		Mailbox: func(ctx context.Context) (guest.Box, error) { return vsphere.OpenMailbox(ctx, g.endpoint, vm) },
	}
	var err error
	if d.Payload, err = g.payloads.of(vm); err != nil { // a persistent agent needs none
		if d.Ways = slices.DeleteFunc(d.Ways, func(c guest.Candidate) bool { return c.Way != guest.WayPersistent }); len(d.Ways) == 0 {
			return &guest.Deployment{}, err
		}
	}
	in.target = guest.Target{Addresses: in.addresses, VMUUID: vm.UUID, Run: run}
	if in.target.Epoch, err = g.epoch(ctx); err != nil {
		return &guest.Deployment{}, err
	}
	deployment, err := d.Open(ctx, in.target)
	if err == nil && in.enrolled && deployment.Way() == guest.WayPersistent {
		in.renew(ctx, deployment.Session)
	}
	if learned := in.learn(ctx, deployment); learned != nil {
		if err == nil {
			deployment.Discard() // nobody would remember it
			learned = errors.Join(learned, deployment.Close(ctx))
		}
		err = errors.Join(err, learned)
	}
	return deployment, err
}

// way is what the ways into one guest are made of.
type way struct {
	guests
	vm        inventory.VM
	ledger    guest.Ledger
	addresses []string
	known     guest.Known
	share     *adminshare.Access // the one that was tried last
	target    guest.Target
	agent     enrolment.Agent // the persistent one, where enrolled is true
	enrolled  bool
}

func (g guests) way(vm inventory.VM, l guest.Ledger) *way {
	w := &way{guests: g, vm: vm, ledger: l, addresses: slices.DeleteFunc(slices.Clone(vm.Addresses), func(a string) bool { return !guest.CanAddress(a) })}
	if g.address != "" {
		w.addresses = []string{g.address}
	}
	return w
}

// candidates are the ways that the policy allows, in their order.
func (w *way) candidates(ctx context.Context, policy guest.RoadPolicy) []guest.Candidate {
	s := guest.Situation{
		Policy: policy, System: w.vm.System(), Account: w.account.Username(), Known: w.known, Now: w.now(), Enrolled: w.enrolled,
		Unreachable: w.unreachable(ctx, policy),
	}
	var all []guest.Candidate
	for _, choice := range s.Choose() {
		c := guest.Candidate{Choice: choice}
		if choice.Code == "" {
			c.Access = w.access(choice.Way)
		}
		all = append(all, c)
	}
	return all
}

// unreachable looks which ways answer, where there is more than one.
func (w *way) unreachable(ctx context.Context, policy guest.RoadPolicy) map[guest.Way]bool {
	pushes := w.vm.System() == inventory.Windows && (policy.Allows(guest.WaySCM) || policy.Allows(guest.WayWinRM))
	stays := w.enrolled && policy.Allows(guest.WayPersistent)
	var ports []uint16
	if pushes {
		ports = append(ports, adminshare.Port, w.winrm.Port())
	}
	if stays {
		ports = append(ports, w.agent.Port)
	}
	if len(ports) < 2 && !(stays && policy.Allows(guest.WayGuestOps)) {
		return nil
	}
	open := guest.Probe(ctx, w.addresses, ports...)
	answered := open[w.agent.Port]
	silent := map[guest.Way]bool{guest.WayPersistent: stays && len(answered) == 0, guest.WayGuestOps: !w.vm.ToolsRunning}
	if pushes {
		shares, commands := open[adminshare.Port], open[w.winrm.Port()]
		silent[guest.WaySCM], silent[guest.WayWinRM] = len(shares) == 0, len(shares) == 0 || len(commands) == 0
		answered = append(shares, answered...)
	}
	slices.SortStableFunc(w.addresses, func(a, b string) int { // what answered is dialled first
		return cmp.Compare(position(answered, a), position(answered, b))
	})
	return silent
}

// position is where a value is in a list, after all of it where it is not.
func position(list []string, value string) int {
	if i := slices.Index(list, value); i >= 0 {
		return i
	}
	return len(list)
}

// access makes one way.
func (w *way) access(way guest.Way) guest.Access {
	if way == guest.WayPersistent {
		return persistent.New(w.book, w.agent, w.alive)
	}
	if way.Road != guest.RoadAdminShare {
		ops, _ := newLogon(w.endpoint, w.store, w.vm, w.account)
		return guestops.NewRecorded(ops, w.vm.System(), w.ledger)
	}
	w.share = w.adminShare(way.Start)
	return w.share
}

// adminShare is the road by the share, with what starts the agent.
func (w *way) adminShare(start guest.Start) *adminshare.Access {
	password, _ := w.account.Password()
	return adminshare.New(adminshare.Options{
		Addresses: w.addresses, Account: adminshare.NewAccount(w.account.Username(), password), Start: start,
		Library: adminshare.Library(w.known.Library), Ledger: w.ledger, WinRM: w.winrm,
		Logon: func(ctx context.Context, try func() error) error {
			return once(ctx, w.store, guestCredential(w.vm, w.account), w.account, refusedLogons(), try)
		},
	})
}

// recall reads what is known of the ways into the guest. What cannot be read as such is forgotten: it costs another try.
func (w *way) recall(ctx context.Context) (err error) {
	if w.book != nil {
		if w.agent, w.enrolled, err = w.book.Agent(w.vm.InstanceUUID); err != nil {
			return err
		}
	}
	text, err := w.store.Note(ctx, statefile.WaysNote, w.vm.InstanceUUID)
	if err != nil || text == nil {
		return err
	}
	if json.Unmarshal(text, &w.known) != nil {
		w.known = guest.Known{}
	}
	return nil
}

// alive says whether the persistent agent answers.
func (w *way) alive(ctx context.Context, id guest.Identity) error {
	d := guest.Deployer{Ways: []guest.Candidate{{Choice: guest.Choice{Way: guest.WayPersistent}, Access: persistent.New(w.book, w.agent, nil)}}, Port: id.Port}
	deployment, err := d.Open(ctx, w.target)
	return errors.Join(err, deployment.Close(ctx))
}

// renew keeps what the persistent agent says of itself, and has both sides' certificates renewed where they are due. Nothing of
// it keeps a run from its window: it is tried again in the next one.
func (w *way) renew(ctx context.Context, s *guest.Session) {
	w.agent.SeenAt, w.agent.Version, w.agent.Trouble = w.now().UTC(), s.Hello.AgentVersion, ""
	if err := w.exchange(ctx, s); err != nil {
		w.agent.Trouble = err.Error()
	}
	if err := w.book.Put(ctx, w.agent); err != nil {
		return // exchange wrote the next certificate before the agent was told of it, and the next run proves which one it shows
	}
}

func (w *way) exchange(ctx context.Context, s *guest.Session) error {
	if s.Proved != (protocol.Fingerprint{}) && s.Proved.String() == w.agent.Next {
		w.agent.Fingerprint, w.agent.Next = w.agent.Next, ""
	}
	current, err := w.book.Current(ctx, w.now())
	if err != nil {
		return err
	}
	var next protocol.Fingerprint
	if current.Fingerprint.String() != w.agent.Own {
		next = current.Fingerprint
	}
	pins, err := s.Rotate(ctx, next)
	if err != nil {
		return err
	}
	if next != (protocol.Fingerprint{}) {
		w.agent.Own = next.String()
	}
	if pins.Next == (protocol.Fingerprint{}) {
		return nil
	}
	w.agent.Next = pins.Next.String()
	if err := w.book.Put(ctx, w.agent); err != nil { // before the agent is told to show it
		return err
	}
	if pins, err = s.Confirm(ctx, pins.Next); err != nil {
		return err
	}
	w.agent.Fingerprint, w.agent.Next = pins.Agent.String(), ""
	return nil
}

// learn remembers how the attempts went.
func (w *way) learn(ctx context.Context, d *guest.Deployment) error {
	if len(d.Attempts) == 0 {
		return nil
	}
	learned := w.known.Learn(d.Attempts, w.account.Username(), w.now())
	if d.Session != nil && d.Way() != guest.WayPersistent {
		learned.Kept = d.Kept()
	}
	if w.share != nil && w.share.Library() != "" {
		learned.Library = string(w.share.Library())
	}
	text, err := json.Marshal(learned)
	if err != nil {
		return err
	}
	if err := w.store.Keep(context.WithoutCancel(ctx), statefile.WaysNote, w.vm.InstanceUUID, text); err != nil {
		return fmt.Errorf("remember the way into the guest: %w", err)
	}
	return nil
}

// refusedLogons are the codes of a logon that is not tried again before the password changes.
func refusedLogons() []string {
	return slices.DeleteFunc(guest.CodesOf(guest.ClassAuth), func(code string) bool { return code == passwordRefusedBefore })
}

// logon tries the guest's account at most once while its password is refused. Only vCenter's answer to the logon itself
// counts, never what a guest says.
type logon struct {
	guestops.Operations
	store      breaker
	credential string
	account    *url.Userinfo
}

func (l logon) Validate(ctx context.Context) error {
	return once(ctx, l.store, l.credential, l.account, refusedLogons(), func() error { return l.Operations.Validate(ctx) })
}

// newLogon makes the guest operations of one VM.
func newLogon(e *vsphere.Endpoint, store breaker, vm inventory.VM, account *url.Userinfo) (logon, *vsphere.GuestOps) {
	ops := vsphere.NewGuestOps(e, vm, func(context.Context) (*url.Userinfo, error) { return account, nil })
	return logon{ops, store, guestCredential(vm, account), account}, ops
}

// guestCredential names the account in the guest, for what is remembered of refused passwords. root is each guest's own;
// any other name may be one account of a directory, whose failed logons all count together.
func guestCredential(vm inventory.VM, account *url.Userinfo) string {
	if name := account.Username(); name != "root" {
		return "guest account " + name
	}
	return "root of VM " + vm.InstanceUUID
}

// ledger writes down what is put into one guest by one run.
type ledger struct {
	store backup.Journal
	about statefile.Intent
}

var _ guest.Ledger = ledger{}

func (l ledger) intent(kind statefile.Kind, r guest.Remote) statefile.Intent {
	i := l.about
	i.Kind, i.Subject = kind, r.Dir
	return i
}

func (l ledger) Intend(ctx context.Context, stage guest.Stage, r guest.Remote) error {
	kind := statefile.Folder
	if stage == guest.StageStart {
		kind = statefile.Process
	}
	return l.store.Intend(ctx, l.intent(kind, r))
}

func (l ledger) Settle(ctx context.Context, r guest.Remote) error {
	return l.store.Settle(ctx, l.intent(statefile.Process, r), l.intent(statefile.Folder, r))
}
