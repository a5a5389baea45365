package lab

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"

	"github.com/stillframe/stillframe/pkg/lab/svcctl"
)

// WaysOf is what the ways into a wine guest saw.
type WaysOf struct {
	// ShareLogons is how often an account was tried at the share, by smbd's own log, and WinRMLogons at WinRM.
	ShareLogons int `json:"share_logons"`
	WinRMLogons int `json:"winrm_logons"`
	// Services are the calls of the service control manager since this was asked last, in their order.
	Services []svcctl.Record `json:"services"`
}

// WaysOf tells what the ways into a guest saw; found is false where there are none.
func (w *World) WaysOf(name string) (seen WaysOf, found bool, err error) {
	m := w.machine(name)
	if m == nil || m.doors == nil {
		return seen, false, nil
	}
	seen.Services = []svcctl.Record{}
	if m.doors.winrm != nil {
		seen.WinRMLogons = m.doors.winrm.Logons()
	}
	if m.doors.manager != nil {
		seen.Services = append(seen.Services, m.doors.manager.Take()...)
	}
	if m.doors.share != nil {
		seen.ShareLogons, err = shareLogons(m.doors.shareDir)
	}
	return seen, true, err
}

// shareLogons counts what Samba's class auth_audit says of each logon (smb.conf(5), "log level"), whether it went well or not.
func shareLogons(dir string) (int, error) {
	logs, err := filepath.Glob(filepath.Join(dir, "log", "log.*"))
	n := 0
	for _, log := range logs {
		text, readErr := os.ReadFile(log)
		err = errors.Join(err, readErr)
		n += bytes.Count(text, []byte("Auth: [SMB2,"))
	}
	return n, err
}
