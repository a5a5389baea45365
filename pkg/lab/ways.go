package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/lab/smb"
	"github.com/stillframe/stillframe/pkg/lab/svcctl"
	"github.com/stillframe/stillframe/pkg/lab/winrm"
)

// Ways are the ways into a Windows guest besides guest operations, at the ports that Windows has them, of the guest's own
// address. They need root. A scripted guest with ways is taken for a Windows by vCenter and by who looks at its doors: its drive is
// an empty folder, its services are a table and its commands do nothing, so that no agent can run in it.
type Ways struct {
	// Share is how its SMB server is: encrypted, signing, old or "old encrypted"; empty is none. With one there is a service control manager.
	Share string `yaml:"share"`
	// NoAdmin leaves ADMIN$ and C$ out.
	NoAdmin bool `yaml:"no_admin"`
	// Account is what is wrong with the guest's account: disabled, locked, expired, or "password expired".
	Account string `yaml:"account"`
	// Filtered takes the account's rights away, as UAC does over the network and to guest operations.
	Filtered bool `yaml:"filtered"`
	// Room is how much fits into the folder of the agents; 0 is what the machine has.
	Room Size `yaml:"room"`
	// Quarantine has every program of ours disappear when its service is made, as antivirus does.
	Quarantine bool `yaml:"quarantine"`
	// Services are what the service control manager refuses.
	Services []ServiceFault `yaml:"services"`
	// WinRM is http or https; empty is none.
	WinRM string `yaml:"winrm"`
	// WinRMFault is what WinRM does wrong, by the words of winrmFaults.
	WinRMFault string `yaml:"winrm_fault"`
	// Silent are ports of the guest's address that answer nothing; those that nothing of this listens on refuse.
	Silent []uint16 `yaml:"silent"`
}

// ServiceFault is one refusal of the service control manager.
type ServiceFault struct {
	// Call is its name in MS-SCMR, such as StartServiceW.
	Call string `yaml:"call"`
	// Win32 is the number it answers with; 0 is another effect.
	Win32 uint32 `yaml:"win32"`
	// Effect is rpc_fault, hang or cut; empty refuses.
	Effect string `yaml:"effect"`
	// Count is how many calls are hit; 0 is all.
	Count int `yaml:"count"`
}

// serviceEffects are the words of ServiceFault.Effect.
var serviceEffects = map[string]svcctl.Effect{"": svcctl.Refuse, "rpc_fault": svcctl.RPCFault, "hang": svcctl.Hang, "cut": svcctl.Cut}

// winrmFaults are the words of Ways.WinRMFault.
var winrmFaults = map[string]winrm.Switches{
	"no_negotiate":  {NoNegotiate: true},
	"not_found":     {Status: 404},
	"unavailable":   {Status: 503},
	"error":         {Status: 500},
	"stall":         {StallReceive: true},
	"quota":         {CreateFault: 0x803381A6},
	"denied":        {CreateFault: 5},
	"no_shells":     {CreateFault: 0x803381AC},
	"unsealed":      {Unsealed: 200},
	"bad_signature": {BadSignature: true},
	"drop_empty":    {DropEmpty: true},
	noLogon:         {},
}

// noLogon is a WinRM that does not let in the account which the share lets in.
const noLogon = "no_logon"

// The ports of Windows.
const (
	sharePort      = 445
	winrmPort      = 5985
	winrmPortHTTPS = 5986
)

// any says whether there are any, or silent ports.
func (w Ways) any() bool { return w.Share != "" || w.WinRM != "" || len(w.Silent) > 0 }

// env is what agents of the guest are told.
func (w Ways) env() []string {
	if w.Filtered {
		return []string{"STILLFRAME_LAB_TOKEN=filtered"}
	}
	return nil
}

