package adminshare

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/adminshare/winrm"
)

// The ports of WinRM (Microsoft Learn, "Installation and configuration for Windows Remote Management").
const (
	WinRMPort      = 5985
	WinRMPortHTTPS = 5986
)

// WinRM says how a guest's WinRM is reached. Over http everything is sealed by NTLM; https adds TLS to that.
type WinRM struct {
	HTTPS bool
	// Roots are whom the certificate of https must come from, nil for this machine's; Pin is the SHA-256 of the only
	// certificate to trust, zero for none.
	Roots *x509.CertPool
	Pin   [32]byte
}

// Port is where it listens.
func (w WinRM) Port() uint16 {
	if w.HTTPS {
		return WinRMPortHTTPS
	}
	return WinRMPort
}

// commands starts the agent by WinRM. Each piece of work has a connection of its own.
type commands struct {
	*Access
	// last is what the command said that was to start the agent.
	last winrm.Output
	// instead does what has to be done where WinRM does not.
	instead services
}

var _ starter = (*commands)(nil)

// run runs one program in the guest, at the first address that takes a connection. ran is false where for certain it has not
// begun. Only the reply to the first request says whether the account is let in, so that the logon takes in the program.
func (c *commands) run(ctx context.Context, program string, args ...string) (out winrm.Output, ran bool, err error) {
	var all error
	for _, host := range c.o.Addresses {
		var client *winrm.Client
		err := c.o.Logon(ctx, func() (err error) {
			if client, err = c.dial(ctx, host); err == nil {
				out, err = client.Run(ctx, program, args, nil)
				ran = !errors.Is(err, winrm.ErrNotRun)
				err = errors.Join(err, client.Close())
			}
			return c.onlyHere(err)
		})
		if client != nil {
			return out, ran, err
		}
		all = errors.Join(all, err)
		if class := guest.ClassOf(guest.CodeOf(err)); class != guest.ClassUnreachable || ctx.Err() != nil {
			break
		}
	}
	return winrm.Output{}, false, all
}

func (c *commands) dial(ctx context.Context, host string) (*winrm.Client, error) {
	w, a := c.o.WinRM, c.o.Account
	return winrm.Open(ctx, winrm.Options{
		Address: net.JoinHostPort(host, strconv.Itoa(int(w.Port()))), TLS: w.HTTPS, Roots: w.Roots, Pin: w.Pin,
		Domain: a.Domain, User: a.User, Password: a.Password,
	})
}

// onlyHere reads a refused logon: WinRM says the same of a wrong password and of an account that may not use it (401). Where the
// share has just let the account in, it is the latter.
func (c *commands) onlyHere(err error) error {
	if guest.CodeOf(err) != "SF3001" || !c.admitted {
		return err
	}
	return &guest.Error{SF: "SF3103", Op: "log on to WinRM", Err: fmt.Errorf("the share has let the account in, WinRM does not: %w", err)}
}

// start leaves the agent behind as a service: what a shell of WinRM started is killed with the shell.
func (c *commands) start(ctx context.Context, r guest.Remote, words []string) (began bool, err error) {
	c.last, began, err = c.run(ctx, r.Exe, append([]string{"run", "--detach"}, words...)...)
	return began, err
}

// running trusts the command: it returned when the agent had said READY, or why not.
func (c *commands) running(context.Context, guest.Remote) (bool, error) { return c.last.Exit == 0, nil }

func (c *commands) why(context.Context, guest.Remote) error {
	text := strings.TrimSpace(string(c.last.Stdout) + " " + string(c.last.Stderr))
	for line := range strings.Lines(string(c.last.Stdout) + "\n" + string(c.last.Stderr)) {
		if strings.HasPrefix(line, "ERROR ") {
			_, err := guest.ParseReady(line, true)
			return err
		}
	}
	return fmt.Errorf("the command that starts it ended with exit code %d before it was ready: %.300q", c.last.Exit, text)
}

// once runs the command by WinRM. Where that did not run it, or did not tell the end of a thaw, which may be run twice, the
// service control manager does: a guest must not stay frozen because WinRM went away.
func (c *commands) once(ctx context.Context, r guest.Remote, command string, args ...string) (int, error) {
	out, ran, err := c.run(ctx, r.Exe, append([]string{command}, args...)...)
	if err == nil || ctx.Err() != nil || ran && command != "thaw" {
		return out.Exit, err
	}
	exit, other := c.instead.once(ctx, r, command, args...)
	if other != nil {
		return exit, errors.Join(err, fmt.Errorf("and by the service control manager: %w", other))
	}
	return exit, nil
}

// end has the agent's thaw end it, which is quick where it leaves by itself. Without its program only the entry of its service
// can be taken out. Where WinRM does not do it in time, the service control manager does.
func (c *commands) end(ctx context.Context, r guest.Remote, there bool) error {
	err := c.endByCommand(ctx, r, there)
	if err == nil || ctx.Err() != nil {
		return err
	}
	r.Greeted = false // it has had its time
	if other := c.instead.end(ctx, r, there); other != nil {
		return errors.Join(err, fmt.Errorf("and by the service control manager: %w", other))
	}
	return nil
}

// endLimit leaves the service control manager its stopLimit of the 25 s that a clean-up has.
const endLimit = 10 * time.Second

func (c *commands) endByCommand(ctx context.Context, r guest.Remote, there bool) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	program, args := "sc.exe", []string{"delete", servicePrefix + r.Deployment}
	if there {
		program, args = r.Exe, []string{"thaw"}
	}
	out, _, err := c.run(ctx, program, args...)
	if err != nil || out.Exit == 0 || there && out.Exit == exitThawed || !there && out.Exit == noSuchService {
		return err
	}
	return fmt.Errorf("%s %s ended with exit code %d", base(program), args[0], out.Exit)
}

// noSuchService is ERROR_SERVICE_DOES_NOT_EXIST (winerror.h), with which sc.exe ends.
const noSuchService = 1060
