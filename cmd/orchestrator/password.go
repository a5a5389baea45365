package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/stillframe/stillframe/pkg/secret"
)

// password reads a password from standard input: all of it with piped, else from the terminal, twice and without echo. It
// is never an argument, which every user of the machine can read.
func (c *cli) password(cmd *cobra.Command, name string, piped bool) (secret.Value, error) {
	in := cmd.InOrStdin()
	file, ok := in.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd()))
	switch {
	case piped && terminal:
		return secret.Value{}, invalid("--password-stdin would show what is typed: leave it out on a terminal")
	case piped:
		return unlessInterrupted(cmd.Context(), func() (secret.Value, error) { return secret.Read(in) })
	case !terminal:
		return secret.Value{}, missing("no terminal to ask for the password: give it on standard input with --password-stdin")
	}
	first, err := c.ask(cmd.Context(), file, "password of "+name+": ")
	if err != nil {
		return first, err
	}
	second, err := c.ask(cmd.Context(), file, "once more: ")
	if err == nil && first.Reveal() != second.Reveal() {
		err = invalid("the two passwords are not the same")
	}
	return first, err
}

// ask reads one line without echo. Whatever ends it, the terminal echoes again.
func (c *cli) ask(ctx context.Context, terminal *os.File, prompt string) (secret.Value, error) {
	fd := int(terminal.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return secret.Value{}, fmt.Errorf("look at the terminal: %w", err)
	}
	if _, err := io.WriteString(c.stderr, printable(prompt)); err != nil {
		return secret.Value{}, fmt.Errorf("ask for the password: %w", err)
	}
	value, err := unlessInterrupted(ctx, func() (secret.Value, error) {
		line, err := term.ReadPassword(fd)
		if err != nil {
			return secret.Value{}, fmt.Errorf("read the password from the terminal: %w", err)
		}
		defer clear(line)
		return secret.Read(bytes.NewReader(line))
	})
	say(c.stderr, "") // the newline that was typed is not echoed either
	return value, errors.Join(err, term.Restore(fd, state))
}

// unlessInterrupted waits for a read, which itself hears of no context, or for the operator's interrupt. Then the read ends with the
// process.
func unlessInterrupted(ctx context.Context, read func() (secret.Value, error)) (secret.Value, error) {
	type result struct {
		value secret.Value
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return secret.Value{}, context.Cause(ctx)
	}
}
