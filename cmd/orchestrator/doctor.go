package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/enrolment"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/adminshare"
	"github.com/stillframe/stillframe/pkg/guest/persistent"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/vsphere"
)

const (
	// guestLoginLimit is a little more than what guest operations wait for VMware Tools.
	guestLoginLimit = 70 * time.Second
	portLimit       = 3 * time.Second
	probeLimit      = 12 * time.Second // dialling and shaking hands have limits of their own
	// certificateSoon is when the end of a certificate is worth a warning.
	certificateSoon = 14 * 24 * time.Hour
)

// doctorFlags are the flags of "stillframe doctor".
type doctorFlags struct {
	target
	agentFlags
	vm, state, output string
	differential      bool
}

func (c *cli) doctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use: "doctor --vm VM", Short: "Say what keeps one VM from a consistent snapshot", Args: cobra.NoArgs,
		Long: `Asks vCenter, the VM, its host and the way into its guest everything that can be asked without changing anything:
the table of docs/preflight.md. Each row is ok, warn, fail or unknown, with what was seen and what to do.

The guest's account is tried, once, only when GOVC_GUEST_LOGIN is set: by guest operations, or on the road that --road names. With
--road adminshare there are rows about the admin share, the service control manager and WinRM, with --road persistent one about the
installed agent. The exit status is 0 when nothing fails, 7 when something does.

With --differential it does touch the VM, three times: it freezes and thaws it without a snapshot, takes and removes a
snapshot without a freeze, does a whole window, and says from the three which part of a slow or failing window is to blame.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.differential {
				return c.differential(cmd.Context(), f)
			}
			return c.doctor(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.vm, "vm", "", "the VM: inventory path, moref, instance UUID or name (default GOVC_VM)")
	flags.BoolVar(&f.differential, "differential", false, "try freeze, snapshot and both, and compare: the guest is frozen twice, a snapshot is taken twice")
	f.target.flags(cmd)
	stateFlag(cmd, &f.state)
	f.agentFlags.flags(cmd)
	outputFlag(cmd, &f.output)
	return cmd
}

// examination is what the doctor found, as -o json prints it. Fields are only ever added.
type examination struct {
	APIVersion string    `json:"api_version"`
	VM         backup.VM `json:"vm"`
	Checks     []result  `json:"checks"`
}

// result is one row of the doctor's table.
type result struct {
	ID     string                `json:"id"`
	Title  string                `json:"title"`
	Status inventory.CheckStatus `json:"status"`
	// Evidence is what was seen, Remedy what to do; both are never null. Remedy and Code are empty unless something is wrong.
	Evidence []string `json:"evidence"`
	Remedy   []string `json:"remedy"`
	Code     string   `json:"code"`
}

// newResult adds the remedy of a check that did not go well.
func newResult(c inventory.Check) result {
	r := result{ID: c.ID, Title: c.Title, Status: c.Status, Evidence: append([]string{}, c.Evidence...), Remedy: []string{}}
	if c.Status == inventory.CheckWarn || c.Status == inventory.CheckFail {
		r.Code, r.Remedy = c.Code, advice.Explain(advice.Code(c.Code)).Next
	}
	return r
}

func (c *cli) doctor(ctx context.Context, f doctorFlags) error {
	f.vm = first(f.vm, c.getenv("GOVC_VM"))
	if f.vm == "" {
		return missing("no VM: give --vm or set GOVC_VM")
	}
	if err := checkAddress(f.address); err != nil {
		return err
	}
	options, err := c.options(f.target)
	if err != nil {
		return err
	}
	p := patient{flags: f, insecure: options.Insecure, now: c.now}
	if c.getenv("GOVC_GUEST_LOGIN") != "" {
		if p.account, err = c.guestAccount(); err != nil {
			return err
		}
	}
	if p.store, err = c.store(f.state); err != nil {
		return err
	}
	if p.book, err = c.book(f.state); err != nil {
		return err
	}
	x := examination{APIVersion: backup.APIVersion}
	endpoint, err := connect(ctx, options, p.store)
	if err != nil {
		if code := codeOf(err); ctx.Err() != nil || strings.HasPrefix(code, "SF1") && code != passwordRefusedBefore {
			return interrupted(ctx, err)
		}
		x.Checks = outside(err)
		return c.examined(x, f.output)
	}
	p.endpoint = endpoint
	x, err = p.examine(ctx, x)
	if left := endpoint.Close(context.WithoutCancel(ctx)); left != nil {
		say(c.stderr, "warning: log out of vCenter: "+left.Error())
	}
	if err != nil {
		return interrupted(ctx, err)
	}
	return c.examined(x, f.output)
}

// passwordRefusedBefore is the code of a password that is not even tried.
const passwordRefusedBefore = "SF1104"

// examined prints the table and sets the exit status.
func (c *cli) examined(x examination, output string) error {
	for _, r := range x.Checks {
		if r.Status == inventory.CheckFail {
			c.exit = exitPreflight
		}
	}
	if output == "json" {
		return writeJSON(c.stdout, x)
	}
	return writeExamination(c.stdout, x)
}

// entrance lists the checks on vCenter itself, unanswered, in the order in which a connection meets them.
func entrance() []inventory.Check {
	return []inventory.Check{
		{ID: "vcenter_answer", Title: "vCenter answers", Code: "SF2004"},
		{ID: "vcenter_certificate", Title: "the certificate of vCenter is trusted, and valid for 14 more days", Code: "SF2003"},
		{ID: "vcenter_login", Title: "vCenter accepts the account", Code: "SF2001"},
	}
}

// inside lists the checks of the way into the guest, unanswered.
func inside() []inventory.Check {
	return []inventory.Check{
		{ID: "agent_carried", Title: "there is an agent for the guest's system", Code: "SF3609"},
		{ID: "host_transfer", Title: "the VM's host answers on the port of guest file transfers", Code: "SF3612"},
		{ID: "guest_login", Title: "the guest accepts the account", Code: "SF3001"},
		{ID: "agent_port", Title: "the network lets through to the agent's port", Code: "SF3201"},
	}
}

// shareRows lists the checks of the road by the admin share, unanswered, in the order of adminshare.Examine.
func shareRows() []inventory.Check {
	return []inventory.Check{
		{ID: string(adminshare.StepPort), Title: "port 445 of the guest answers", Code: "SF3201"},
		{ID: string(adminshare.StepLogon), Title: "the guest accepts the account by SMB", Code: "SF3001"},
		{ID: string(adminshare.StepAdmin), Title: "the account may use ADMIN$", Code: "SF3101"},
		{ID: string(adminshare.StepRoom), Title: "there is room for the agent in ADMIN$", Code: "SF3306"},
		{ID: string(adminshare.StepServices), Title: "the account may make services", Code: "SF3102"},
		{ID: string(adminshare.StepWinRM), Title: "WinRM runs a command of the account, whose token UAC does not filter", Code: "SF3501"},
	}
}

// persistentRow is the check of an installed agent, unanswered.
func persistentRow() []inventory.Check {
	return []inventory.Check{{ID: "persistent_agent", Title: "the installed agent answers, and both sides know each other", Code: "SF3701"}}
}

// remembered lists the checks on what the state folder knows of the VM, unanswered.
func remembered() []inventory.Check {
	return []inventory.Check{
		{ID: "run_unfinished", Title: "no earlier run of the VM is unfinished", Code: "SF2304"},
		{ID: "run_active", Title: "no run works on the VM now", Code: "SF1103"},
		{ID: "state_folder", Title: "the state folder has room for the next run", Code: "SF1101"},
		{ID: "history", Title: "the next window will probably fit, as the VM's last ones say", Code: "SF4010"},
	}
}

// outside is the table of a vCenter that could not be entered: what was reached before the error is ok, the rest unknown.
func outside(err error) []result {
	checks := entrance()
	at := map[string]int{"SF2004": 0, "SF2003": 1, "SF2011": 1}
	last, known := at[codeOf(err)]
	if !known {
		last = 2
	}
	for i := range last {
		if codeOf(err) != passwordRefusedBefore {
			checks[i].Status = inventory.CheckOK
		}
	}
	checks[last].Status, checks[last].Evidence = inventory.CheckFail, []string{err.Error()}
	checks[last].Code = first(codeOf(err), checks[last].Code)
	var all []result
	for _, c := range slices.Concat(checks, vsphere.Checks(), remembered(), inside()) {
		if c.Status == inventory.CheckUnknown {
			c.Evidence = []string{"not reached"}
		}
		all = append(all, newResult(c))
	}
	return all
}

// patient is one VM at the doctor's.
type patient struct {
	flags    doctorFlags
	insecure bool
	account  *url.Userinfo // nil without a guest account
	store    *statefile.Store
	book     *enrolment.Book
	endpoint *vsphere.Endpoint
	vm       inventory.VM
	ready    bool // guest operations are worth a try
	now      func() time.Time
}

// examine fills the table. Only a VM that cannot be found, or a vCenter that stops answering, is an error.
func (p *patient) examine(ctx context.Context, x examination) (examination, error) {
	var err error
	if p.vm, err = p.endpoint.Find(ctx, p.flags.vm); err != nil {
		return x, err
	}
	x.VM = backup.VM{Name: p.vm.Name, Path: p.vm.Path, Moref: p.vm.Moref, InstanceUUID: p.vm.InstanceUUID}
	checks := entrance()
	checks[0].Status, checks[2].Status = inventory.CheckOK, inventory.CheckOK
	p.certificate(ctx, &checks[1])
	w, err := p.way()
	if err != nil {
		return x, err
	}
	table, err := w.Preflight(ctx, p.vm)
	if err != nil {
		return x, err
	}
	p.ready = true
	for _, c := range table {
		bad := c.Status != inventory.CheckOK
		p.ready = p.ready && !(bad && (c.ID == "power" || c.ID == inventory.CheckGuestOperations))
	}
	past := remembered()
	p.runs(ctx, &past[0], &past[1])
	p.room(ctx, &past[2])
	p.history(ctx, &past[3])
	rest := inside()
	for i, look := range []func(context.Context, *inventory.Check){p.agent, p.host, p.login, p.port} {
		look(ctx, &rest[i])
	}
	for _, c := range slices.Concat(checks, table, past, rest, p.roads(ctx)) {
		x.Checks = append(x.Checks, newResult(c))
	}
	return x, ctx.Err()
}

// found sets the outcome of a check; an error's own code is nearer to the cause than the row's.
func found(c *inventory.Check, status inventory.CheckStatus, evidence ...string) {
	c.Status, c.Evidence = status, evidence
}

func failed(c *inventory.Check, err error) {
	found(c, inventory.CheckFail, err.Error())
	c.Code = first(codeOf(err), c.Code)
}

func (p *patient) certificate(ctx context.Context, c *inventory.Check) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	seen, err := p.endpoint.Probe(ctx)
	switch left := seen.NotAfter.Sub(p.now()); {
	case err != nil:
		failed(c, err)
	case p.insecure:
		found(c, inventory.CheckFail, "it was not checked at all: --insecure is for labs only")
	case left < certificateSoon:
		found(c, inventory.CheckWarn, fmt.Sprintf("it ends on %s and wants to be renewed", seen.NotAfter.UTC().Format(time.DateOnly)))
	default:
		found(c, inventory.CheckOK, "SHA-256 "+seen.Thumbprint, "valid until "+seen.NotAfter.UTC().Format(time.DateOnly))
	}
}

// runs looks for what other runs left open on the VM; what a run that still works has open is its own business.
func (p *patient) runs(ctx context.Context, unfinished, active *inventory.Check) {
	owner, works, err := p.store.Active(ctx, p.vm.InstanceUUID)
	if err != nil {
		failed(active, err)
		failed(unfinished, err)
		return
	}
	found(active, inventory.CheckOK)
	if works {
		busy := statefile.ActiveError{VM: p.vm.InstanceUUID, Owner: owner}
		found(active, inventory.CheckWarn, busy.Error())
	}
	open, err := p.store.Intents(ctx, p.vm.InstanceUUID)
	if err != nil {
		failed(unfinished, err)
		return
	}
	found(unfinished, inventory.CheckOK)
	for _, i := range backup.Unfinished(open) {
		if !works || i.Run != owner.Run {
			found(unfinished, inventory.CheckFail, append(unfinished.Evidence, fmt.Sprintf("%s %s of run %s", i.Kind, i.Subject, i.Run))...)
		}
	}
}

func (p *patient) room(ctx context.Context, c *inventory.Check) {
	if err := p.store.Room(ctx); err != nil {
		failed(c, err)
		return
	}
	found(c, inventory.CheckOK)
}

// history decides from the VM's last windows as a run does, which takes a delay for a refusal.
func (p *patient) history(ctx context.Context, c *inventory.Check) {
	windows, err := p.store.Windows(ctx, p.vm.InstanceUUID)
	if err != nil {
		failed(c, err)
		return
	}
	budget := freezewindow.DefaultBudget()
	d := admission.Decide(windows, budget.ThawBy(), "")
	if p.vm.System() == inventory.Windows {
		d = admission.DecideVSS(windows, admission.Limits{Hold: budget.ThawBy(), IO: budget.IOThaw}, admission.Auto, "", p.now())
	}
	if d.Word != admission.Admit {
		found(c, inventory.CheckFail, d.Reason)
		return
	}
	found(c, inventory.CheckOK, d.Reason)
}

func (p *patient) agent(_ context.Context, c *inventory.Check) {
	carried, err := p.flags.payloads()
	if err == nil {
		err = guest.Refuse(p.vm)
	}
	if err == nil && p.vm.System() != "" {
		_, err = carried.of(p.vm)
	}
	switch {
	case err != nil:
		failed(c, err)
	case p.vm.System() == "":
		found(c, inventory.CheckUnknown, "vCenter does not say which system the guest runs")
	default:
		found(c, inventory.CheckOK)
	}
}

func (p *patient) host(ctx context.Context, c *inventory.Check) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	seen, err := p.endpoint.ProbeHost(ctx, p.vm)
	if err != nil {
		failed(c, err)
		return
	}
	found(c, inventory.CheckOK, seen.Address)
}

// login tries the guest's account once, and not at all if this password was refused a short time ago.
func (p *patient) login(ctx context.Context, c *inventory.Check) {
	switch {
	case p.account == nil:
		found(c, inventory.CheckUnknown, "not tried: GOVC_GUEST_LOGIN is not set")
		return
	case !p.ready:
		found(c, inventory.CheckUnknown, "not tried: guest operations are not ready")
		return
	case !guest.RoadPolicy(p.flags.guestRoad).Allows(guest.WayGuestOps):
		found(c, inventory.CheckUnknown, "not tried: guest operations are not the road, and each logon counts")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, guestLoginLimit)
	defer cancel()
	ops, _ := newLogon(p.endpoint, p.store, p.vm, p.account)
	if err := ops.Validate(ctx); err != nil {
		failed(c, err)
		return
	}
	found(c, inventory.CheckOK, p.account.Username())
}

// roads looks at the roads that the policy names; auto's are looked at by their own rows, and by what runs told.
func (p *patient) roads(ctx context.Context) []inventory.Check {
	switch policy := guest.RoadPolicy(p.flags.guestRoad); {
	case policy == guest.PolicyPersistent:
		row := persistentRow()
		p.persistent(ctx, &row[0])
		return row
	case policy == guest.PolicyAuto, policy == guest.PolicyGuestOps, !policy.Allows(guest.WaySCM) && !policy.Allows(guest.WayWinRM):
		return nil
	}
	rows := shareRows()
	ctx, cancel := context.WithTimeout(ctx, guestLoginLimit)
	defer cancel()
	p.share(ctx, rows)
	return rows
}

// share looks at the road by the admin share. An account that guest operations were refused with is not tried again.
func (p *patient) share(ctx context.Context, rows []inventory.Check) {
	all := func(why string) {
		for i := range rows {
			found(&rows[i], inventory.CheckUnknown, why)
		}
	}
	w, err := p.way()
	switch {
	case err != nil:
		failed(&rows[0], err)
		return
	case p.vm.System() != inventory.Windows:
		all("not tried: only Windows guests have an admin share")
		return
	case p.account == nil:
		all("not tried: GOVC_GUEST_LOGIN is not set")
		return
	}
	for i, seen := range w.adminShare(guest.StartWinRM).Examine(ctx) {
		row := &rows[i]
		policy := guest.RoadPolicy(p.flags.guestRoad)
		spare := seen.Step == adminshare.StepWinRM && policy != guest.PolicyWinRM || seen.Step == adminshare.StepServices && policy == guest.PolicyWinRM
		switch {
		case seen.Skipped:
			found(row, inventory.CheckUnknown, "not tried, because of what stands above")
		case seen.Err != nil:
			if failed(row, seen.Err); spare { // the other one starts the agent
				row.Status = inventory.CheckWarn
			}
		default:
			found(row, inventory.CheckOK, seen.Evidence)
		}
	}
}

// persistent speaks with the installed agent.
func (p *patient) persistent(ctx context.Context, c *inventory.Check) {
	w, err := p.way()
	if err == nil {
		err = w.recall(ctx)
	}
	switch {
	case err != nil:
		failed(c, err)
		return
	case !w.enrolled:
		found(c, inventory.CheckFail, "no agent of this VM is enrolled: \"stillframe agent deploy\" installs one")
		c.Code = "SF3020"
		return
	}
	begun, err := p.store.Begin(ctx) // an agent lets in no older epoch than it has seen
	if err != nil {
		failed(c, err)
		return
	}
	w.target = guest.Target{Addresses: w.addresses, VMUUID: p.vm.UUID, Run: "doctor", Epoch: begun.Epoch}
	id, err := persistent.New(w.book, w.agent, nil).Start(ctx, guest.Remote{}, guest.Bootstrap{})
	if err == nil {
		err = w.alive(ctx, id)
	}
	if err != nil {
		failed(c, err)
		return
	}
	found(c, inventory.CheckOK, fmt.Sprintf("port %d, version %s", w.agent.Port, w.agent.Version))
}

// way is the way into the patient's guest.
func (p *patient) way() (*way, error) {
	in, err := p.flags.winrm.read()
	if err != nil {
		return nil, err
	}
	account := p.account
	if account == nil {
		account = url.User("")
	}
	g := guests{
		endpoint: p.endpoint, store: p.store, account: account, book: p.book, now: p.now,
		reach: reach{port: p.flags.port, address: p.flags.address, road: guest.RoadPolicy(p.flags.guestRoad), winrm: in},
	}
	return g.way(p.vm, nil), nil
}

// port dials the agent's port. No agent runs now, so that a refusal is as good as an answer; silence is a firewall's.
func (p *patient) port(ctx context.Context, c *inventory.Check) {
	address := p.flags.address
	if address == "" && len(p.vm.Addresses) > 0 {
		address = p.vm.Addresses[0]
	}
	if address == "" {
		found(c, inventory.CheckUnknown, "VMware Tools report no address of the guest")
		return
	}
	at := net.JoinHostPort(address, strconv.Itoa(int(p.flags.port)))
	conn, err := (&net.Dialer{Timeout: portLimit}).DialContext(ctx, "tcp", at)
	if err == nil {
		err = conn.Close()
	}
	switch {
	case err == nil:
		found(c, inventory.CheckOK, at+" accepts connections")
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		found(c, inventory.CheckOK, at+" is closed, as it should be while no agent runs; the guest itself answered")
	default:
		found(c, inventory.CheckWarn, err.Error())
	}
}

// writeExamination prints the table for people.
func writeExamination(w io.Writer, x examination) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	if x.VM.Name != "" {
		line("vm %s (%s)", x.VM.Path, x.VM.Moref)
	}
	count := map[inventory.CheckStatus]int{}
	for _, r := range x.Checks {
		count[r.Status]++
		line("%-8s %-20s %s %s", strings.ToUpper(r.Status.String()), r.ID, r.Title, r.Code)
		if r.Status == inventory.CheckOK {
			continue
		}
		for _, e := range r.Evidence {
			line("%30sseen: %s", "", e)
		}
		for _, s := range r.Remedy {
			line("%30stry:  %s", "", s)
		}
	}
	line("%d ok, %d warn, %d fail, %d unknown", count[inventory.CheckOK], count[inventory.CheckWarn], count[inventory.CheckFail], count[inventory.CheckUnknown])
	_, err := io.WriteString(w, b.String())
	return err
}
