package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stillframe/stillframe/pkg/backup"
)

const (
	// flushEvery is how often lines of runs are written to their files.
	flushEvery = time.Second
	// pendingMost is how much is kept of a run until it is written, fileMost how much of it in all.
	pendingMost, fileMost = 64 << 10, 4 << 20
	// forgetEvery is how often files of runs that are forgotten are looked for, forgetAfter how old they are at least.
	forgetEvery, forgetAfter = time.Hour, time.Hour
	// forgetAtOnce is how many runs are asked for with one statement.
	forgetAtOnce = 500
)

// runLogDir is the folder of the logs of runs, runLogPath that of one: lines of JSON.
func runLogDir(stateDir string) string { return filepath.Join(stateDir, "runs") }

func runLogPath(dir, run string) string { return filepath.Join(dir, run+logSuffix) }

const logSuffix = ".jsonl"

// runLogs keeps what is logged with the field "run" in a file for each run. To log is to write into memory: files are written
// by flush only, and not while the run's guest may be held.
type runLogs struct {
	dir string
	// held are the runs whose guest may be held right now.
	held func() map[string]bool

	writing sync.Mutex // by flush
	mu      sync.Mutex
	pending map[string]*pendingLines
}

// pendingLines are lines that are not in their run's file yet; dropped counts those for which there was no room.
type pendingLines struct {
	text    bytes.Buffer
	dropped int
}

func newRunLogs(dir string, held func() map[string]bool) *runLogs {
	return &runLogs{dir: dir, held: held, pending: map[string]*pendingLines{}}
}

// beside makes a log that writes into the files of runs, too.
func (l *runLogs) beside(core zapcore.Core) zapcore.Core { return zapcore.NewTee(core, l.core()) }

func (l *runLogs) core() *runCore { return &runCore{l, zapcore.NewJSONEncoder(logEncoding()), ""} }

// logEncoding is how lines of the daemon's logs look.
func logEncoding() zapcore.EncoderConfig {
	c := zap.NewProductionEncoderConfig()
	c.TimeKey, c.EncodeTime, c.EncodeDuration = "ts", zapcore.RFC3339NanoTimeEncoder, zapcore.StringDurationEncoder
	return c
}

// runCore takes the lines of runs.
type runCore struct {
	logs    *runLogs
	encoder zapcore.Encoder
	run     string
}

// Enabled implements zapcore.Core: a run's own log has what an operator needs, whatever the level of the daemon's.
func (c *runCore) Enabled(l zapcore.Level) bool { return l >= zapcore.InfoLevel }

// With implements zapcore.Core.
func (c *runCore) With(fields []zapcore.Field) zapcore.Core {
	with := &runCore{c.logs, c.encoder.Clone(), runOf(fields, c.run)}
	for _, f := range fields {
		f.AddTo(with.encoder)
	}
	return with
}

