package guests_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/guest"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

var _ vcenter.Guests = (*guests.Managers)(nil)

// home is where a pushed agent lives in the guest.
const home = guests.HomePrefix + "/agent/0123"

// operations is a stock govmomi client of guest operations over the front.
type operations struct {
	server   *vcenter.Server
	managers *guests.Managers
	root     string
	client   *vim25.Client
	process  *guest.ProcessManager
	file     *guest.FileManager
	auth     *guest.AuthManager
	good     *types.NamePasswordAuthentication
}

// startOperations runs a vCenter with two VMs: lnx has a guest, bare has none.
func startOperations(t *testing.T, env ...string) *operations {
	t.Helper()
	o := &operations{root: t.TempDir(), good: &types.NamePasswordAuthentication{Username: "root", Password: "guest pass"}}
	var err error
	o.managers, err = guests.NewManagers(guests.Machine{
		VM: "lnx", Root: o.root, Env: env, Users: map[string]string{"root": "guest pass"}, Logs: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, o.managers) })
	o.server, err = vcenter.Start(t.Context(), vcenter.Options{
		User: "u", Password: "p", Guests: o.managers, VMs: []vcenter.VM{{Name: "lnx"}, {Name: "bare"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, o.server) })
	ca, err := o.server.CAFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sc := soap.NewClient(o.server.URL(), false)
	if err := sc.SetRootCAs(ca); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sc.CloseIdleConnections)
	if o.client, err = vim25.NewClient(t.Context(), sc); err != nil {
		t.Fatal(err)
	}
	if err := session.NewManager(o.client).Login(t.Context(), url.UserPassword("u", "p")); err != nil {
		t.Fatal(err)
	}
	o.auth, o.process, o.file = o.of(t, "lnx")
	return o
}

