package winrm

import (
	"context"
	"errors"
	"fmt"
)

// shell is a place in the guest for one command.
type shell struct {
	client *Client
	id     string
}

func (c *Client) createShell(ctx context.Context) (*shell, error) {
	op := "create a shell by WinRM of " + c.conn.host
	r, err := c.ask(ctx, op, createMessage(c.url))
	if isFault(err, faultAccessDenied) {
		return nil, refuse("SF3103", op, "the account was accepted, but may not: its token is filtered by UAC, or it is no administrator: %w", err)
	}
	if err != nil {
		return nil, err
	}
	id := r.shell()
	if !validID(id) {
		return nil, refuse(codeTampered, op, "the reply names no shell")
	}
	return &shell{client: c, id: id}, nil
}

// ask sends a message and reads its reply. A fault is an error.
func (c *Client) ask(ctx context.Context, op, message string) (soapReply, error) {
	raw, err := c.conn.ask(ctx, op, []byte(message))
	if err != nil {
		return soapReply{}, err
	}
	r, err := parseReply(raw)
	if err != nil {
		return soapReply{}, refuse(codeTampered, op, "the reply cannot be read: %w", err)
	}
	if f := r.Fault; f != nil {
		return soapReply{}, refuse(codeOf(f.code()), op, "%w", f)
	}
	return r, nil
}

// run starts the line, gives it stdin, and collects its output until it ends. Input goes before the first request for
// output: on one connection, a request that waits for output would hold the input back.
func (s *shell) run(ctx context.Context, line string, stdin []byte) (Output, error) {
	op := "run a command by WinRM of " + s.client.conn.host
	r, err := s.client.ask(ctx, op, commandMessage(s.client.url, s.id, line))
	var f *Fault
	if errors.As(err, &f) {
		return Output{}, notRun{err}
	}
	if err != nil {
		return Output{}, err
	}
	command := r.Command
	if !validID(command) {
		return Output{}, refuse(codeTampered, op, "the reply names no command")
	}
	// A command that has ended by itself takes no input: that is told only when its output does not come either.
	_, sendErr := s.client.ask(ctx, op, sendMessage(s.client.url, s.id, command, stdin))
	if s.client.conn.broken != nil {
		return Output{}, sendErr
	}
	out, err := s.collect(ctx, op, command)
	if err != nil && sendErr != nil {
		err = errors.Join(err, fmt.Errorf("its input was not taken: %w", sendErr))
	}
	return out, err
}

func (s *shell) collect(ctx context.Context, op, command string) (Output, error) {
	var out Output
	for range receiveRounds {
		r, err := s.client.ask(ctx, op, receiveMessage(s.client.url, s.id, command))
		if isFault(err, faultOperationTimeout) {
			continue // no output yet
		}
		if err != nil {
			return out, err
		}
		if err := r.output(&out); err != nil {
			return out, refuse(codeTampered, op, "the output cannot be read: %w", err)
		}
		if len(out.Stdout)+len(out.Stderr) > outputLimit {
			return out, refuse(codeTampered, op, "the command wrote more than %d bytes: none that we send does", outputLimit)
		}
		done, exit, err := r.end()
		switch {
		case err != nil:
			return out, refuse("SF3512", op, "%w: somebody may have ended it", err)
		case done:
			out.Exit = exit
			return out, nil
		}
	}
	return out, refuse(codeTampered, op, "the command has not ended after %d replies", receiveRounds)
}

// delete ends the shell and what runs in it; a shell that is gone already is no error.
func (s *shell) delete(ctx context.Context) error {
	op := fmt.Sprintf("delete the shell %s by WinRM of %s", s.id, s.client.conn.host)
	_, err := s.client.ask(ctx, op, deleteMessage(s.client.url, s.id))
	if isFault(err, faultNoShell) || isFault(err, faultShellClosed) {
		return nil
	}
	return err
}
