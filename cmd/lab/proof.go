package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/disks"
	"github.com/stillframe/stillframe/pkg/lab/guests"
	"github.com/stillframe/stillframe/pkg/lab/judge"
)

// limitSeconds is the longest hold that Stillframe promises (KB1680, Exchange's writer).
const limitSeconds = 20

// sides are what the judges say of one image.
type sides struct {
	// E2fsckClean and JournalRecoveryNeeded are null for a guest without a file system.
	E2fsckClean           *bool `json:"e2fsck_clean"`
	JournalRecoveryNeeded *bool `json:"journal_recovery_needed"`
	// RecordsAcknowledged counts what the guest had acknowledged to the lab before the copy of the disk began.
	RecordsAcknowledged uint64 `json:"records_acknowledged"`
	// RecordsFound counts the whole records from the first on without a gap, in the image as it lies.
	RecordsFound uint64 `json:"records_found"`
	RecordsTorn  int    `json:"records_torn"`
	// RecordsFoundAfterRecovery is the same in a copy that e2fsck has replayed and repaired.
	RecordsFoundAfterRecovery *uint64 `json:"records_found_after_recovery"`
	// RecordsWrittenMeanwhile counts the acknowledgements while the disk was copied: 0 when the guest was held.
	RecordsWrittenMeanwhile uint64          `json:"records_written_meanwhile"`
	Image                   disks.Image     `json:"image"`
	Judges                  []judge.Verdict `json:"judges"`
}

// proof is what the demo leaves as proof.json.
type proof struct {
	sides
	Control sides `json:"control"`
	// GuestKind is linux or scripted; a scripted guest has no file system, so the judges of file systems have no say.
	GuestKind              string        `json:"guest_kind"`
	LabLongestStallSeconds float64       `json:"lab_longest_stall_seconds"`
	LabHoldAtLeastSeconds  float64       `json:"lab_hold_at_least_seconds"`
	LabHoldAtMostSeconds   float64       `json:"lab_hold_at_most_seconds"`
	LabHolds               []guests.Hold `json:"lab_holds"`
	LabRescues             int           `json:"lab_rescues"`
	SnapshotsLeft          []string      `json:"snapshots_left"`
	StillframeExitStatus   int           `json:"stillframe_exit_status"`
	Level                  string        `json:"level"`
	Holds                  bool          `json:"holds"`
	// Against lists what speaks against the proof; empty when it holds.
	Against []string `json:"against"`
}

// examine has the judges look at one image.
func examine(ctx context.Context, g lab.Guest, im disks.Image) (sides, error) {
	s := sides{Image: im, RecordsAcknowledged: g.AcknowledgedBefore(im.From), Judges: []judge.Verdict{}}
	s.RecordsWrittenMeanwhile = g.AcknowledgedBefore(im.To) - s.RecordsAcknowledged
	tally, err := g.Count(ctx, im.Path)
	if err != nil {
		return s, err
	}
	s.RecordsFound, s.RecordsTorn = tally.Contiguous, tally.Torn
	if g.Kind() != "linux" {
		return s, nil
	}
	fsck, err := judge.Fsck(ctx, im.Path)
	if err != nil {
		return s, err
	}
	journal, err := judge.Journal(ctx, im.Path)
	if err != nil {
		return s, err
	}
	needed := !journal.OK
	s.E2fsckClean, s.JournalRecoveryNeeded = &fsck.OK, &needed
	found, replay, err := recovered(ctx, g, im.Path)
	s.RecordsFoundAfterRecovery = &found
	s.Judges = append(s.Judges, fsck, journal, replay)
	return s, err
}

// recovered counts the records in a copy of the image that e2fsck has replayed and repaired.
func recovered(ctx context.Context, g lab.Guest, image string) (found uint64, v judge.Verdict, err error) {
	copied := image + ".recovered"
	defer func() { err = errors.Join(err, os.Remove(copied)) }()
	if err := copyFile(copied, image); err != nil {
		return 0, v, err
	}
	if v, err = judge.Replay(ctx, copied); err != nil {
		return 0, v, err
	}
	tally, err := g.Count(ctx, copied)
	return tally.Contiguous, v, err
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close(), src.Close())
}