func closed(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// of returns the stock managers for a VM.
func (o *operations) of(t *testing.T, name string) (*guest.AuthManager, *guest.ProcessManager, *guest.FileManager) {
	t.Helper()
	vm, err := find.NewFinder(o.client).VirtualMachine(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	m := guest.NewOperationsManager(o.client, vm.Reference())
	auth, errAuth := m.AuthManager(t.Context())
	process, errProcess := m.ProcessManager(t.Context())
	file, errFile := m.FileManager(t.Context())
	if err := errors.Join(errAuth, errProcess, errFile); err != nil {
		t.Fatal(err)
	}
	return auth, process, file
}

// upload puts a file into the guest with a mode, by stock calls.
func (o *operations) upload(t *testing.T, path, content string, mode int64) {
	t.Helper()
	raw, err := o.file.InitiateFileTransferToGuest(t.Context(), o.good, path, &types.GuestPosixFileAttributes{Permissions: mode}, int64(len(content)), false)
	if err != nil {
		t.Fatal(err)
	}
	target, err := o.file.TransferURL(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	p := soap.DefaultUpload
	p.ContentLength = int64(len(content))
	if err := o.client.Client.Upload(t.Context(), strings.NewReader(content), target, &p); err != nil {
		t.Fatal(err)
	}
	if err := o.client.Client.Upload(t.Context(), strings.NewReader(content), target, &p); err == nil {
		t.Error("the same transfer worked twice")
	}
}

// download reads a file of the guest, by stock calls.
func (o *operations) download(t *testing.T, path string) string {
	t.Helper()
	info, err := o.file.InitiateFileTransferFromGuest(t.Context(), o.good, path)
	if err != nil {
		t.Fatal(err)
	}
	source, err := o.file.TransferURL(t.Context(), info.Url)
	if err != nil {
		t.Fatal(err)
	}
	r, size, err := o.client.Client.Download(t.Context(), source, &soap.DefaultDownload)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, r)
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil || int64(b.Len()) != size || size != info.Size {
		t.Fatalf("read %s: %d bytes, told %d and %d, %v", path, b.Len(), size, info.Size, err)
	}
	return b.String()
}

// ended waits up to 10 s for a program's end and returns its exit code.
func (o *operations) ended(t *testing.T, pid int64) int32 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		list, err := o.process.ListProcesses(ctx, o.good, []int64{pid})
		if err != nil || len(list) != 1 {
			t.Fatalf("list process %d = %v, %v", pid, list, err)
		}
		if list[0].EndTime != nil {
			return list[0].ExitCode
		}
		select {
		case <-ctx.Done():
			t.Fatalf("process %d did not end", pid)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestPushAndRun(t *testing.T) {
	o := startOperations(t, "LAB_WORD=from the lab")
	ctx := t.Context()
	if err := o.file.MakeDirectory(ctx, o.good, home, false); !fault.Is(err, &types.FileNotFound{}) {
		t.Errorf("make a folder without its parent = %v, want FileNotFound", err)
	}
	if err := o.file.MakeDirectory(ctx, o.good, home, true); err != nil {
		t.Fatal(err)
	}
	if err := o.file.MakeDirectory(ctx, o.good, home, false); !fault.Is(err, &types.FileAlreadyExists{}) {
		t.Errorf("make a folder that exists = %v, want FileAlreadyExists", err)
	}
	script := "#!/bin/sh\necho \"$LAB_WORD $ASKED $0 $*\" > \"$2\"\nexit 7\n"
	o.upload(t, home+"/agent", script, 0o700)
	if info, err := os.Stat(filepath.Join(o.root, home, "agent")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("uploaded file = %v, %v, want mode 0700", info, err)
	}
	pid, err := o.process.StartProgram(ctx, o.good, &types.GuestProgramSpec{
		ProgramPath: home + "/agent", Arguments: "--ready-file '" + home + "/ready' >/dev/null 2>&1", EnvVariables: []string{"ASKED=by client"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if code := o.ended(t, pid); code != 7 {
		t.Errorf("exit code = %d, want 7", code)
	}
	at := filepath.Join(o.root, home)
	if got, want := o.download(t, home+"/ready"), "from the lab by client "+at+"/agent --ready-file "+at+"/ready\n"; got != want {
		t.Errorf("ready file = %q, want %q", got, want)
	}
	o.list(t)
	if err := o.file.DeleteFile(ctx, o.good, home); !fault.Is(err, &types.NotAFile{}) {
		t.Errorf("delete a folder as a file = %v, want NotAFile", err)
	}
	if err := o.file.DeleteDirectory(ctx, o.good, home, false); !fault.Is(err, &types.DirectoryNotEmpty{}) {
		t.Errorf("delete a full folder = %v, want DirectoryNotEmpty", err)
	}
	if err := o.file.DeleteFile(ctx, o.good, home+"/agent"); err != nil {
		t.Error(err)
	}
	if err := o.file.DeleteDirectory(ctx, o.good, home, true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder after its deletion: %v", err)
	}
	if _, err := o.file.InitiateFileTransferFromGuest(ctx, o.good, home+"/ready"); !fault.Is(err, &types.FileNotFound{}) {
		t.Errorf("read a file that has gone = %v, want FileNotFound", err)
	}
	for _, call := range o.server.Calls() {
		if strings.HasSuffix(call.Method, "InGuest") && call.VM != "lnx" {
			t.Errorf("%s is recorded for VM %q", call.Method, call.VM)
		}
	}
}

// list wants the two files of the agent's folder, in pages of three with the dots first.
func (o *operations) list(t *testing.T) {
	t.Helper()
	var names []string
	for index := int32(0); ; {
		page, err := o.file.ListFiles(t.Context(), o.good, home, index, 3, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page.Files {
			names = append(names, f.Path+" "+f.Type)
		}
		index += int32(len(page.Files))
		if page.Remaining == 0 {
			break
		}
	}
	if want := []string{". directory", ".. directory", "agent file", "ready file"}; !slices.Equal(names, want) {
		t.Errorf("files = %q, want %q", names, want)
	}
}

func TestTerminate(t *testing.T) {
	o := startOperations(t)
	start := func(program, args string) int64 {
		t.Helper()
		pid, err := o.process.StartProgram(t.Context(), o.good, &types.GuestProgramSpec{ProgramPath: program, Arguments: args})
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	first := start("/bin/sleep", "60")
	if err := o.process.TerminateProcess(t.Context(), o.good, first); err != nil {
		t.Fatal(err)
	}
	if code := o.ended(t, first); code != 128+int32(syscall.SIGTERM) {
		t.Errorf("exit code of a terminated program = %d", code)
	}
	if err := o.process.TerminateProcess(t.Context(), o.good, first); !fault.Is(err, &types.GuestProcessNotFound{}) {
		t.Errorf("terminate a program that has ended = %v, want GuestProcessNotFound", err)
	}
	second := start("/bin/sleep", "60")
	if got := o.managers.Processes("lnx"); len(got) != 1 || got[0] != (guests.Process{PID: int(second), Path: "/bin/sleep"}) {
		t.Errorf("processes = %+v, want %d", got, second)
	}
	if err := o.managers.Kill("lnx", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := o.ended(t, second); code != 128+int32(syscall.SIGKILL) {
		t.Errorf("exit code of a killed program = %d", code)
	}
	third := start("/bin/sleep", "60")
	if err := o.managers.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(int(third), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("program %d after the close: %v", third, err)
	}
	if _, err := o.process.StartProgram(t.Context(), o.good, &types.GuestProgramSpec{ProgramPath: "/no/such"}); !fault.Is(err, &types.FileNotFound{}) {
		t.Errorf("start of no program = %v, want FileNotFound", err)
	}
}

func TestRefusals(t *testing.T) {
	o := startOperations(t)
	ctx := t.Context()
	bad := &types.NamePasswordAuthentication{Username: "root", Password: "wrong"}
	if err := o.auth.ValidateCredentials(ctx, bad); !fault.Is(err, &types.InvalidGuestLogin{}) {
		t.Errorf("wrong guest password = %v, want InvalidGuestLogin", err)
	}
	if _, err := o.process.StartProgram(ctx, bad, &types.GuestProgramSpec{ProgramPath: "/bin/true"}); !fault.Is(err, &types.InvalidGuestLogin{}) {
		t.Errorf("start with a wrong password = %v, want InvalidGuestLogin", err)
	}
	if err := o.auth.ValidateCredentials(ctx, o.good); err != nil {
		t.Error(err)
	}
	if got, want := o.managers.Logons("lnx"), (guests.Logons{Good: 1, Refused: 2}); got != want {
		t.Errorf("logons = %+v, want %+v", got, want)
	}
	bare, _, _ := o.of(t, "bare")
	if err := bare.ValidateCredentials(ctx, o.good); !fault.Is(err, &types.GuestOperationsUnavailable{}) {
		t.Errorf("VM without a guest = %v, want GuestOperationsUnavailable", err)
	}
	o.escapes(t)
	if err := o.server.SetTools("lnx", false); err != nil {
		t.Fatal(err)
	}
	if err := o.auth.ValidateCredentials(ctx, o.good); !fault.Is(err, &types.GuestOperationsUnavailable{}) {
		t.Errorf("without Tools = %v, want GuestOperationsUnavailable", err)
	}
	if err := o.server.SetPower("lnx", "poweredOff"); err != nil {
		t.Fatal(err)
	}
	if err := o.auth.ValidateCredentials(ctx, o.good); !fault.Is(err, &types.InvalidPowerState{}) {
		t.Errorf("powered off = %v, want InvalidPowerState", err)
	}
	res, err := o.client.Client.Client.Get(o.server.URL().ResolveReference(&url.URL{Path: "/labGuestFile/", RawQuery: "token=guess"}).String())
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("transfer with a guessed token = %d, want 403", res.StatusCode)
	}
}

// escapes wants every way out of the root refused.
func (o *operations) escapes(t *testing.T) {
	t.Helper()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(o.root, "tmp", "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/../" + outside, "/tmp/../../etc/passwd", "etc/passwd", "", "/tmp/link", "/tmp/link/x"} {
		if _, err := o.file.InitiateFileTransferFromGuest(t.Context(), o.good, path); err == nil {
			t.Errorf("download of %q was allowed", path)
		}
		if err := o.file.DeleteFile(t.Context(), o.good, path); err == nil && path != "/tmp/link" {
			t.Errorf("delete of %q was allowed", path)
		}
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "secret" {
		t.Errorf("file outside = %q, %v", got, err)
	}
	if _, err := methods.MakeDirectoryInGuest(t.Context(), o.client, &types.MakeDirectoryInGuest{
		This: o.file.Reference(), Vm: types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-0"}, Auth: o.good, DirectoryPath: "/x",
	}); !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("a VM that is none = %v, want ManagedObjectNotFound", err)
	}
}

func TestNewManagersRefuses(t *testing.T) {
	for _, bad := range []guests.Machine{
		{Root: t.TempDir()}, {VM: "a", Root: "relative"}, {VM: "a", Root: "/tmp/with blank"}, {VM: "a", Root: filepath.Join(t.TempDir(), "none")},
	} {
		if _, err := guests.NewManagers(bad); err == nil {
			t.Errorf("NewManagers(%+v) was taken", bad)
		}
	}
}
