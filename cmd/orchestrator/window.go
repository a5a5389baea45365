package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
)

func (c *cli) windowCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "window", Short: "Which guests are held, and for how long they were", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.windowTopCommand(), c.windowStatsCommand())
	return group
}

// redraw is how often the live table is drawn.
const redraw = 250 * time.Millisecond

func (c *cli) windowTopCommand() *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: "top", Short: "Show the guests that are held right now", Args: cobra.NoArgs,
		Long: `Shows the freeze windows that are open. On a terminal the table is drawn four times a second until Ctrl-C; otherwise, and with -o json, it is
printed once. HELD is an upper bound.`,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
			if f.output == "json" || !onTerminal(c.stdout) {
				return c.windows(ctx, d, f.output, c.stdout)
			}
			for {
				var b bytes.Buffer
				fmt.Fprintf(&b, "%s  Ctrl-C ends this; no guest is let go by it\n\n", c.now().UTC().Format("15:04:05Z"))
				err := c.windows(ctx, d, f.output, &b)
				if ctx.Err() != nil {
					return nil //nolint:nilerr // that is how it is meant to end
				}
				if err != nil {
					return err
				}
				// Each line is written over the one that was there, so that nothing flickers.
				if _, err := fmt.Fprint(c.stdout, "\x1b[H"+strings.ReplaceAll(b.String(), "\n", "\x1b[K\n")+"\x1b[J"); err != nil {
					return err
				}
				if err := pause(ctx, redraw, nil); err != nil {
					return nil //nolint:nilerr // that is how it is meant to end
				}
			}
		}),
	}
	f.flags(cmd)
	return cmd
}

// onTerminal says whether somebody looks at what is written.
func onTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func (c *cli) windows(ctx context.Context, d *client.Client, output string, w io.Writer) error {
	open, err := d.Windows(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(open, func(a, b api.Window) int { return a.GoAt.Compare(b.GoAt) })
	if output == "json" {
		return writeJSON(w, map[string]any{"api_version": "stillframe/v1", "windows": some(open)})
	}
	var rows [][]string
	for _, o := range open {
		full := min(max(int(barOf*o.HeldSeconds/max(o.BudgetSeconds, 1)), 0), barOf)
		rows = append(rows, []string{
			o.VM, o.Phase, o.Mode, ofBudget(&o.HeldSeconds, o.BudgetSeconds), strings.Repeat("#", full) + strings.Repeat(".", barOf-full), o.VCenterID, o.Node, o.RunID,
		})
	}
	return columns(w, "VM|PHASE|MODE|HELD|OF THE BUDGET|VCENTER|NODE|RUN", rows)
}

// Bounds of the statistics: how many windows of one VM are read, and of how many VMs at once.
const (
	statsWindows = 500
	statsAtOnce  = 8
)

func (c *cli) windowStatsCommand() *cobra.Command {
	var f socketFlags
	var vm string
	since := 30 * 24 * time.Hour
	cmd := &cobra.Command{
		Use: "stats", Short: "Show how long guests were held, and how far from the limit", Args: cobra.NoArgs,
		Long: `Reads the windows of each VM, at most the last 500, and lists quantiles of their holds; the VM that came nearest to its limit stands first. A hold is
the longer of the guest's own measure and our bound.`,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
			if since <= 0 {
				return invalid("--since is %s: give how far to look back, such as 720h", since)
			}
			vms, err := d.VMs(ctx, api.VMFilter{})
			if vm != "" && err == nil {
				vms = make([]api.VM, 1)
				vms[0], err = findVM(ctx, d, vm)
			}
			if err != nil {
				return err
			}
			stats, err := statistics(ctx, d, vms, c.now().Add(-since))
			if err != nil {
				return err
			}
			return c.stats(f.output, stats)
		}),
	}
	f.flags(cmd)
	cmd.Flags().DurationVar(&since, "since", since, "how far to look back")
	cmd.Flags().StringVar(&vm, "vm", "", "only this VM")
	c.completedFlag(cmd, "vm", &f, vmNames)
	return cmd
}

// windowStats is how long one VM was held, as -o json prints it. Fields are only ever added.
type windowStats struct {
	VMID       string  `json:"vm_id"`
	VM         string  `json:"vm"`
	Windows    int     `json:"windows"`
	P50Seconds float64 `json:"p50_seconds"`
	P95Seconds float64 `json:"p95_seconds"`
	P99Seconds float64 `json:"p99_seconds"`
	MaxSeconds float64 `json:"max_seconds"`
	// LimitSeconds is the least budget that one of the windows had, LeftSeconds what MaxSeconds left of it.
	LimitSeconds float64 `json:"limit_seconds"`
	LeftSeconds  float64 `json:"left_seconds"`
}

func statistics(ctx context.Context, d *client.Client, vms []api.VM, from time.Time) ([]windowStats, error) {
	all := make([]windowStats, len(vms))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(statsAtOnce)
	for n, v := range vms {
		group.Go(func() error {
			windows, err := d.History(ctx, v.ID, statsWindows)
			all[n] = statsOf(v, windows, from)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s windowStats) bool { return s.Windows == 0 })
	slices.SortStableFunc(all, func(a, b windowStats) int { return int(1000 * (a.LeftSeconds - b.LeftSeconds)) })
	return all, nil
}

func statsOf(v api.VM, windows []api.PastWindow, from time.Time) windowStats {
	s := windowStats{VMID: v.ID, VM: v.Name}
	var holds []float64
	for _, w := range windows {
		if w.HeldSeconds == nil || w.At.Before(from) {
			continue
		}
		holds = append(holds, *w.HeldSeconds)
		if s.LimitSeconds == 0 || w.BudgetSeconds < s.LimitSeconds {
			s.LimitSeconds = w.BudgetSeconds
		}
	}
	slices.Sort(holds)
	s.Windows = len(holds)
	s.P50Seconds, s.P95Seconds, s.P99Seconds, s.MaxSeconds = quantile(holds, 50), quantile(holds, 95), quantile(holds, 99), quantile(holds, 100)
	s.LeftSeconds = s.LimitSeconds - s.MaxSeconds
	return s
}

func (c *cli) stats(output string, stats []windowStats) error {
	var rows [][]string
	for _, s := range stats {
		row := []string{s.VM, fmt.Sprint(s.Windows)}
		for _, v := range []float64{s.P50Seconds, s.P95Seconds, s.P99Seconds, s.MaxSeconds, s.LimitSeconds, s.LeftSeconds} {
			row = append(row, fmt.Sprintf("%.2f s", v))
		}
		rows = append(rows, row)
	}
	return c.printList(output, "vms", stats, "VM|WINDOWS|P50|P95|P99|MAX|LIMIT|LEFT", rows)
}