// prove puts together what the judges, the lab's witness and the report say.
func prove(ctx context.Context, w *lab.World, g lab.Guest, r *report, exit int, control disks.Image) (*proof, error) {
	p := &proof{GuestKind: g.Kind(), StillframeExitStatus: exit, Against: []string{}, SnapshotsLeft: []string{}}
	p.Level = r.Verdict.Level
	var frozen *disks.Image
	for _, im := range w.Disks().Images(g.Name()) {
		if !im.Control && im.Path != "" {
			frozen = &im
		}
	}
	var err error
	if p.Control, err = examine(ctx, g, control); err != nil {
		return nil, fmt.Errorf("examine the control image: %w", err)
	}
	if frozen == nil {
		p.against("no snapshot was taken")
	} else {
		if p.sides, err = examine(ctx, g, *frozen); err != nil {
			return nil, fmt.Errorf("examine the snapshot's image: %w", err)
		}
		if hold, ok := g.Between(frozen.From, frozen.To); ok {
			p.LabHoldAtLeastSeconds = hold.LastSeen.Sub(hold.FirstSeen).Seconds()
			p.LabHoldAtMostSeconds = hold.Length(time.Now()).Seconds()
		} else {
			p.against("the lab saw no hold while the disk was copied")
		}
	}
	p.LabHolds, p.LabRescues, p.LabLongestStallSeconds = g.Holds(), len(g.Rescues()), g.LongestStall().Seconds()
	p.SnapshotsLeft = append(p.SnapshotsLeft, w.VCenter().SnapshotNames(g.Name())...)
	p.judge(r)
	p.Holds = len(p.Against) == 0
	return p, nil
}

func (p *proof) against(format string, args ...any) {
	p.Against = append(p.Against, fmt.Sprintf(format, args...))
}

// judge collects what speaks against the proof.
func (p *proof) judge(r *report) {
	if p.GuestKind == "linux" {
		if p.E2fsckClean == nil || !*p.E2fsckClean {
			p.against("e2fsck is not content with the snapshot's image")
		}
		if p.JournalRecoveryNeeded == nil || *p.JournalRecoveryNeeded {
			p.against("the snapshot's image needs its journal recovered")
		}
		if p.Control.JournalRecoveryNeeded == nil || !*p.Control.JournalRecoveryNeeded {
			p.against("the control image needs no recovery, so the judges could not tell the two apart")
		}
	}
	if p.RecordsFound < p.RecordsAcknowledged || p.RecordsAcknowledged == 0 {
		p.against("%d records of %d acknowledged ones are in the snapshot's image", p.RecordsFound, p.RecordsAcknowledged)
	}
	if p.RecordsTorn > 0 {
		p.against("%d records in the snapshot's image are torn", p.RecordsTorn)
	}
	if p.RecordsWrittenMeanwhile > 0 {
		p.against("%d records were written while the disk was copied for the snapshot", p.RecordsWrittenMeanwhile)
	}
	if p.LabLongestStallSeconds > limitSeconds {
		p.against("the guest stood still for %.1f s", p.LabLongestStallSeconds)
	}
	if p.LabRescues > 0 {
		p.against("the lab had to release the guest")
	}
	if bound := r.Window.HeldAtMostSeconds; bound == nil || *bound < p.LabHoldAtLeastSeconds {
		p.against("the report's bound of the hold is missing, or below the %.3f s that the lab saw", p.LabHoldAtLeastSeconds)
	}
	if len(p.SnapshotsLeft) > 0 || !r.Snapshot.Removed {
		p.against("the snapshot was not removed")
	}
	if p.Level != "filesystem" {
		p.against("the verdict's level is %q, not filesystem", p.Level)
	}
	if p.StillframeExitStatus != 0 {
		p.against("stillframe left with %d", p.StillframeExitStatus)
	}
}

// relative shortens a path for people.
func relative(path string) string {
	dir, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(dir, path); err == nil && len(short) < len(path) {
		return short
	}
	return path
}