// check says what is wrong with the ways.
func (w Ways) check(guest string) error {
	var errs []error
	if w.any() && !oneOf(guest, "wine", "scripted") {
		errs = append(errs, errors.New("ways need a wine or a scripted guest"))
	}
	if !oneOf(w.Share, "", string(smb.Encrypted), string(smb.Signing), string(smb.Old), string(smb.OldEncrypted)) {
		errs = append(errs, fmt.Errorf("ways.share %q is not encrypted, signing, old or old encrypted", w.Share))
	}
	if !oneOf(w.Account, "", string(smb.Disabled), string(smb.Locked), string(smb.Expired), string(smb.PasswordExpired)) {
		errs = append(errs, fmt.Errorf("ways.account %q is not disabled, locked, expired or password expired", w.Account))
	}
	if !oneOf(w.WinRM, "", "http", "https") {
		errs = append(errs, fmt.Errorf("ways.winrm %q is not http or https", w.WinRM))
	}
	if _, known := winrmFaults[w.WinRMFault]; w.WinRMFault != "" && !known {
		errs = append(errs, fmt.Errorf("ways.winrm_fault %q is not known", w.WinRMFault))
	}
	for _, s := range w.Services {
		if _, known := serviceEffects[s.Effect]; !known || s.Count < 0 {
			errs = append(errs, fmt.Errorf("ways.services: effect %q is not rpc_fault, hang or cut, or count is below 0", s.Effect))
		}
	}
	return errors.Join(errs...)
}

// doors are the ways of one machine at work.
type doors struct {
	drive    string // what stands for C:
	services svcctl.Services
	command  func(ctx context.Context, env []string, program string, args ...string) *exec.Cmd

	share    *smb.Server
	manager  *svcctl.Server
	winrm    *winrm.Server
	silences []*guests.Silence
	room     string // a mounted folder, empty for none
	shareDir string // of Samba
	// thumbprint is the SHA-256 of the certificate of WinRM.
	thumbprint string
}

// openDoors starts the ways of a wine guest.
func (w *World) openDoors(ctx context.Context, m *machine) error {
	if !m.vm.Ways.any() {
		return nil
	}
	d := &doors{drive: m.root(), services: &svcctl.Table{}, command: func(ctx context.Context, _ []string, _ string, _ ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "true")
	}}
	if g, ok := m.guest.(*guests.Wine); ok {
		d.services, d.command = g.Services(), g.Command
	}
	m.doors = d
	if err := os.MkdirAll(filepath.Join(d.drive, "windows"), 0o755); err != nil {
		return err
	}
	address, err := netip.ParseAddr(m.outside)
	if err != nil {
		return err
	}
	if m.vm.Ways.Room > 0 {
		if err := d.mountRoom(ctx, filepath.Join(d.drive, "windows", "Stillframe"), int64(m.vm.Ways.Room)); err != nil {
			return err
		}
	}
	if m.vm.Ways.Share != "" {
		if err := w.openShare(ctx, m); err != nil {
			return err
		}
	}
	if m.vm.Ways.WinRM != "" {
		if err := w.openWinRM(ctx, m); err != nil {
			return err
		}
	}
	for _, port := range m.vm.Ways.Silent {
		s, err := guests.StartSilence(netip.AddrPortFrom(address, port))
		if err != nil {
			return err
		}
		d.silences = append(d.silences, s)
	}
	return nil
}

// openShare starts smbd, and the service control manager behind its pipe.
func (w *World) openShare(ctx context.Context, m *machine) (err error) {
	ways := m.vm.Ways
	dir, err := os.MkdirTemp("", "stillframe-smb-") // Samba's sockets want a short path
	if err != nil {
		return err
	}
	m.doors.shareDir = dir
	o := smb.Options{
		Kind: smb.Kind(ways.Share), Dir: dir, Address: m.outside, OwnPipes: true,
		Accounts: []smb.Account{{Name: m.user, Password: m.password, State: smb.State(ways.Account), Ordinary: ways.Filtered}},
	}
	if !ways.NoAdmin {
		o.Windows, o.Drive = filepath.Join(m.doors.drive, "windows"), m.doors.drive
	}
	if m.doors.share, err = smb.Start(ctx, o); err != nil {
		return err
	}
	environment := func() []string { return w.managers.Environment(m.instance) }
	services := m.doors.services
	if ways.Quarantine {
		services = quarantine{services, m.doors.drive}
	}
	so := svcctl.Options{Services: services, Words: func() []string {
		var words []string
		for _, pair := range environment() {
			if !strings.HasPrefix(pair, "STILLFRAME_LAB_") {
				continue // a mark of the lab's, which a service has by its prefix
			}
			words = append(words, "--lab-env", pair)
		}
		return words
	}}
	if ways.Filtered {
		so.Ordinary = []string{m.user}
	}
	if m.doors.manager, err = svcctl.Start(so, m.doors.share.Pipes()); err != nil {
		return err
	}
	for _, f := range ways.Services {
		m.doors.manager.Plan(svcctl.Fault{Call: svcctl.Call(f.Call), Effect: serviceEffects[f.Effect], Win32: svcctl.Win32(f.Win32), Count: f.Count})
	}
	return nil
}

