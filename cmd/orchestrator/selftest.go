package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
)

func (c *cli) agentCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "agent", Short: "Install agents that stay in guests, or try one without a snapshot", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.agentDeployCommand(), c.agentStatusCommand(), c.agentUpgradeCommand(), c.agentRemoveCommand(), c.selfTestCommand(), c.freezeTestCommand())
	return group
}

func (c *cli) selfTestCommand() *cobra.Command {
	var f visitFlags
	mode, hold := "writer", time.Second
	cmd := &cobra.Command{
		Use: "selftest [VM]", Short: "Have the agent look at its Windows guest and freeze it once, all by itself", Args: oneVM,
		Long: `Puts the agent into the guest and runs its self-test there: rights, services, registration, writers, volumes, one short
freeze by VSS alone, and that the session is closed again. There is no session with this machine and no snapshot, so that
what fails here is Windows's own matter. The agent is removed again.

The exit status is 0 when every check is well, 7 when the guest is not fit for a freeze, 1 when something failed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if most := map[string]time.Duration{"io": 8 * time.Second, "writer": 17 * time.Second}[mode]; hold <= 0 || hold >= most {
				return &usageError{fmt.Errorf("--hold %v is not between 0 and %v", hold, most)}
			}
			return c.visit(cmd.Context(), f, args, false, func(ctx context.Context, v visit) error {
				return c.selfTest(ctx, v, f.output, "--mode", mode, "--hold", hold.String())
			})
		},
	}
	cmd.Flags().Var(&choice{&mode, []string{"io", "writer"}}, "mode", "hold writes too (io), or only applications (writer)")
	cmd.Flags().DurationVar(&hold, "hold", hold, "how long to hold: below 8 s with io, 17 s with writer")
	f.flags(cmd)
	return cmd
}

// selfTest is what the agent found, as -o json prints it. Fields are only ever added.
type selfTest struct {
	APIVersion string    `json:"api_version"`
	VM         backup.VM `json:"vm"`
	// ExitCode is the agent's; Report is its own report, as it wrote it.
	ExitCode int             `json:"exit_code"`
	Report   json.RawMessage `json:"report"`
}

// selfTestLimit bounds a self-test: the agent's own limits for its steps come to less.
const selfTestLimit = 12 * time.Minute

// selfTest pushes the agent and runs its self-test.
func (c *cli) selfTest(ctx context.Context, v visit, output string, args ...string) error {
	ops, _ := newLogon(v.endpoint, v.store, v.vm, v.account)
	access := guestops.NewRecorded(ops, v.vm.System(), ledger{v.store, v.about()})
	limited, cancel := context.WithTimeout(ctx, selfTestLimit)
	defer cancel()
	remote, err := access.Put(limited, v.payload)
	test := selfTest{APIVersion: backup.APIVersion, VM: named(v.vm)}
	if err == nil {
		remote.Started = true
		test.Report, test.ExitCode, err = access.Output(limited, remote, append([]string{"selftest", "--json"}, args...)...)
	}
	cleaning, cancelCleaning := context.WithTimeout(context.WithoutCancel(ctx), sessionLimit)
	defer cancelCleaning()
	if left := access.Remove(cleaning, remote); left != nil {
		err = errors.Join(err, &guest.Error{SF: "SF3950", Op: "remove the agent from " + remote.Dir + " in the guest", Err: left})
	}
	if err != nil {
		return err
	}
	if c.exit = exitFailed; test.ExitCode == exitOK || test.ExitCode == exitPreflight {
		c.exit = test.ExitCode
	}
	checks, err := test.checks()
	switch {
	case err != nil:
		return err
	case output == "json":
		return writeJSON(c.stdout, test)
	}
	return writeSelfTest(c.stdout, test, checks)
}

// selfCheck is one line of the agent's report.
type selfCheck struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Detail  string  `json:"detail"`
	Seconds float64 `json:"seconds"`
}

// checks reads the agent's report. The guest is not trusted: what is no report is an error.
func (t selfTest) checks() ([]selfCheck, error) {
	var report struct {
		Checks []selfCheck `json:"checks"`
	}
	if err := json.Unmarshal(t.Report, &report); err != nil || len(report.Checks) == 0 {
		return nil, &guest.Error{SF: "SF3901", Op: "read the agent's self-test", Err: fmt.Errorf(
			"it ended with exit code %d and wrote no report: %.200q (%w)", t.ExitCode, t.Report, errors.Join(errors.New("not understood"), err))}
	}
	return report.Checks, nil
}

func writeSelfTest(w io.Writer, t selfTest, checks []selfCheck) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	line("vm       %s (%s)", t.VM.Path, t.VM.Moref)
	for _, check := range checks {
		word := "OK"
		if !check.OK {
			word = "FAILED"
		}
		line("%-8s %-16s %7.3f s  %s", word, check.Name, check.Seconds, check.Detail)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
