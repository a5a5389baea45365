package statefile

import (
	"context"
	"time"

	"github.com/stillframe/stillframe/pkg/admission"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// maxVMs bounds how many VMs are remembered; those not seen for longest are forgotten first.
const maxVMs = 2000

// history is the last windows of one VM, the oldest first.
type history struct {
	Windows []window `json:"windows"`
}

// window is one sample as it is written.
type window struct {
	At              time.Time `json:"at"`
	FreezeSeconds   float64   `json:"freeze_seconds"`
	SnapshotSeconds float64   `json:"snapshot_seconds"`
	ThawSeconds     float64   `json:"thaw_seconds"`
	Late            bool      `json:"late,omitempty"`
	HoldTimeout     bool      `json:"hold_timeout,omitempty"`
	Mode            string    `json:"mode,omitempty"`
	Road            string    `json:"road"`
	Channel         string    `json:"channel"`
	Via             string    `json:"via,omitempty"`
}

// Record adds a window of the VM with this instance UUID. One without a time is stamped now.
func (s *Store) Record(ctx context.Context, vm string, w admission.Sample) error {
	if w.At.IsZero() {
		w.At = s.now()
	}
	return s.update(ctx, "remember a window", func(now *state) error {
		all := append(now.Windows[vm].Windows, window{
			w.At.UTC(), w.Freeze.Seconds(), w.Snapshot.Seconds(), w.Thaw.Seconds(), w.Late, w.HoldTimeout, string(w.Mode), w.Road, w.Channel, string(w.Via),
		})
		now.Windows[vm] = history{all[max(0, len(all)-admission.Keep):]}
		if len(now.Windows) > maxVMs {
			delete(now.Windows, longestUnseen(now.Windows))
		}
		return nil
	})
}

func longestUnseen(all map[string]history) string {
	last := func(vm string) time.Time {
		if w := all[vm].Windows; len(w) > 0 {
			return w[len(w)-1].At
		}
		return time.Time{}
	}
	oldest := ""
	for vm := range all {
		if oldest == "" || last(vm).Before(last(oldest)) {
			oldest = vm
		}
	}
	return oldest
}

// Windows gives what is remembered of a VM, the oldest first.
func (s *Store) Windows(ctx context.Context, vm string) ([]admission.Sample, error) {
	var out []admission.Sample
	err := s.view(ctx, "read the windows of a VM", func(now *state) error {
		for _, w := range now.Windows[vm].Windows {
			out = append(out, admission.Sample{
				At: w.At, Freeze: duration(w.FreezeSeconds), Snapshot: duration(w.SnapshotSeconds), Thaw: duration(w.ThawSeconds),
				Late: w.Late, HoldTimeout: w.HoldTimeout, Mode: freezewindow.Mode(w.Mode), Road: w.Road, Channel: w.Channel,
				Via: admission.SnapshotRoad(w.Via),
			})
		}
		return nil
	})
	return out, err
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
