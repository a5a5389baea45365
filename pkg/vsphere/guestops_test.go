package vsphere

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// TestStockSimulatorHasNoGuest: its AuthManager is missing, its others panic when used. Nothing of them is called.
func TestStockSimulatorHasNoGuest(t *testing.T) {
	s := newScene(t, nil)
	g := NewGuestOps(s.e, s.vm, login("root", "pw"))
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Validate":  func() error { return g.Validate(ctx) },
		"MakeDir":   func() error { return g.MakeDir(ctx, "/a") },
		"Upload":    func() error { return g.Upload(ctx, "/a/b", 1, strings.NewReader("x")) },
		"Fetch":     func() error { _, err := g.Fetch(ctx, "/a/b", 10); return err },
		"Start":     func() error { _, err := g.Start(ctx, "/a/b", nil, nil); return err },
		"Wait":      func() error { _, err := g.Wait(ctx, 7); return err },
		"Running":   func() error { _, err := g.Running(ctx, 7); return err },
		"List":      func() error { _, err := g.List(ctx, "/a"); return err },
		"Remove":    func() error { return g.Remove(ctx, "/a", true) },
		"Terminate": func() error { return g.Terminate(ctx, 7) },
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, call(), "SF3601") })
	}
	for _, c := range s.take() {
		if strings.HasSuffix(c, "InGuest") || strings.Contains(c, "Guest_") {
			t.Errorf("call %s to a server without guest managers", c)
		}
	}
}

// guest is a small guest of the simulator: files in memory, programs that only exit.
type guest struct {
	mu          sync.Mutex
	front       func() string
	unavailable int // answers GuestOperationsUnavailable so many times
	files       map[string][]byte
	dirs        map[string]bool
	started     []types.GuestProgramSpec
	polls       int
}

type (
	authManager struct {
		mo.GuestAuthManager
		g *guest
	}
	fileManager struct {
		mo.GuestFileManager
		g *guest
	}
	processManager struct {
		mo.GuestProcessManager
		g *guest
	}
)

// enter locks and checks the account.
func (g *guest) enter(auth types.BaseGuestAuthentication) types.BaseMethodFault {
	if g.unavailable > 0 {
		g.unavailable--
		return &types.GuestOperationsUnavailable{}
	}
	if a, ok := auth.(*types.NamePasswordAuthentication); !ok || a.Username != "root" || a.Password != "pw" {
		return &types.InvalidGuestLogin{}
	}
	return nil
}

func (m *authManager) ValidateCredentialsInGuest(req *types.ValidateCredentialsInGuest) soap.HasFault {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	if f := m.g.enter(req.Auth); f != nil {
		return &methods.ValidateCredentialsInGuestBody{Fault_: simulator.Fault("", f)}
	}
	return &methods.ValidateCredentialsInGuestBody{Res: &types.ValidateCredentialsInGuestResponse{}}
}

func (m *fileManager) MakeDirectoryInGuest(req *types.MakeDirectoryInGuest) soap.HasFault {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	f := m.g.enter(req.Auth)
	if f == nil && m.g.dirs[req.DirectoryPath] {
		f = &types.FileAlreadyExists{}
	}
	if f != nil {
		return &methods.MakeDirectoryInGuestBody{Fault_: simulator.Fault("", f)}
	}
	m.g.dirs[req.DirectoryPath] = true
	return &methods.MakeDirectoryInGuestBody{Res: &types.MakeDirectoryInGuestResponse{}}
}

func (m *fileManager) InitiateFileTransferToGuest(req *types.InitiateFileTransferToGuest) soap.HasFault {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	f := m.g.enter(req.Auth)
	if _, ok := m.g.files[req.GuestFilePath]; f == nil && ok && !req.Overwrite {
		f = &types.FileAlreadyExists{}
	}
	if a, ok := req.FileAttributes.(*types.GuestPosixFileAttributes); !ok || a.Permissions != 0o700 {
		f = &types.InvalidArgument{InvalidProperty: "permissions"}
	}
	if f != nil {
		return &methods.InitiateFileTransferToGuestBody{Fault_: simulator.Fault("", f)}
	}
	return &methods.InitiateFileTransferToGuestBody{Res: &types.InitiateFileTransferToGuestResponse{
		Returnval: "https://*/testGuestFile?token=hidden-token&path=" + url.QueryEscape(req.GuestFilePath),
	}}
}

