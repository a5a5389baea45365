package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/guest"
)

func (c *cli) writersCommand() *cobra.Command {
	var f visitFlags
	cmd := &cobra.Command{
		Use: "writers [VM]", Short: "List the VSS writers of a Windows guest and how they are, without freezing anything", Args: oneVM,
		Long: `Puts the agent into the guest, has it prepare a backup as a run does, lists what every VSS writer then says of itself,
ends that session and removes the agent again. Nothing is frozen and no snapshot is taken.

The class ids are those that --require-writer, --tolerate-writer and --exclude-writer of "stillframe run" take. The exit
status is 0 also when a writer has failed; the table says so. VM is that of "stillframe run --vm"; without it GOVC_VM.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.visit(cmd.Context(), f, args, false, func(ctx context.Context, v visit) error { return c.writers(ctx, v, f.output) })
		},
	}
	f.flags(cmd)
	return cmd
}

// writerList is what the writers said, as -o json prints it. Fields are only ever added.
type writerList struct {
	APIVersion string          `json:"api_version"`
	VM         backup.VM       `json:"vm"`
	Writers    []backup.Writer `json:"writers"`
}

// sessionLimit bounds the end of a session in the guest.
const sessionLimit = time.Minute

func (c *cli) writers(ctx context.Context, v visit, output string) error {
	list := writerList{APIVersion: backup.APIVersion, VM: named(v.vm), Writers: []backup.Writer{}}
	d, err := v.guests.Open(ctx, v.vm, v.run, v.epoch)
	if err == nil {
		err = armed(ctx, d.Session, &list)
	}
	if err := errors.Join(err, d.Close(ctx)); err != nil {
		return err
	}
	if output == "json" {
		return writeJSON(c.stdout, list)
	}
	return writeWriters(c.stdout, list)
}

// armed has the agent prepare, reads what the writers say, and ends the session.
func armed(ctx context.Context, s *guest.Session, list *writerList) error {
	budget := freezewindow.DefaultBudget()
	if own := time.Duration(s.Hello.Limits.DeadmanMS) * time.Millisecond; own > 0 {
		budget.Deadman = min(budget.Deadman, own)
	}
	_, err := s.Arm(ctx, guest.Order{Mode: freezewindow.ModeWriter, Budget: budget})
	if err != nil {
		err = fmt.Errorf("prepare in the guest: %w", err)
	}
	for _, w := range s.Writers() {
		list.Writers = append(list.Writers, backup.WriterOf(w))
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), sessionLimit)
	defer cancel()
	return errors.Join(err, s.End(ending))
}

func writeWriters(w io.Writer, list writerList) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	line("vm       %s (%s)", list.VM.Path, list.VM.Moref)
	if len(list.Writers) == 0 {
		line("no VSS writer answered")
	}
	writersTable(line, list.Writers)
	_, err := io.WriteString(w, b.String())
	return err
}
