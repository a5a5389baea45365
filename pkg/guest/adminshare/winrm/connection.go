package winrm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bodgit/ntlmssp"

	"github.com/stillframe/stillframe/pkg/guest"
)

const (
	path = "/wsman"
	// bodyLimit and headLimit bound a reply. Servers send at most 512,000 bytes unless told otherwise (MaxEnvelopeSizekb).
	bodyLimit = 8 << 20
	headLimit = 64 << 10

	soapType   = "application/soap+xml;charset=UTF-8"
	sealedType = `multipart/encrypted;protocol="` + sealProtocol + `";boundary="` + boundary + `"`
)

// connection is a TCP connection on which at most one logon takes place, and after it only sealed messages go. Any error
// ends it.
type connection struct {
	conn    net.Conn
	raw     net.Conn // what conn goes over: closed itself, so that no farewell of TLS waits for a silent guest
	host    string
	limited *io.LimitedReader
	reader  *bufio.Reader
	// certificate is the server's, nil without TLS.
	certificate *x509.Certificate
	session     *ntlmssp.SecuritySession
	// proved is true when a reply came that only a holder of the session's key could have sealed.
	proved bool
	broken error

	closing  sync.Once
	closeErr error
}

// reply is what came over HTTP, the body whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// refuse makes an error that an operator can meet.
func refuse(code, op, format string, args ...any) error {
	return &guest.Error{SF: code, Op: op, Err: fmt.Errorf(format, args...)}
}

func dial(ctx context.Context, op string, o Options) (net.Conn, error) {
	dialCtx, cancel := context.WithTimeoutCause(ctx, dialLimit, fmt.Errorf("no connection within %v", dialLimit))
	defer cancel()
	makeConn := o.Dial
	if makeConn == nil {
		makeConn = (&net.Dialer{}).DialContext
	}
	conn, err := makeConn(dialCtx, "tcp", o.Address)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, fmt.Errorf("%s: %w", op, context.Cause(ctx))
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, refuse("SF3202", op, "%w: nothing listens there; start the WinRM service or its listener, or use another way in", err)
	}
	return nil, refuse("SF3201", op, "%w: no way to that port; look at firewalls, and at the address that VMware Tools gave", err)
}

// secure makes the connection ours, with TLS if it is to be. It closes conn when it returns an error.
func secure(ctx context.Context, op string, o Options, conn net.Conn) (*connection, error) {
	c := &connection{host: o.Address}
	if !o.TLS {
		c.use(conn, conn)
		return c, nil
	}
	secured := tls.Client(conn, tlsConfig(o))
	if err := secured.HandshakeContext(ctx); err != nil {
		err = handshakeError(ctx, op, err)
		if closeErr := conn.Close(); closeErr != nil && !errors.Is(closeErr, net.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
		return nil, err
	}
	c.certificate = secured.ConnectionState().PeerCertificates[0]
	c.use(secured, conn)
	return c, nil
}

func (c *connection) use(conn, raw net.Conn) {
	c.conn, c.raw = conn, raw
	c.limited = &io.LimitedReader{R: conn}
	c.reader = bufio.NewReader(c.limited)
}

// errPin is a certificate that is not the one that was pinned.
var errPin = errors.New("its SHA-256 is not the pinned one")

func tlsConfig(o Options) *tls.Config {
	host, _, _ := net.SplitHostPort(o.Address) //nolint:errcheck // check has split it
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots, ServerName: host, NextProtos: []string{"http/1.1"}}
	if o.Pin != [32]byte{} {
		config.InsecureSkipVerify = true // the pin replaces chain and name
		config.VerifyConnection = func(s tls.ConnectionState) error {
			if sha256.Sum256(s.PeerCertificates[0].Raw) != o.Pin {
				return errPin
			}
			return nil
		}
	}
	return config
}

func handshakeError(ctx context.Context, op string, err error) error {
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unverified) || errors.Is(err, errPin):
		return refuse("SF3503", op, "the server's certificate is not trusted: %w; name its issuer or pin the certificate", err)
	case ctx.Err() != nil:
		return cut(ctx, op, err)
	}
	return refuse("SF3501", op, "no TLS on that port: %w; 5986 has TLS, 5985 has not", err)
}

func (c *connection) close() error {
	c.closing.Do(func() { c.closeErr = c.raw.Close() })
	return c.closeErr
}

// cut says why a connection gave no answer.
func cut(ctx context.Context, op string, err error) error {
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	case ctx.Err() != nil:
		return refuse("SF3204", op, "the guest does not answer: %w; it may be overloaded, or frozen by another backup", context.Cause(ctx))
	case errors.As(err, &timeout) && timeout.Timeout():
		return refuse("SF3204", op, "the guest did not answer within %v: %w", exchangeLimit, err)
	}
	return refuse("SF3501", op, "the connection ended before the reply did: %w; see whether the WinRM service still runs", err)
}