func (m *fileManager) InitiateFileTransferFromGuest(req *types.InitiateFileTransferFromGuest) soap.HasFault {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	f := m.g.enter(req.Auth)
	data, ok := m.g.files[req.GuestFilePath]
	if f == nil && !ok {
		f = &types.FileNotFound{FileFault: types.FileFault{File: req.GuestFilePath}}
	}
	if f != nil {
		return &methods.InitiateFileTransferFromGuestBody{Fault_: simulator.Fault("", f)}
	}
	return &methods.InitiateFileTransferFromGuestBody{Res: &types.InitiateFileTransferFromGuestResponse{
		Returnval: types.FileTransferInformation{
			Size: int64(len(data)),
			Url:  m.g.front() + "/testGuestFile?token=hidden-token&path=" + url.QueryEscape(req.GuestFilePath),
		},
	}}
}

func (m *fileManager) ListFilesInGuest(req *types.ListFilesInGuest) soap.HasFault {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	all := []string{".", ".."}
	for name := range m.g.files {
		if rest, ok := strings.CutPrefix(name, req.FilePath+"/"); ok {
			all = append(all, rest)
		}
	}
	slices.Sort(all)
	page := all[req.Index:min(int(req.Index)+2, len(all))] // two a page
	res := types.GuestListFileInfo{Remaining: int32(len(all)) - req.Index - int32(len(page))}
	for _, name := range page {
		res.Files = append(res.Files, types.GuestFileInfo{Path: name, Attributes: &types.GuestPosixFileAttributes{}})
	}
	return &methods.ListFilesInGuestBody{Res: &types.ListFilesInGuestResponse{Returnval: res}}
}

func (m *fileManager) DeleteFileInGuest(req *types.DeleteFileInGuest) soap.HasFault {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	if _, ok := m.g.files[req.FilePath]; !ok {
		return &methods.DeleteFileInGuestBody{Fault_: simulator.Fault("", &types.FileNotFound{})}
	}
	delete(m.g.files, req.FilePath)
	return &methods.DeleteFileInGuestBody{Res: &types.DeleteFileInGuestResponse{}}
}

func (m *processManager) StartProgramInGuest(req *types.StartProgramInGuest) soap.HasFault {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	if f := m.g.enter(req.Auth); f != nil {
		return &methods.StartProgramInGuestBody{Fault_: simulator.Fault("", f)}
	}
	spec, ok := req.Spec.(*types.GuestProgramSpec)
	if !ok {
		return &methods.StartProgramInGuestBody{Fault_: simulator.Fault("", &types.InvalidArgument{})}
	}
	m.g.started = append(m.g.started, *spec)
	return &methods.StartProgramInGuestBody{Res: &types.StartProgramInGuestResponse{Returnval: 77}}
}

// ListProcessesInGuest ends the program at the third look.
func (m *processManager) ListProcessesInGuest(req *types.ListProcessesInGuest) soap.HasFault {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	if f := m.g.enter(req.Auth); f != nil {
		return &methods.ListProcessesInGuestBody{Fault_: simulator.Fault("", f)}
	}
	body := &methods.ListProcessesInGuestBody{Res: &types.ListProcessesInGuestResponse{}}
	if len(m.g.started) == 0 || !slices.Equal(req.Pids, []int64{77}) {
		return body
	}
	p := types.GuestProcessInfo{Name: "agent", Pid: 77, StartTime: time.Now()}
	if m.g.polls++; m.g.polls >= 3 {
		p.EndTime, p.ExitCode = types.NewTime(time.Now()), 4
	}
	body.Res.Returnval = append(body.Res.Returnval, p)
	return body
}

func (m *processManager) TerminateProcessInGuest(req *types.TerminateProcessInGuest) soap.HasFault {
	return &methods.TerminateProcessInGuestBody{Fault_: simulator.Fault("", &types.GuestProcessNotFound{Pid: req.Pid})}
}

