package guests

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strconv"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	// maxUpload bounds one file, in bytes: it is held in memory.
	maxUpload = 1 << 30
	// transferLife is how long a transfer's token is good.
	transferLife = 10 * time.Minute
)

// transfer is what a token allows, once.
type transfer struct {
	guest     *machine
	at        string // below the root
	put       bool
	size      int64
	mode      fs.FileMode
	overwrite bool
	until     time.Time
}

func newToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// grant makes the token of a transfer.
func (m *Managers) grant(t transfer) string {
	token := newToken()
	t.until = time.Now().Add(transferLife)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.transfers[token] = t
	return token
}

// redeem uses the token up; false when it was never given, is used or too old.
func (m *Managers) redeem(token string) (transfer, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.transfers[token]
	delete(m.transfers, token)
	return t, ok && time.Now().Before(t.until)
}

// InitiateFileTransferToGuest allows one upload. The file gets the mode asked for, or 0644.
func (f *fileManager) InitiateFileTransferToGuest(ctx *simulator.Context, req *types.InitiateFileTransferToGuest) soap.HasFault {
	guest, at, fault := f.enter(ctx, req.Vm, req.Auth, req.GuestFilePath)
	mode := fs.FileMode(0o644) // GuestPosixFileAttributes.permissions
	if fault == nil {
		if posix, ok := req.FileAttributes.(*types.GuestPosixFileAttributes); ok && posix.Permissions != 0 {
			mode = fs.FileMode(posix.Permissions) & fs.ModePerm
		}
		info, err := guest.root.Lstat(at)
		switch {
		case err == nil && !info.Mode().IsRegular():
			fault = &types.NotAFile{FileFault: types.FileFault{File: req.GuestFilePath}}
		case err == nil && !req.Overwrite:
			fault = &types.FileAlreadyExists{FileFault: types.FileFault{File: req.GuestFilePath}}
		case err != nil && !os.IsNotExist(err):
			fault = fileFault(err, req.GuestFilePath)
		case req.FileSize < 0 || req.FileSize > maxUpload:
			fault = &types.InvalidArgument{InvalidProperty: "fileSize"}
		default:
			if _, err := guest.root.Stat(path.Dir(at)); err != nil {
				fault = fileFault(err, req.GuestFilePath)
			}
		}
	}
	if fault != nil {
		return &methods.InitiateFileTransferToGuestBody{Fault_: refuse(fault)}
	}
	token := f.all.grant(transfer{guest: guest, at: at, put: true, size: req.FileSize, mode: mode, overwrite: req.Overwrite})
	return &methods.InitiateFileTransferToGuestBody{
		Res: &types.InitiateFileTransferToGuestResponse{Returnval: transferURL(token)},
	}
}

// InitiateFileTransferFromGuest allows one download.
func (f *fileManager) InitiateFileTransferFromGuest(ctx *simulator.Context, req *types.InitiateFileTransferFromGuest,
) soap.HasFault {
	guest, at, fault := f.enter(ctx, req.Vm, req.Auth, req.GuestFilePath)
	body := &methods.InitiateFileTransferFromGuestBody{}
	if fault == nil {
		info, err := guest.root.Stat(at)
		switch {
		case err != nil:
			fault = fileFault(err, req.GuestFilePath)
		case !info.Mode().IsRegular():
			fault = &types.NotAFile{FileFault: types.FileFault{File: req.GuestFilePath}}
		default:
			body.Res = &types.InitiateFileTransferFromGuestResponse{Returnval: types.FileTransferInformation{
				Attributes: guest.attributes(info), Size: info.Size(), Url: transferURL(f.all.grant(transfer{guest: guest, at: at})),
			}}
		}
	}
	if fault != nil {
		body.Fault_ = refuse(fault)
	}
	return body
}

// ServeHTTP is the host's side of a transfer: PUT or GET with a token that is good once.
func (m *Managers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, ok := m.redeem(r.URL.Query().Get("token"))
	if !ok || (t.put && r.Method != http.MethodPut) || (!t.put && r.Method != http.MethodGet) {
		http.Error(w, "the lab knows no such transfer", http.StatusForbidden)
		return
	}
	serve := t.send
	if t.put {
		serve = t.receive
	}
	if err := serve(w, r); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// receive stores an upload; one of another size than announced is refused and leaves no file.
func (t transfer) receive(_ http.ResponseWriter, r *http.Request) error {
	content, err := io.ReadAll(io.LimitReader(r.Body, t.size+1))
	if err != nil {
		return fmt.Errorf("read upload: %w", err)
	}
	if int64(len(content)) != t.size {
		return fmt.Errorf("store upload: got %d or more bytes, announced were %d", len(content), t.size)
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	if !t.overwrite {
		flags |= os.O_EXCL
	}
	// A program started meanwhile must not inherit the open file: executing it would then be ETXTBSY.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	file, err := t.guest.root.OpenFile(t.at, flags, 0o600)
	if err != nil {
		return fmt.Errorf("store upload: %w", err)
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Chmod(t.mode)
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("store upload: %w", err)
	}
	return nil
}

// send answers a download.
func (t transfer) send(w http.ResponseWriter, _ *http.Request) error {
	content, err := t.guest.root.ReadFile(t.at)
	if err != nil {
		return fmt.Errorf("read file of guest: %w", err)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("send file of guest: %w", err)
	}
	return nil
}
