package adminshare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/stillframe/stillframe/pkg/guest"
)

// Port is where Windows serves SMB.
const Port = 445

// Limits of one session, no two equal.
const (
	dialLimit    = 5 * time.Second
	sessionLimit = 10 * time.Second
	logoffLimit  = time.Second
)

// adminShare is the share of %SystemRoot%, whose folder ordinary users can read and execute in, and no more.
const adminShare = "ADMIN$"

// mountError is what comes after a good logon.
type mountError struct{ error }

func (e *mountError) Unwrap() error { return e.error }

// session is one SMB session with ADMIN$ mounted. It is used until the first error and never after the end of a context.
type session struct {
	conn    *watched
	client  client
	admin   Share
	library Library
	host    string
}

// open dials, logs on with the library that fits the server, and mounts ADMIN$. The first library is the default one; where
// the session does not encrypt, which the default one's defect is met in, the session is made anew with the other: the logon
// was good, so that it costs no attempt of a password.
func open(ctx context.Context, o Options) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, sessionLimit)
	defer cancel()
	library := o.Library
	if library == "" {
		library = Hirochachacha
	}
	s, err := logon(ctx, o, library)
	if err == nil && library == Hirochachacha && !s.conn.agreed().encrypts {
		s.close(ctx)
		s, err = logon(ctx, o, Cloudsoda)
	}
	if err != nil {
		return nil, err
	}
	s.admin, err = s.client.mount(ctx, adminShare)
	if err != nil {
		err = &mountError{explain(atMount, "connect to "+adminShare+" of "+s.host, s.conn.agreed(), err)}
		s.close(ctx)
		return nil, err
	}
	return s, nil
}

// logon makes one session.
func logon(ctx context.Context, o Options, library Library) (*session, error) {
	plain, host, err := dial(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &session{conn: &watched{Conn: plain}, library: library, host: host}
	stop := context.AfterFunc(ctx, func() { s.conn.shut() })
	defer stop()
	setUp := openHirochachacha
	if library == Cloudsoda {
		setUp = openCloudsoda
	}
	s.client, err = setUp(ctx, s.conn, host, o.Account)
	if s.conn.agreed().guest {
		err = &guest.Error{SF: "SF3303", Op: "log on to " + host, Err: errors.New("the server let the account in as a guest, or as nobody: nothing is signed then")}
	}
	if err != nil {
		err = explain(atSession, "log on to "+host+" by SMB", s.conn.agreed(), errors.Join(err, context.Cause(ctx)))
		s.conn.shut()
		return nil, err
	}
	return s, nil
}

// dial tries the addresses in their order.
func dial(ctx context.Context, o Options) (net.Conn, string, error) {
	if len(o.Addresses) == 0 {
		return nil, "", &guest.Error{SF: "SF3201", Op: "find the guest in the network", Err: errors.New("VMware Tools report no address of it: give --guest-address")}
	}
	var all error
	for _, host := range o.Addresses {
		d := net.Dialer{Timeout: dialLimit}
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(Port)))
		if err == nil {
			return conn, host, nil
		}
		all = errors.Join(all, explain(atDial, fmt.Sprintf("connect to port %d of %s", Port, host), terms{}, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, "", all
}

// pipe opens a pipe of the server, such as svcctl. Its calls end with ctx.
func (s *session) pipe(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	p, err := s.client.pipe(ctx, name)
	if err != nil {
		return nil, explain(atFile, "open the pipe "+name+" of "+s.host, s.conn.agreed(), err)
	}
	return p, nil
}

// close says goodbye within a second, and ends the connection whatever comes of that: nothing depends on it.
func (s *session) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoffLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, s.conn.shut)
	if err := s.client.logoff(ctx); err != nil {
		s.conn.shut()
	}
	stop()
	s.conn.shut()
}

// shut ends the connection; it has been given up, so that an error tells nobody anything.
func (w *watched) shut() {
	if err := w.Conn.Close(); err != nil {
		return
	}
}