// Check implements zapcore.Core.
func (c *runCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write implements zapcore.Core.
func (c *runCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	run := runOf(fields, c.run)
	if run == "" {
		return nil
	}
	line, err := c.encoder.EncodeEntry(e, fields)
	if err != nil {
		return err
	}
	defer line.Free()
	c.logs.add(run, line.Bytes())
	return nil
}

// Sync implements zapcore.Core.
func (c *runCore) Sync() error { return nil }

func runOf(fields []zapcore.Field, run string) string {
	for _, f := range fields {
		if f.Key == "run" && f.Type == zapcore.StringType {
			return f.String
		}
	}
	return run
}

// add keeps a line until the next flush.
func (l *runLogs) add(run string, line []byte) {
	if uuid.Validate(run) != nil { // it becomes the name of a file
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pending[run]
	if p == nil {
		p = &pendingLines{}
		l.pending[run] = p
	}
	if p.text.Len()+len(line) > pendingMost {
		p.dropped++
		return
	}
	p.text.Write(line)
}

// report writes what a run's report tells into its own log only: phases, ways into the guest, findings.
func (l *runLogs) report(r backup.Result) {
	log := zap.New(l.core()).With(zap.String("run", r.RunID))
	seconds := func(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }
	for _, a := range r.Guest.Attempts {
		log.Info("attempt", zap.String("road", a.Road), zap.String("start", a.Start), zap.String("stage", a.Stage), zap.Bool("ok", a.OK), zap.String("code", a.Code),
			zap.String("text", a.Text), zap.Duration("took", seconds(a.Seconds)))
	}
	for _, p := range r.Window.Phases {
		log.Info("phase", zap.String("phase", p.Name), zap.Duration("since_go", seconds(p.StartSeconds)), zap.Duration("took", seconds(p.DurationSeconds)))
	}
	for _, f := range r.Findings {
		log.Warn("finding", zap.String("code", string(f.Code)), zap.String("title", f.Title), zap.Strings("evidence", f.Evidence))
	}
	for _, left := range r.Leftovers {
		log.Warn("left over", zap.String("what", left))
	}
}

// flush writes what is kept to the files, but for runs whose guest may be held; all of it at the end.
func (l *runLogs) flush(all bool) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	held := map[string]bool{}
	if !all {
		held = l.held()
	}
	l.mu.Lock()
	ready := map[string]*pendingLines{}
	for run, p := range l.pending {
		if !held[run] {
			ready[run] = p
			delete(l.pending, run)
		}
	}
	l.mu.Unlock()
	if len(ready) == 0 {
		return nil
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the logs of runs: %w", err)
	}
	var errs []error
	for run, p := range ready {
		if err := l.write(run, p); err != nil {
			errs = append(errs, fmt.Errorf("write the log of run %s: %w", run, err))
		}
	}
	return errors.Join(errs...)
}

// write appends to the file of a run as long as there is room in it.
func (l *runLogs) write(run string, p *pendingLines) (err error) {
	file, err := os.OpenFile(runLogPath(l.dir, run), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	about, err := file.Stat()
	if err != nil || about.Size() >= fileMost {
		return err
	}
	if p.dropped > 0 {
		fmt.Fprintf(&p.text, `{"level":"warn","msg":"lines were dropped","run":%q,"dropped":%d}`+"\n", run, p.dropped)
	}
	_, err = file.Write(p.text.Bytes())
	return err
}

// forget removes the files of runs that are not known any more. known gives those of some IDs that are.
func (l *runLogs) forget(known func(ids []string) (map[string]string, error)) error {
	files, err := os.ReadDir(l.dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	var old []string
	for _, f := range files {
		run, is := strings.CutSuffix(f.Name(), logSuffix)
		about, err := f.Info()
		if is && err == nil && time.Since(about.ModTime()) > forgetAfter {
			old = append(old, run)
		}
	}
	for len(old) > 0 {
		part := old[:min(forgetAtOnce, len(old))]
		old = old[len(part):]
		there, err := known(part)
		if err != nil {
			return err
		}
		for _, run := range part {
			if _, ok := there[run]; ok {
				continue
			}
			if err := os.Remove(runLogPath(l.dir, run)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// thawing are the runs whose guest may be held right now.
func (s *service) thawing() map[string]bool {
	held := map[string]bool{}
	for _, w := range s.daemon.Windows() {
		held[w.Run.ID] = true
	}
	return held
}

// keepLogs writes the logs of runs, and forgets them with their runs, until ctx ends.
func (s *service) keepLogs(ctx context.Context) {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	var forgot time.Time
	for healthy := true; ; {
		err := s.logs.flush(false)
		if err != nil && healthy {
			s.log.Warn("the logs of runs are not written", zap.Error(err))
		}
		healthy = err == nil
		if time.Since(forgot) >= forgetEvery {
			forgot = time.Now()
			err := s.logs.forget(func(ids []string) (map[string]string, error) { return s.catalog.Levels(ctx, ids) })
			if err != nil && ctx.Err() == nil {
				s.log.Warn("the logs of runs that are forgotten were not removed", zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
