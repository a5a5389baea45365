package adminshare

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"

	"github.com/hirochachacha/go-smb2"
)

// hirochachacha is a session of github.com/hirochachacha/go-smb2.
type hirochachacha struct {
	session *smb2.Session
	host    string
}

func openHirochachacha(ctx context.Context, conn net.Conn, host string, a Account) (client, error) {
	d := smb2.Dialer{
		Negotiator: smb2.Negotiator{RequireMessageSigning: true},
		Initiator:  &smb2.NTLMInitiator{User: a.User, Password: a.Password, Domain: a.Domain},
	}
	s, err := d.DialContext(ctx, conn)
	if err != nil {
		return nil, err
	}
	return hirochachacha{s, host}, nil
}

func (c hirochachacha) share(ctx context.Context, name string) (*smb2.Share, error) {
	return c.session.WithContext(ctx).Mount(`\\` + c.host + `\` + name)
}

func (c hirochachacha) mount(ctx context.Context, name string) (Share, error) {
	s, err := c.share(ctx, name)
	if err != nil {
		return nil, err
	}
	return hirochachachaShare{s}, nil
}

func (c hirochachacha) pipe(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	s, err := c.share(ctx, "IPC$")
	if err != nil {
		return nil, err
	}
	return s.WithContext(ctx).OpenFile(name, os.O_RDWR, 0)
}

func (c hirochachacha) logoff(ctx context.Context) error { return c.session.WithContext(ctx).Logoff() }

// hirochachachaShare is a share of such a session.
type hirochachachaShare struct{ share *smb2.Share }

var _ Share = hirochachachaShare{}

func (s hirochachachaShare) Mkdir(ctx context.Context, path string) error {
	return s.share.WithContext(ctx).Mkdir(path, 0o700)
}

func (s hirochachachaShare) Create(ctx context.Context, path string) (io.WriteCloser, error) {
	return s.share.WithContext(ctx).OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
}

func (s hirochachachaShare) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	return s.share.WithContext(ctx).Open(path)
}

func (s hirochachachaShare) List(ctx context.Context, path string) ([]fs.FileInfo, error) {
	return s.share.WithContext(ctx).ReadDir(path)
}

func (s hirochachachaShare) Remove(ctx context.Context, path string) error {
	return s.share.WithContext(ctx).Remove(path)
}

func (s hirochachachaShare) Room(ctx context.Context, path string) (int64, error) {
	info, err := s.share.WithContext(ctx).Statfs(path)
	if err != nil {
		return 0, err
	}
	return int64(info.AvailableBlockCount() * info.BlockSize() * info.FragmentSize()), nil
}

// readHirochachacha brings an error of the library to one form.
func readHirochachacha(err error) (f failure, ok bool) {
	var response *smb2.ResponseError
	var transport *smb2.TransportError
	var invalid *smb2.InvalidResponseError
	var ended *smb2.ContextError // it has no Unwrap: errors.Is does not see the end of the context behind it
	switch {
	case errors.As(err, &ended):
		return failure{ended: ended.Err}, true
	case errors.As(err, &response):
		return failure{status: response.Code}, true
	case errors.As(err, &transport):
		return failure{broken: transport.Err}, true
	case errors.As(err, &invalid):
		return failure{invalid: invalid.Message}, true
	}
	return failure{}, false
}
