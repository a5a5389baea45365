package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/datamover"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/statefile"
)

const (
	// tellLimit is longer than the guest's session takes to tell VSS writers, twice.
	tellLimit = 15 * time.Minute
	// originLimit bounds the reading of where the data lies.
	originLimit = time.Minute
	// progressPause is the least time between two lines of progress in the log.
	progressPause = 10 * time.Second
)

// MoveState is what became of the data.
type MoveState string

// The states.
const (
	MoveNotRun  MoveState = "not_run"
	MoveStored  MoveState = "stored"
	MovePartial MoveState = "partial"
	MoveFailed  MoveState = "failed"
)

// Told is what the guest's applications heard of their data.
type Told string

// What they heard. ToldNothing is for a guest whose session had been ended before the move, without a backup.
const (
	ToldNothing Told = ""
	ToldAll     Told = "all"
	ToldNone    Told = "none"
	// ToldExpired says that the session had ended in the guest meanwhile, so that they heard of no backup; ToldUnknown that
	// the answer did not come.
	ToldExpired Told = "expired"
	ToldUnknown Told = "unknown"
)

// Moved is how the mover went.
type Moved struct {
	State MoveState `json:"state"`
	Told  Told      `json:"told"`
	// ExitStatus is null when the program has none; Signal is what ended it then.
	ExitStatus      *int    `json:"exit_status"`
	Signal          string  `json:"signal"`
	DurationSeconds float64 `json:"duration_seconds"`
	// Progress is the last that was told, from 0 to 1; with it come the bytes and the text.
	Progress    float64 `json:"progress"`
	BytesRead   int64   `json:"bytes_read"`
	BytesStored int64   `json:"bytes_stored"`
	Text        string  `json:"text"`
	// Said is the end of what the program wrote to standard error.
	Said string `json:"said"`
}

// move has the mover store what the snapshot holds, then tells the guest's applications, if their session is open. A part
// that is stored degrades the run; nothing stored is an error.
func (x *run) move(ctx context.Context, open bool) error {
	keeping, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	lost := make(chan error, 1)
	if open {
		go func() { lost <- x.guest.Session.StayOpen(keeping) }()
	} else {
		lost <- nil
	}
	begin := time.Now()
	report, err := x.store(ctx)
	leave()
	expired := <-lost
	x.result.moved(report, time.Since(begin))
	stored := report.Stored == datamover.StoredAll
	x.Log.Info("mover ended", zap.String("state", string(x.result.Mover.State)), zap.Duration("took", time.Since(begin)), zap.Error(err))
	if open {
		x.tell(ctx, stored, expired)
	}
	switch {
	case stored:
		return nil
	case report.Stored == datamover.StoredPartial:
		x.result.Outcome = Degraded
		x.result.failure(err)
		return nil
	}
	x.result.Outcome = Failed
	return err
}

// store reads where the data lies and runs the mover.
func (x *run) store(ctx context.Context) (datamover.Report, error) {
	none := datamover.Report{ExitStatus: -1}
	if x.Origins == nil {
		return none, errors.New("move the snapshot: nobody tells where its data lies")
	}
	reading, cancel := context.WithTimeout(ctx, originLimit)
	defer cancel()
	snapshot, err := x.inVCenter(reading, x.kept[0])
	if err != nil {
		return none, err
	}
	origin, err := x.Origins.Origin(reading, snapshot)
	if err != nil {
		return none, fmt.Errorf("find the data of the snapshot: %w", err)
	}
	x.Log.Info("moving", zap.Int("disks", len(origin.Disks)))
	var told time.Time
	return x.plan.Mover.Move(ctx, datamover.Job{
		RunID: x.plan.RunID, Level: string(x.result.Verdict.Level), VM: x.vm, Snapshot: snapshot, Origin: origin,
	}, func(p datamover.Progress) {
		if time.Since(told) < progressPause {
			return
		}
		told = time.Now()
		x.Log.Info("moving", zap.Float64("progress", p.Fraction), zap.Int64("bytes_read", p.BytesRead), zap.String("text", p.Text))
	})
}

// moved takes over how the mover went.
func (r *Result) moved(m datamover.Report, took time.Duration) {
	*r.Mover = Moved{
		State: MoveFailed, Signal: m.Signal, DurationSeconds: took.Seconds(), Progress: m.Last.Fraction,
		BytesRead: m.Last.BytesRead, BytesStored: m.Last.BytesStored, Text: m.Last.Text, Said: m.Said,
	}
	if m.ExitStatus >= 0 {
		r.Mover.ExitStatus = new(m.ExitStatus)
	}
	switch m.Stored {
	case datamover.StoredAll:
		r.Mover.State = MoveStored
	case datamover.StoredPartial:
		r.Mover.State = MovePartial
	case datamover.StoredNone:
	}
}

// tell tells the guest's applications how their data fared. What they could not be told matters only where it was stored:
// else they were to hear of no backup, which is also what they hear when a session just ends.
func (x *run) tell(ctx context.Context, stored bool, expired error) {
	m := x.result.Mover
	if m.Told = ToldNone; stored {
		m.Told = ToldAll
	}
	err := expired
	if err == nil {
		telling, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellLimit)
		defer cancel()
		err = x.guest.Session.Complete(telling, guest.Completion{Stored: stored, Truncate: x.plan.BackupType == backupFull})
	}
	if err == nil {
		return
	}
	if m.Told = ToldUnknown; guest.CodeOf(err) == "SF4020" {
		m.Told = ToldExpired
	}
	x.Log.Warn("the guest's applications were not told how their data fared", zap.String("told", string(m.Told)), zap.Error(err))
	if !stored {
		return
	}
	x.result.failure(err)
	if x.windows() { // elsewhere no application waits to hear of it
		x.result.Outcome = Degraded
	}
}

// backupFull is the backup type with which applications cut their logs.
const backupFull = "full"

// keep leaves the snapshot, and writes down that this is on purpose. One that cannot be written down is removed: nobody
// would remember it.
func (x *run) keep(ctx context.Context) error {
	if x.Memory != nil {
		if err := x.Memory.Intend(context.WithoutCancel(ctx), x.intent(statefile.KeptSnapshot)); err != nil {
			x.result.Outcome = Failed
			return errors.Join(fmt.Errorf("remember that the snapshot is kept: %w", err), x.remove(ctx))
		}
	}
	x.result.Snapshot.Kept = true
	x.Log.Info("snapshot kept", zap.String("snapshot", x.kept[0].Name), zap.String("moref", x.kept[0].Moref))
	return nil
}