// post sends one request, in one write, and reads its reply whole. ctx ends both. After an error the connection is closed.
func (c *connection) post(ctx context.Context, op, fields string, body []byte) (reply, error) {
	if err := c.spent(op); err != nil {
		return reply{}, err
	}
	r, err := c.exchange(ctx, op, fields, body)
	if err != nil {
		return reply{}, c.end(err)
	}
	return r, nil
}

// spent is the error of a connection that is not to be used again, with the code of what ended it.
func (c *connection) spent(op string) error {
	if code := guest.CodeOf(c.broken); code != "" {
		return refuse(code, op, "the connection is not used after an error: %w", c.broken)
	}
	if c.broken != nil {
		return fmt.Errorf("%s: the connection is not used after its end: %w", op, c.broken)
	}
	return nil
}

// end closes the connection because of err.
func (c *connection) end(err error) error {
	c.broken = err
	if closeErr := c.close(); closeErr != nil && !errors.Is(closeErr, net.ErrClosed) {
		return errors.Join(err, closeErr)
	}
	return err
}

func (c *connection) exchange(ctx context.Context, op, fields string, body []byte) (reply, error) {
	if c.reader.Buffered() > 0 {
		return reply{}, refuse(codeTampered, op, "the server sent %d bytes that nobody asked for", c.reader.Buffered())
	}
	if err := c.conn.SetDeadline(time.Now().Add(exchangeLimit)); err != nil {
		return reply{}, cut(ctx, op, err)
	}
	deadline := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { deadline <- c.conn.SetDeadline(time.Unix(1, 0)) })
	r, err := c.roundTrip(op, fields, body)
	if !stop() {
		// The end of ctx came in between: the past deadline is set and stays, so the connection is of no use.
		if setErr := <-deadline; err == nil {
			err = errors.Join(ctx.Err(), setErr)
		}
	}
	var known *guest.Error
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &known) && ctx.Err() == nil:
		return reply{}, err
	}
	return reply{}, cut(ctx, op, err)
}

func (c *connection) roundTrip(op, fields string, body []byte) (reply, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Stillframe\r\nConnection: Keep-Alive\r\n%sContent-Length: %d\r\n\r\n",
		path, c.host, fields, len(body))
	b.Write(body)
	if _, err := io.WriteString(c.conn, b.String()); err != nil {
		return reply{}, err
	}
	c.limited.N = headLimit + bodyLimit
	answer, err := http.ReadResponse(c.reader, &http.Request{Method: http.MethodPost})
	if err != nil {
		return reply{}, err
	}
	r := reply{status: answer.StatusCode, header: answer.Header}
	r.body, err = io.ReadAll(io.LimitReader(answer.Body, bodyLimit+1))
	closeErr := answer.Body.Close() // it reads on, up to the limit of both
	if len(r.body) > bodyLimit {
		return reply{}, refuse(codeTampered, op, "the server sent a reply of more than %d bytes", bodyLimit)
	}
	if err := errors.Join(err, closeErr); err != nil {
		return reply{}, err
	}
	return r, nil
}

// ask sends a message sealed and returns the message of the reply. A reply that is not sealed, not whole, not in order, or
// by another key is refused, whatever its status.
func (c *connection) ask(ctx context.Context, op string, message []byte) ([]byte, error) {
	if err := c.spent(op); err != nil {
		return nil, err
	}
	sealed, signature, err := c.session.Wrap(message)
	if err != nil || len(signature) != signatureBytes {
		return nil, c.end(refuse("SF3505", op, "the message could not be sealed, so it was not sent: %w", errors.Join(err, errNoSeal)))
	}
	r, err := c.post(ctx, op, "Content-Type: "+sealedType+"\r\n", envelope{len(message), signature, sealed}.bytes())
	if err != nil {
		return nil, err
	}
	if !isSealed(r.header.Get("Content-Type")) {
		return nil, c.end(c.unsealed(op, r.status))
	}
	e, err := parseEnvelope(r.body)
	if err != nil {
		return nil, c.end(refuse(codeTampered, op, "the sealed reply is not well-formed: %w", err))
	}
	plain, err := c.session.Unwrap(e.sealed, e.signature)
	if err != nil {
		return nil, c.end(refuse(codeTampered, op, "the reply was not sealed by the guest, or came out of order: %w", err))
	}
	c.proved = true
	return plain, nil
}

// unsealed says what a reply means that came in clear. Anybody on the way may have sent it: it ends the connection, and
// nothing of its body is read.
func (c *connection) unsealed(op string, status int) error {
	switch {
	case status == http.StatusUnauthorized && !c.proved:
		return refuse("SF3001", op, "the server refused the account (HTTP 401 to its first request): check name and password, and that it is "+
			"in Administrators or Remote Management Users")
	case status == http.StatusNotFound || status == http.StatusServiceUnavailable:
		return refuse("SF3501", op, "the server answers HTTP %d: no WinRM there, or it is being stopped", status)
	}
	return refuse("SF3505", op, "the server answered in clear (HTTP %d) to a sealed request: refused, whatever it says", status)
}