// serveFiles is the transfer endpoint.
func (g *guest) serveFiles(rw http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	path := r.URL.Query().Get("path")
	if r.Method == http.MethodPut {
		data, err := io.ReadAll(r.Body)
		if err == nil {
			g.files[path] = data
		}
		return
	}
	rw.Write(g.files[path]) //nolint:errcheck // the client's error tells
}

func newGuestScene(t *testing.T) (*scene, *guest) {
	t.Helper()
	g := &guest{files: map[string][]byte{}, dirs: map[string]bool{}}
	s := newScene(t, func(m *simulator.Model) {
		registry := m.Map()
		ops := registry.Get(*m.ServiceContent.GuestOperationsManager).(*simulator.GuestOperationsManager)
		auth := &authManager{g: g}
		auth.Self = types.ManagedObjectReference{Type: "GuestAuthManager", Value: "guestOperationsAuthManager"}
		files, processes := &fileManager{g: g}, &processManager{g: g}
		files.Self, processes.Self = *ops.FileManager, *ops.ProcessManager
		ops.AuthManager = &auth.Self
		for _, o := range []mo.Reference{auth, files, processes} {
			registry.Put(o)
		}
		m.Service.HandleFunc("/testGuestFile", g.serveFiles)
	})
	g.front = func() string { return s.front.URL }
	return s, g
}

func TestGuestFiles(t *testing.T) {
	s, in := newGuestScene(t)
	g := NewGuestOps(s.e, s.vm, login("root", "pw"))
	ctx := t.Context()
	if err := g.MakeDir(ctx, "/var/a"); err != nil {
		t.Fatal(err)
	}
	err := g.MakeDir(ctx, "/var/a")
	wantCode(t, err, "SF3607")
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("MakeDir of an existing directory gave %v, want fs.ErrExist", err)
	}
	data := bytes.Repeat([]byte("stillframe"), 100_000)
	if err := g.Upload(ctx, "/var/a/agent", int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	s.take()
	if err := g.Upload(ctx, "/var/a/empty", 0, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if got, want := s.take(), []string{"InitiateFileTransferToGuest", "PUT /testGuestFile"}; !slices.Equal(got, want) {
		t.Errorf("calls of a second upload %v, want %v", got, want)
	}
	wantCode(t, g.Upload(ctx, "/var/a/agent", 1, strings.NewReader("x")), "SF3607")
	got, err := g.Fetch(ctx, "/var/a/agent", int64(len(data)))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("Fetch gave %d bytes, %v, want what was uploaded", len(got), err)
	}
	if _, err := g.Fetch(ctx, "/var/a/agent", 10); !errors.Is(err, errTooLarge) {
		t.Errorf("Fetch of a large file gave %v, want %v", err, errTooLarge)
	}
	_, err = g.Fetch(ctx, "/var/a/agent.ready", 10)
	wantCode(t, err, "SF3406")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Fetch of a missing file gave %v, want fs.ErrNotExist", err)
	}
	names, err := g.List(ctx, "/var/a")
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"agent", "empty"}) {
		t.Errorf("List = %q, %v", names, err)
	}
	for range 2 { // the second time it is gone
		if err := g.Remove(ctx, "/var/a/agent", false); err != nil {
			t.Error(err)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.files) != 1 {
		t.Errorf("%d files left, want 1", len(in.files))
	}
}

func TestGuestPrograms(t *testing.T) {
	s, in := newGuestScene(t)
	g := NewGuestOps(s.e, s.vm, login("root", "pw"))
	if err := g.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.take()
	pid, err := g.Start(t.Context(), "/var/a/agent", []string{"run", "--only-mount", "/mnt/a b"}, []string{"A=1"})
	if err != nil || pid != 77 {
		t.Fatalf("Start = %d, %v", pid, err)
	}
	if got := s.take(); !slices.Equal(got, []string{"StartProgramInGuest"}) {
		t.Errorf("calls of Start %v, want one", got)
	}
	if got := in.started[0]; got.Arguments != "run --only-mount '/mnt/a b'" || !slices.Equal(got.EnvVariables, []string{"A=1"}) {
		t.Errorf("program %+v", got)
	}
	if running, err := g.Running(t.Context(), pid); err != nil || !running {
		t.Errorf("Running = %v, %v", running, err)
	}
	if running, err := g.Running(t.Context(), 5); err != nil || running {
		t.Errorf("Running of an unknown process = %v, %v", running, err)
	}
	if code, err := g.Wait(t.Context(), pid); err != nil || code != 4 {
		t.Errorf("Wait = %d, %v, want 4", code, err)
	}
	_, err = g.Wait(t.Context(), 5)
	wantCode(t, err, "SF3606")
	if err := g.Terminate(t.Context(), 5); err != nil {
		t.Errorf("Terminate of an unknown process gave %v", err)
	}
}

