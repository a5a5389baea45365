package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/statefile"
)

func (c *cli) freezeTestCommand() *cobra.Command {
	var f visitFlags
	mode, hold := string(admission.Auto), time.Second
	cmd := &cobra.Command{
		Use: "freeze-test [VM]", Short: "Freeze a guest and thaw it again, without any snapshot", Args: oneVM,
		Long: `Does all that "stillframe run" does, with the same agent and the same words, but takes no snapshot: the guest is held
for --hold and let go. It tells whether the freeze itself works, for Linux and Windows guests. Without a snapshot no level
is claimed, and the window is not remembered for later ones.

The exit status is 0 when the guest was held and let go as asked and every required writer was well; else it is that of
"stillframe run".`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if most := freezewindow.DefaultBudget().ThawBy(); hold <= 0 || hold >= most {
				return &usageError{fmt.Errorf("--hold %v is not between 0 and %v", hold, most)}
			}
			return c.freezeTest(cmd.Context(), f, args, admission.Policy(mode), hold)
		},
	}
	words := []string{string(admission.Auto), string(admission.IOOnly), string(admission.WriterOnly)}
	cmd.Flags().Var(&choice{&mode, words}, "mode", "Windows: hold writes too (io, at most 7.5 s), only applications (writer), or io where it fits (auto)")
	cmd.Flags().DurationVar(&hold, "hold", hold, "how long to hold")
	f.flags(cmd)
	return cmd
}

// frozen is what a freeze without a snapshot showed, as -o json prints it. Fields are only ever added.
type frozen struct {
	APIVersion string    `json:"api_version"`
	RunID      string    `json:"run_id"`
	StartedAt  time.Time `json:"started_at"`
	VM         backup.VM `json:"vm"`
	// OK is true when the guest was held and let go as asked; Reasons say what was not so.
	OK        bool             `json:"ok"`
	Reasons   []string         `json:"reasons"`
	Window    backup.Window    `json:"window"`
	Guest     backup.Guest     `json:"guest"`
	Writers   []backup.Writer  `json:"writers"`
	Findings  []advice.Finding `json:"findings"`
	Leftovers []string         `json:"leftovers"`
}

// newFrozen drops from a run what speaks of a snapshot that there was not.
func newFrozen(r backup.Result) frozen {
	f := frozen{
		APIVersion: r.APIVersion, RunID: r.RunID, StartedAt: r.StartedAt, VM: r.VM, OK: r.Outcome == backup.OK, Reasons: []string{},
		Window: r.Window, Guest: r.Guest, Writers: r.Writers, Leftovers: r.Leftovers,
	}
	if !f.OK {
		f.Reasons = append(f.Reasons, r.Verdict.Reasons...)
	}
	f.Window.Phases = slices.Clone(r.Window.Phases)
	for i := range f.Window.Phases {
		if f.Window.Phases[i].Name == "snapshot_create" {
			f.Window.Phases[i].Name = "hold"
		}
	}
	f.Findings = slices.DeleteFunc(slices.Clone(r.Findings), func(x advice.Finding) bool { return x.Code == "SF4909" })
	return f
}

func (c *cli) freezeTest(ctx context.Context, f visitFlags, args []string, mode admission.Policy, hold time.Duration) error {
	v, err := c.arrive(ctx, f, args)
	if err != nil {
		return err
	}
	result, err := c.freezeOnly(ctx, v, mode, hold)
	c.leave(ctx, v)
	if err != nil {
		err = interrupted(ctx, err)
		explain(c.stderr, err)
	}
	c.exit = exitOfRun(result, err)
	if f.output == "json" {
		return writeJSON(c.stdout, newFrozen(result))
	}
	return writeFrozen(c.stdout, newFrozen(result))
}

// freezeOnly holds the guest for hold, without a snapshot.
func (c *cli) freezeOnly(ctx context.Context, v visit, mode admission.Policy, hold time.Duration) (backup.Result, error) {
	runner := backup.Runner{
		Hypervisor: withoutSnapshot{hypervisor{Endpoint: v.endpoint}, hold}, Memory: unremembered{v.store},
		Guests: v.guests, Now: c.now,
		// Its steps would speak of a snapshot and of a level.
		Log: c.logger().WithOptions(zap.IncreaseLevel(zap.WarnLevel)),
	}
	return runner.Run(ctx, backup.Plan{
		RunID: v.run, Epoch: v.epoch, VCenter: v.vcenter, VM: v.query, Mode: mode,
		OnDegrade: backup.Fail, Admission: backup.AdmissionRefuse, Budget: freezewindow.DefaultBudget(), LateLimit: time.Minute, GiveUp: c.giveUp,
	})
}

// withoutSnapshot is a vCenter at which a snapshot is nothing but the time that it takes.
type withoutSnapshot struct {
	hypervisor
	hold time.Duration
}

func (h withoutSnapshot) Prepare(context.Context, inventory.VM, string, string) (backup.Snapshot, error) {
	return pretence{h.hold}, nil
}

func (withoutSnapshot) Remove(context.Context, inventory.Snapshot) (string, error) { return "", nil }

func (withoutSnapshot) FindSnapshots(context.Context, inventory.VM, string) ([]inventory.Snapshot, error) {
	return nil, nil
}

// pretence stands for a snapshot that takes its time and is not taken.
type pretence struct{ hold time.Duration }

// Create waits. Without a snapshot the window ends as if the task had succeeded, so that its verdict speaks of the hold alone.
func (p pretence) Create(ctx context.Context, accepted func(string)) (inventory.Snapshot, inventory.Timing, error) {
	timing := inventory.Timing{Sent: time.Now()}
	accepted("")
	timing.Accepted = time.Now()
	timer := time.NewTimer(p.hold)
	defer timer.Stop()
	select {
	case <-timer.C:
		timing.PushSeen = time.Now()
		return inventory.Snapshot{}, timing, nil
	case <-ctx.Done():
		return inventory.Snapshot{}, timing, errors.New("the hold was ended")
	}
}

func (pretence) Close(context.Context) error { return nil }

// unremembered keeps what protects the guest, and no windows: one without a snapshot says nothing about the next with one.
type unremembered struct{ *statefile.Store }

func (unremembered) Windows(context.Context, string) ([]admission.Sample, error) { return nil, nil }

func (unremembered) Record(context.Context, string, admission.Sample) error { return nil }

// writeFrozen prints it for people.
func writeFrozen(w io.Writer, f frozen) error {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(printable(fmt.Sprintf(format, a...)) + "\n") }
	word := "FAILED"
	if f.OK {
		word = "OK"
	}
	line("freeze   %s   without a snapshot: no level is claimed", word)
	line("vm       %s (%s)", f.VM.Path, f.VM.Moref)
	for _, reason := range f.Reasons {
		line("         - %s", reason)
	}
	if len(f.Window.Phases) > 0 {
		line("held     %s by the guest's clock, at most %s by ours", known(f.Window.HeldByGuestSeconds), known(f.Window.HeldAtMostSeconds))
		line("")
		timeline(line, f.Window)
		line("")
	}
	writersTable(line, f.Writers)
	for _, x := range f.Findings {
		line("finding  %s %s", x.Code, x.Title)
		for _, e := range x.Evidence {
			line("         seen: %s", e)
		}
		for _, n := range x.Next {
			line("         try:  %s", n)
		}
	}
	for _, l := range f.Leftovers {
		line("LEFT     %s", l)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
