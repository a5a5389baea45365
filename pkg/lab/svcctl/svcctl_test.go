package svcctl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	cloudsoda "github.com/cloudsoda/go-smb2"
	"github.com/google/go-cmp/cmp"
	hirochachacha "github.com/hirochachacha/go-smb2"

	client "github.com/stillframe/stillframe/pkg/guest/adminshare/svcctl"
	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/smb"
	"github.com/stillframe/stillframe/pkg/lab/svcctl"
)

const password = "Lab.Password-1"

// world is an smbd with the double behind its pipe.
type world struct {
	smb *smb.Server
	scm *svcctl.Server
}

func startSMB(t *testing.T, kind smb.Kind, ownPipes bool, windows string) *smb.Server {
	t.Helper()
	lab.Need(t, lab.Smbd)
	dir, err := os.MkdirTemp("", "smb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s, err := smb.Start(t.Context(), smb.Options{
		Kind: kind, Dir: dir, OwnPipes: ownPipes, Windows: windows,
		Accounts: []smb.Account{{Name: "Administrator", Password: password}, {Name: "user", Password: password, Ordinary: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func start(t *testing.T, kind smb.Kind, o svcctl.Options) world {
	t.Helper()
	s := startSMB(t, kind, true, "")
	scm, err := svcctl.Start(o, s.Pipes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := scm.Close(); err != nil {
			t.Error(err)
		}
	})
	return world{s, scm}
}

// pipeLimit bounds one conversation of a test.
const pipeLimit = 30 * time.Second

// pipes open the svcctl pipe by either library. The test's end closes it.
var pipes = map[string]func(t *testing.T, w world, account string) (io.ReadWriter, error){
	"hirochachacha": func(t *testing.T, w world, account string) (io.ReadWriter, error) {
		t.Helper()
		conn, err := dial(t, w)
		if err != nil {
			return nil, err
		}
		d := hirochachacha.Dialer{
			Negotiator: hirochachacha.Negotiator{RequireMessageSigning: true},
			Initiator:  &hirochachacha.NTLMInitiator{User: account, Password: password},
		}
		session, err := d.DialContext(t.Context(), conn)
		if err != nil {
			return nil, err
		}
		share, err := session.Mount(`\\127.0.0.1\IPC$`)
		if err != nil {
			return nil, err
		}
		return share.OpenFile("svcctl", os.O_RDWR, 0)
	},
	"cloudsoda": func(t *testing.T, w world, account string) (io.ReadWriter, error) {
		t.Helper()
		conn, err := dial(t, w)
		if err != nil {
			return nil, err
		}
		d := cloudsoda.Dialer{
			Negotiator: cloudsoda.Negotiator{RequireMessageSigning: true},
			Initiator:  &cloudsoda.NTLMInitiator{User: account, Password: password},
		}
		session, err := d.DialConn(t.Context(), conn, w.smb.Address().String())
		if err != nil {
			return nil, err
		}
		share, err := session.Mount(`\\127.0.0.1\IPC$`)
		if err != nil {
			return nil, err
		}
		return share.OpenFile("svcctl", os.O_RDWR, 0)
	},
}

func dial(t *testing.T, w world) (net.Conn, error) {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", w.smb.Address().String())
	if err != nil {
		return nil, err
	}
	stop := time.AfterFunc(pipeLimit, func() { conn.Close() })
	t.Cleanup(func() { stop.Stop(); conn.Close() })
	return conn, nil
}

func open(t *testing.T, w world, library, account string) *client.Manager {
	t.Helper()
	pipe, err := pipes[library](t, w, account)
	if err != nil {
		t.Fatal(err)
	}
	m, err := client.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCycle has the product's client make, run and remove a service through each kind of server.
func TestCycle(t *testing.T) {
	for _, tc := range []struct {
		kind    smb.Kind
		library string
	}{{smb.Encrypted, "hirochachacha"}, {smb.Encrypted, "cloudsoda"}, {smb.Signing, "cloudsoda"}} {
		t.Run(fmt.Sprintf("%s by %s", tc.kind, tc.library), func(t *testing.T) {
			table := &svcctl.Table{}
			w := start(t, tc.kind, svcctl.Options{Services: table, Words: func() []string { return []string{"--lab-env", "A=b c"} }})
			begin := time.Now()
			m := open(t, w, tc.library, "Administrator")
			opened := time.Since(begin)
			for round := range 20 {
				if err := cycle(m, table, fmt.Sprint("Stillframe-", round)); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("session, pipe and manager in %v, %v a cycle", opened, (time.Since(begin)-opened)/20)
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			var names []svcctl.Call
			for _, r := range w.scm.Take()[:8] {
				if r.Win32 != 0 || r.Account != "Administrator" {
					t.Errorf("%+v", r)
				}
				names = append(names, r.Call)
			}
			want := []svcctl.Call{
				svcctl.OpenSCManager, svcctl.CreateService, svcctl.QueryConfig, svcctl.StartService, svcctl.QueryStatusEx, svcctl.ControlService,
				svcctl.DeleteService, svcctl.CloseHandle,
			}
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func cycle(m *client.Manager, table *svcctl.Table, name string) error {
	const path, inside = `"C:\a b\agent.exe" service -service`, `"C:\a b\agent.exe" --lab-env "A=b c" service -service`
	s, err := m.Create(name, name, path)
	if err != nil {
		return err
	}
	got, err := s.ImagePath()
	config, configErr := table.Config(name)
	if err := errors.Join(err, configErr); err != nil || got != path || config.Path != inside {
		return fmt.Errorf("command line %q, inside %q, %w", got, config.Path, err)
	}
	if err := s.Start(); err != nil {
		return err
	}
	if status, err := s.Query(); err != nil || status.State != client.Running || status.PID == 0 {
		return fmt.Errorf("%+v, %w", status, err)
	}
	return errors.Join(s.Stop(), s.Delete(), s.Close())
}

// TestInterimReplies has calls answered so late that smbd sends an interim reply, which is never signed (MS-SMB2 3.2.5.1.3). On
// a session that signs without encrypting go-smb2 v1.1.0 takes it for tampering: the reason why there are two libraries.
func TestInterimReplies(t *testing.T) {
	for _, tc := range []struct {
		kind    smb.Kind
		library string
		good    bool
	}{
		{smb.Encrypted, "hirochachacha", true},
		{smb.Encrypted, "cloudsoda", true},
		{smb.Signing, "hirochachacha", false},
		{smb.Signing, "cloudsoda", true},
	} {
		t.Run(fmt.Sprintf("%s by %s", tc.kind, tc.library), func(t *testing.T) {
			w := start(t, tc.kind, svcctl.Options{Services: &svcctl.Table{}})
			late := svcctl.Fault{Effect: svcctl.Late, Delay: 300 * time.Millisecond}
			for _, late.Call = range []svcctl.Call{svcctl.OpenSCManager, svcctl.CreateService} {
				w.scm.Plan(late)
			}
			pipe, err := pipes[tc.library](t, w, "Administrator")
			if err != nil {
				t.Fatal(err)
			}
			m, err := client.Open(pipe)
			if err == nil {
				_, err = m.Create("Stillframe-a", "a", "a")
			}
			if tc.good && err != nil || !tc.good && (err == nil || !strings.Contains(err.Error(), "signing required")) {
				t.Errorf("a late answer gave %v, good is to be %v", err, tc.good)
			}
			w.scm.Heal()
			if m, err := client.Open(reopen(t, w)); err != nil || m.Close() != nil {
				t.Errorf("without the plan: %v", err)
			}
		})
	}
}

// reopen opens the pipe by the library that always can.
func reopen(t *testing.T, w world) io.ReadWriter {
	t.Helper()
	pipe, err := pipes["cloudsoda"](t, w, "Administrator")
	if err != nil {
		t.Fatal(err)
	}
	return pipe
}

// TestSamba has the client speak to a service control manager that none of us wrote: Samba's own, which opens for an
// administrator alone, lists what it calls services, and makes none.
func TestSamba(t *testing.T) {
	w := world{smb: startSMB(t, smb.Encrypted, false, "")}
	m := open(t, w, "cloudsoda", "Administrator")
	names, err := m.List()
	if err != nil || !slices.Contains(names, "RemoteRegistry") {
		t.Errorf("List() = %v, %v", names, err)
	}
	s, err := m.OpenService("RemoteRegistry")
	if err != nil {
		t.Fatal(err)
	}
	if path, err := s.ImagePath(); err != nil || path == "" {
		t.Errorf("ImagePath() = %q, %v", path, err)
	}
	if status, err := s.Query(); err != nil || status.State != client.Stopped && status.State != client.Running {
		t.Errorf("Query() = %+v, %v", status, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.OpenService("Stillframe-none"); client.Win32(err) != client.ERROR_SERVICE_DOES_NOT_EXIST {
		t.Errorf("a service that is not there: %v", err)
	}
	var fault *client.Fault
	if _, err := m.Create("Stillframe-a", "a", "a"); !errors.As(err, &fault) || fault.Code() != "SF3405" {
		t.Errorf("Create() = %v, want SF3405", err)
	}
	pipe, err := pipes["cloudsoda"](t, w, "user")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Open(pipe); client.Win32(err) != client.ERROR_ACCESS_DENIED {
		t.Errorf("Open() of no administrator = %v, want 5", err)
	}
}

// TestList lists more services than one call brings, in replies of many fragments.
func TestList(t *testing.T) {
	table := &svcctl.Table{}
	var want []string
	for i := range 900 {
		name := fmt.Sprintf("Service-%04d-%s", i, strings.Repeat("é", i%20))
		if err := table.Create(name, "shown as "+name, "x"); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	w := start(t, smb.Encrypted, svcctl.Options{Services: table})
	got, err := open(t, w, "cloudsoda", "Administrator").List()
	slices.Sort(want)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("List(): %v (-want +got):\n%s", err, diff)
	}
	if n := len(w.scm.Take()); n < 3 {
		t.Errorf("%d calls: it was to take several to list all", n)
	}
}

// TestFaults plans each thing that a product has to tell apart.
func TestFaults(t *testing.T) {
	table := &svcctl.Table{}
	w := start(t, smb.Encrypted, svcctl.Options{Services: table, Ordinary: []string{"user"}})
	create := func(m *client.Manager) error {
		s, err := m.Create("Stillframe-a", "a", `"C:\a.exe"`)
		if err != nil {
			return err
		}
		if err = s.Start(); err == nil {
			_, err = s.Query()
		}
		return errors.Join(err, s.Delete(), s.Close())
	}
	for _, tc := range []struct {
		name, code string
		fault      svcctl.Fault
	}{
		{"no right", "SF3102", svcctl.Fault{Call: svcctl.CreateService, Win32: 5}},
		{"no right to start", "SF3102", svcctl.Fault{Call: svcctl.StartService, Win32: 5}},
		{"exists", "SF3409", svcctl.Fault{Call: svcctl.CreateService, Win32: 1073}},
		{"marked for delete", "SF3404", svcctl.Fault{Call: svcctl.CreateService, Win32: 1072}},
		{"blocked", "SF3403", svcctl.Fault{Call: svcctl.StartService, Win32: 577}},
		{"no answer in time", "SF3401", svcctl.Fault{Call: svcctl.StartService, Win32: 1053}},
		{"disabled", "SF3402", svcctl.Fault{Call: svcctl.StartService, Win32: 1058}},
		{"vanished", "SF3703", svcctl.Fault{Call: svcctl.QueryStatusEx, Win32: 1060}},
		{"no Windows", "SF3405", svcctl.Fault{Call: svcctl.CreateService, Effect: svcctl.RPCFault}},
		{"cut", "", svcctl.Fault{Call: svcctl.StartService, Effect: svcctl.Cut}},
		{"split", "none", svcctl.Fault{Call: svcctl.StartService, Effect: svcctl.Split}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.fault.Count = 1
			w.scm.Plan(tc.fault)
			m := open(t, w, "cloudsoda", "Administrator")
			err := create(m)
			var coded interface{ Code() string }
			code := ""
			if err == nil {
				code = "none"
			} else if errors.As(err, &coded) {
				code = coded.Code()
			}
			if code != tc.code {
				t.Errorf("code %q of %v, want %q", code, err, tc.code)
			}
			if tc.code == "" { // nothing could be removed on the pipe that was cut
				if err := table.Delete("Stillframe-a"); err != nil {
					t.Error(err)
				}
			}
			if err := create(open(t, w, "cloudsoda", "Administrator")); err != nil {
				t.Errorf("without the fault: %v", err)
			}
		})
	}
	t.Run("bind", func(t *testing.T) {
		w.scm.Plan(svcctl.Fault{Call: svcctl.Bind, Effect: svcctl.RPCFault, Count: 1})
		pipe, err := pipes["cloudsoda"](t, w, "Administrator")
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Open(pipe)
		var fault *client.Fault
		if !errors.As(err, &fault) || fault.Code() != "SF3405" {
			t.Errorf("Open() = %v", err)
		}
	})
	t.Run("ordinary account", func(t *testing.T) {
		pipe, err := pipes["hirochachacha"](t, w, "user")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Open(pipe); client.Win32(err) != client.ERROR_ACCESS_DENIED {
			t.Errorf("Open() = %v, want 5", err)
		}
	})
	t.Run("hang", func(t *testing.T) {
		w.scm.Plan(svcctl.Fault{Call: svcctl.StartService, Effect: svcctl.Hang, Count: 1})
		conn, err := dial(t, w)
		if err != nil {
			t.Fatal(err)
		}
		d := cloudsoda.Dialer{Initiator: &cloudsoda.NTLMInitiator{User: "Administrator", Password: password}}
		session, err := d.DialConn(t.Context(), conn, "")
		if err != nil {
			t.Fatal(err)
		}
		share, err := session.Mount(`\\127.0.0.1\IPC$`)
		if err != nil {
			t.Fatal(err)
		}
		pipe, err := share.OpenFile("svcctl", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		m, err := client.Open(pipe)
		if err != nil {
			t.Fatal(err)
		}
		// The owner of the connection ends what hangs.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		if err := create(m); err == nil || ctx.Err() == nil {
			t.Errorf("what hangs gave %v, %v", err, ctx.Err())
		}
		if err := table.Delete("Stillframe-a"); err != nil {
			t.Error(err)
		}
	})
}