func TestGuestLoginIsOneAttempt(t *testing.T) {
	s, _ := newGuestScene(t)
	g := NewGuestOps(s.e, s.vm, login("root", "wrong-secret"))
	for range 3 {
		err := g.Validate(t.Context())
		wantCode(t, err, "SF3001")
		if strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("error %v shows the password", err)
		}
	}
	_, err := g.Start(t.Context(), "/a", nil, nil)
	wantCode(t, err, "SF3001")
	if n := s.count("ValidateCredentialsInGuest") + s.count("StartProgramInGuest"); n != 1 {
		t.Errorf("%d logon attempts, want 1", n)
	}
}

// TestToolsComeUp: what changes nothing waits for VMware Tools; a start does not.
func TestToolsComeUp(t *testing.T) {
	s, in := newGuestScene(t)
	g := NewGuestOps(s.e, s.vm, login("root", "pw"))
	in.unavailable = 1
	_, err := g.Start(t.Context(), "/a", nil, nil)
	wantCode(t, err, "SF3601")
	in.mu.Lock()
	in.unavailable = 2
	in.mu.Unlock()
	if err := g.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	in.mu.Lock()
	in.unavailable = 1_000
	in.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	wantCode(t, g.Validate(ctx), "SF3601")
}

// TestTransferRoute: another host than the endpoint is trusted by the thumbprint that vCenter knows of it, only.
func TestTransferRoute(t *testing.T) {
	s, _ := newGuestScene(t)
	g := NewGuestOps(s.e, s.vm, login("root", "pw"))
	vm := vmOf(t, s.model, s.vm.Name)
	host := s.model.Map().Get(*vm.Runtime.Host).(*simulator.HostSystem)
	u, err := url.Parse(s.front.URL)
	if err != nil {
		t.Fatal(err)
	}
	other := "https://localhost:" + u.Port() + "/testGuestFile?token=hidden-token&path=/x"
	if err := g.put(t.Context(), "https://*/testGuestFile?path=/x", 1, strings.NewReader("x")); err != nil {
		t.Error(err)
	}
	host.Summary.Config.SslThumbprint = strings.Repeat("AB:", 19) + "AB"
	_, err = g.get(t.Context(), other, 10)
	wantCode(t, failure("fetch", "x", err), "SF2003")
	host.Summary.Config.SslThumbprint = ""
	_, err = g.get(t.Context(), other, 10)
	wantCode(t, failure("fetch", "x", err), "SF2003")
	host.Summary.Config.SslThumbprint = s.sha1()
	if data, err := g.get(t.Context(), other, 10); err != nil || string(data) != "x" {
		t.Errorf("transfer through a pinned host gave %q, %v", data, err)
	}
	_, err = g.get(t.Context(), "https://127.0.0.1:1/testGuestFile?token=hidden-token", 10)
	wantCode(t, err, "SF3612")
	if strings.Contains(err.Error(), "hidden-token") {
		t.Errorf("error %v shows the transfer token", err)
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		windows bool
		args    []string
		want    string
	}{
		{false, []string{"run", "--port", "6465"}, "run --port 6465"},
		{false, []string{"", "it's", "$HOME"}, `'' 'it'\''s' '$HOME'`},
		{true, []string{"run", `C:\a\b`}, `run C:\a\b`},
		{true, []string{`C:\a b\`, `say "x"`, ""}, `"C:\a b\\" "say \"x\"" ""`},
	} {
		if got := commandLine(c.windows, c.args); got != c.want {
			t.Errorf("commandLine(%v, %q) = %s, want %s", c.windows, c.args, got, c.want)
		}
	}
}