// quarantine takes every program of ours away when a service of it is made.
type quarantine struct {
	svcctl.Services
	drive string
}

// Create removes the program first.
func (q quarantine) Create(name, display, path string) error {
	programs, err := filepath.Glob(filepath.Join(q.drive, "windows", "Stillframe", "*", "stillframe-agent.exe"))
	for _, program := range programs {
		err = errors.Join(err, os.Remove(program))
	}
	if err != nil {
		return err
	}
	return q.Services.Create(name, display, path)
}

// openWinRM starts the double, whose commands run in the guest.
func (w *World) openWinRM(ctx context.Context, m *machine) (err error) {
	port, account := winrmPort, winrm.Account{Name: m.user, Password: m.password}
	if m.vm.Ways.Account != "" || m.vm.Ways.WinRMFault == noLogon {
		account.State = winrm.Disabled
	}
	o := winrm.Options{Accounts: []winrm.Account{account}, Start: func(ctx context.Context, line string) *exec.Cmd {
		words := strings.Fields(line)
		return m.doors.command(ctx, w.managers.Environment(m.instance), words[0], words[1:]...)
	}}
	if m.vm.Ways.WinRM == "https" {
		port = winrmPortHTTPS
		if o.Certificate, m.doors.thumbprint, err = selfSigned(); err != nil {
			return err
		}
	}
	o.Address = netip.AddrPortFrom(netip.MustParseAddr(m.outside), uint16(port)).String()
	if m.doors.winrm, err = winrm.Serve(context.WithoutCancel(ctx), o); err != nil {
		return err
	}
	switches := winrmFaults[m.vm.Ways.WinRMFault]
	if m.vm.Ways.Filtered { // Windows lets such an account log on, and refuses it the shell
		switches.CreateFault = 5
	}
	m.doors.winrm.Set(switches)
	return nil
}

// mountRoom makes a small file system of a folder.
func (d *doors) mountRoom(ctx context.Context, dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make %s small: %w: %s", dir, err, out)
	}
	d.room = dir
	return nil
}

// close ends the ways; it is no error that there are none.
func (d *doors) close(ctx context.Context) error {
	if d == nil {
		return nil
	}
	var errs []error
	if d.winrm != nil {
		errs = append(errs, d.winrm.Close())
	}
	if d.manager != nil {
		errs = append(errs, d.manager.Close())
	}
	if d.share != nil {
		errs = append(errs, d.share.Continue(), d.share.Close())
	}
	if d.shareDir != "" {
		errs = append(errs, os.RemoveAll(d.shareDir))
	}
	for _, s := range slices.Backward(d.silences) {
		errs = append(errs, s.Close())
	}
	if d.room != "" {
		errs = append(errs, exec.CommandContext(ctx, "umount", "--lazy", d.room).Run())
	}
	return errors.Join(errs...)
}

// doWay does what happens to a way.
func (w *World) doWay(e Event, m *machine) (undo func() error, err error) {
	if m.doors == nil || m.doors.share == nil {
		return nil, fmt.Errorf("%q has no share", e.VM)
	}
	return m.doors.share.Continue, m.doors.share.Stall()
}
