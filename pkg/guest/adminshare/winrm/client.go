// Package winrm runs commands in a Windows guest by WinRM, every byte of them sealed.
//
// One client is one TCP connection with one NTLM session: the account is tried exactly once. What is said after the logon
// is sealed by that session, under TLS as well, and only sealed replies are believed. There is no way to send anything
// else: no Basic, no proxy of the environment, no netrc, no redirect, no second try.
//
// Without TLS the names of account and domain go in clear, as NTLM has it, and who listens can try passwords against the
// logon that he heard: only a good password, or TLS, is proof against that.
//
// No real Windows has been asked yet: what is marked (unverified) is as documented, or as the lab's double has it.
package winrm

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// dialLimit bounds the TCP connection, logonLimit the handshakes of TLS and NTLM after it.
	dialLimit  = 5 * time.Second
	logonLimit = 10 * time.Second
	// operationLimit is how long the server waits for output before it says that there is none yet.
	operationLimit = 20 * time.Second
	// exchangeLimit bounds one request with its reply. It is longer than operationLimit, so that a silent command is told
	// from a silent server.
	exchangeLimit = 27 * time.Second
	// runLimit bounds a command whose context has no deadline.
	runLimit = 150 * time.Second
	// deleteLimit bounds the removal of a shell, which follows even when the command's context has ended.
	deleteLimit = 6 * time.Second
	// receiveRounds bounds how often output is asked for. Each round waits up to operationLimit or brings output.
	receiveRounds = 1 << 16
	// outputLimit bounds both streams of a command together.
	outputLimit = 1 << 20
	// inputLimit bounds the standard input of a command, which goes in one request: a request has at most 153,600 bytes
	// (MaxEnvelopeSizekb of old servers), in which base64 takes four for three.
	inputLimit = 64 << 10
)

// Options say whom to ask and as whom. Address, User and Password are needed.
type Options struct {
	// Address is host:port, 5985 without and 5986 with TLS if nobody changed it.
	Address string
	TLS     bool
	// Roots are who may have signed the server's certificate; nil means the roots of this machine.
	Roots *x509.CertPool
	// Pin is the SHA-256 of the server's own certificate, as DER; zero for none. It replaces Roots and the name.
	Pin [32]byte
	// Domain is empty or "." for an account of the guest itself, and for a User of the form user@realm.
	Domain, User, Password string
	// Dial makes the connection; nil is a plain dial.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (o Options) check() error {
	host, port, err := net.SplitHostPort(o.Address)
	switch {
	case err != nil:
		return err
	case host == "" || port == "" || strings.ContainsFunc(o.Address, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("the address %q is not host:port", o.Address)
	case o.User == "" || o.Password == "":
		return errors.New("the account has no name or no password: NTLM would log on as nobody")
	case !o.TLS && (o.Pin != [32]byte{} || o.Roots != nil):
		return errors.New("a certificate is expected of a connection without TLS")
	}
	return nil
}

// ErrNotRun is an error of Run after which the command has certainly not begun. After any other it may have.
var ErrNotRun = errors.New("the command has not begun")

// notRun is such an error.
type notRun struct{ error }

func (n notRun) Unwrap() error { return n.error }

func (n notRun) Is(target error) bool { return target == ErrNotRun }

// Output is what a command wrote, and its exit status.
type Output struct {
	Stdout, Stderr []byte
	Exit           int
}

// Client is one session with one server. It does one thing at a time; a second Run waits for the first.
type Client struct {
	turn sync.Mutex
	conn *connection
	url  string
	left error // a shell that could not be deleted
}

// Open dials and logs on; nothing runs yet. It takes at most 15 s. That the server knows the account is proved only by
// the first sealed reply, of Run. Close must be called. Errors are *guest.Error, unless ctx was cancelled.
func Open(ctx context.Context, o Options) (*Client, error) {
	op := "log on to WinRM of " + o.Address
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if o.Domain == "." {
		o.Domain = ""
	}
	raw, err := dial(ctx, op, o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, logonLimit, fmt.Errorf("no logon within %v", logonLimit))
	defer cancel()
	conn, err := secure(ctx, op, o, raw)
	if err != nil {
		return nil, err
	}
	if err := conn.logon(ctx, op, o); err != nil {
		return nil, errors.Join(err, conn.close())
	}
	scheme := "http"
	if o.TLS {
		scheme = "https"
	}
	return &Client{conn: conn, url: scheme + "://" + o.Address + path}, nil
}

// Close ends the connection, and with it what Run still does. Its error says also which shell stayed in the guest, if
// any. It may be called more than once.
func (c *Client) Close() error {
	err := c.conn.close()
	c.turn.Lock()
	defer c.turn.Unlock()
	left := c.left
	c.left = nil
	return errors.Join(left, err)
}

// Run runs a command line of cmd.exe in a shell of its own, gives it stdin to its end, and waits for the command. When Run
// returns, the shell is deleted, whereupon Windows ends what the command has started (documented; a service lives on).
//
// The command and its arguments are names that we made: quotes, spaces, characters that cmd.exe knows, and anything but
// printable ASCII are refused before anything is sent. stdin has at most 64 KiB, the output at most 1 MiB. Without a
// deadline in ctx it takes at most 150 s. A command that ended, with whatever status, is no error. Errors are
// *guest.Error, unless the line was refused or ctx was cancelled, and ErrNotRun where nothing has begun; after one that came
// from the connection the client is of no more use. The process may then go on until Windows drops its idle shell.
func (c *Client) Run(ctx context.Context, command string, args []string, stdin []byte) (Output, error) {
	line, err := commandLine(command, args)
	if err == nil && len(stdin) > inputLimit {
		err = fmt.Errorf("%d bytes of standard input are more than %d", len(stdin), inputLimit)
	}
	if err != nil {
		return Output{}, notRun{fmt.Errorf("run a command by WinRM: %w", err)}
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("the command took longer than %v", runLimit))
	defer cancel()
	sh, err := c.createShell(ctx)
	if err != nil {
		return Output{}, notRun{err}
	}
	out, err := sh.run(ctx, line, stdin)
	clean, cancelClean := context.WithTimeoutCause(context.WithoutCancel(ctx), deleteLimit, fmt.Errorf("no answer within %v", deleteLimit))
	defer cancelClean()
	if deleteErr := sh.delete(clean); deleteErr != nil {
		c.left = errors.Join(c.left, deleteErr)
	}
	return out, err
}
