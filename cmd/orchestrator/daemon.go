package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	oklog "github.com/oklog/run"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/audit"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/daemon"
	"github.com/stillframe/stillframe/pkg/engine"
	"github.com/stillframe/stillframe/pkg/enrolment"
	"github.com/stillframe/stillframe/pkg/journal"
	"github.com/stillframe/stillframe/pkg/metrics"
	"github.com/stillframe/stillframe/pkg/secret"
	"github.com/stillframe/stillframe/pkg/store"
)

// Limits of the daemon's end: drainLimit for runs at work, logoutLimit for the sessions with vCenters. Both together stay
// below the 80 s after which all stacks are dumped, and those below systemd's TimeoutStopSec of 90 s.
const (
	drainLimit  = 60 * time.Second
	logoutLimit = 10 * time.Second
)

// daemonFlags are the flags of "stillframe daemon".
type daemonFlags struct {
	config string
	govc   bool
}

func (c *cli) daemonCommand() *cobra.Command {
	var f daemonFlags
	cmd := &cobra.Command{
		Use: "daemon", Short: "Run the jobs of the configuration, until it is told to stop", Args: cobra.NoArgs,
		Long: `Reads the configuration, undoes what a killed daemon left, runs the jobs when they are due, and answers on its socket.
SIGHUP reads the configuration again; one with mistakes changes nothing. SIGTERM begins no more runs, lets those at work come
to an end, and leaves what is not done yet in the queue. A configuration with mistakes at the start is replaced by the last
good one, because a guest or a snapshot may be waiting; without one the exit status is 8.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runDaemon(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "the configuration (default STILLFRAME_CONFIG, else "+config.DefaultPath+")")
	flags.BoolVar(&f.govc, "allow-govc-env", false, "let GOVC_URL and its kin name the vCenter of a file that names none")
	return cmd
}

// service is the running daemon with all that it stands on.
type service struct {
	c       *cli
	flags   daemonFlags
	path    string
	log     *zap.Logger
	store   *store.Store
	engine  *engine.Engine
	catalog *catalog.Catalog
	daemon  *daemon.Daemon
	rooms   *vcenters
	trail   *audit.Log
	api     *api.Server
	feed    *api.Feed
	figures *metrics.Daemon
	// logs keeps what is logged of each run beside the log of all.
	logs *runLogs
	// jobs are the names of jobs by their IDs, as they were put in force last.
	jobs atomic.Pointer[map[string]string]
	// ended are the jobs of which a run has ended since the last copy of the database.
	ended endedJobs
	// ending is true from the beginning of the drain.
	ending atomic.Bool
	// reloading keeps reloads apart.
	reloading sync.Mutex
	// degraded is why the last good configuration is in force; empty when that of the file is.
	degraded string
}

func (c *cli) runDaemon(ctx context.Context, f daemonFlags) error {
	c.reloads.Store(true)
	s := &service{c: c, flags: f, path: first(f.config, c.getenv("STILLFRAME_CONFIG"), config.DefaultPath)}
	conf, err := s.load()
	if err != nil {
		return err
	}
	s.logs = newRunLogs(runLogDir(conf.Store.StateDir), s.thawing)
	s.log = c.daemonLog(conf.Log).WithOptions(zap.WrapCore(s.logs.beside))
	if s.degraded != "" {
		s.log.Error("the configuration has mistakes: working by the last good one", zap.String("why", s.degraded))
	}
	if err := s.build(ctx, conf); err != nil {
		return errors.Join(err, s.close(ctx))
	}
	err = s.serve(ctx)
	return errors.Join(err, s.close(ctx))
}

func (s *service) options() config.Options {
	return config.Options{Getenv: s.c.getenv, GOVC: s.flags.govc}
}

// load reads the configuration, or the last good one when it cannot be used.
func (s *service) load() (*config.Config, error) {
	conf, problems := config.LoadWith(s.path, s.options())
	if conf != nil {
		return conf, nil
	}
	bad := &problemsError{problems}
	dir := first(s.c.getenv("STILLFRAME_STATE_DIR"), defaultStateDir)
	last, _ := config.LoadLastGood(dir, s.options())
	if last == nil {
		return nil, bad
	}
	s.degraded = bad.Error()
	return last, nil
}

// defaultStateDir is where the last good configuration is looked for when the configuration cannot be read at all; it is the
// default of store.state_dir.
const defaultStateDir = "/var/lib/stillframe"

// problemsError is a configuration with mistakes.
type problemsError struct{ all []config.Problem }

func (e *problemsError) Error() string {
	text := "the configuration cannot be used"
	for _, p := range e.all {
		if p.Severity == config.Error {
			text += "\n" + p.String()
		}
	}
	return text
}

// Code is the code of the error catalogue.
func (e *problemsError) Code() string { return "SF1200" }

// daemonLog writes JSON, or lines for people on a terminal.
func (c *cli) daemonLog(l config.Log) *zap.Logger {
	level, err := zapcore.ParseLevel(l.Level)
	if err != nil {
		level = zapcore.InfoLevel
	}
	file, isFile := c.stderr.(*os.File)
	if l.Format == "console" || l.Format == "auto" && isFile && term.IsTerminal(int(file.Fd())) {
		return c.logger().WithOptions(zap.IncreaseLevel(level))
	}
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(logEncoding()), zapcore.Lock(zapcore.AddSync(c.stderr)), level))
}

// build makes the parts, from the ground up.
func (s *service) build(ctx context.Context, conf *config.Config) (err error) {
	dir := conf.Store.StateDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	secrets, err := secret.OpenStore(filepath.Join(dir, "creds"), secret.StoreOptions{Getenv: s.c.getenv})
	if err != nil {
		return err
	}
	resolver := secret.NewResolver(secret.Options{Getenv: s.c.getenv, Store: secrets})
	dsn := ""
	if conf.Store.Kind == string(store.Postgres) {
		found, err := (&vcenters{secrets: resolver}).read(ctx, conf.Store.DSN)
		if err != nil {
			return fmt.Errorf("read the address of the database: %w", err)
		}
		dsn = found.Value.Reveal()
	}
	if s.store, err = store.Open(ctx, store.Options{Dir: dir, DSN: dsn, Log: s.log}); err != nil {
		return err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	s.engine, err = engine.New(ctx, s.store, engine.Options{
		Hostname: hostname, Version: version, Workers: conf.Limits.VCenter.Runs, Log: s.log,
		Undo: func(ctx context.Context, d catalog.Delivery) error { return s.daemon.Undo(ctx, d) },
	})
	if err != nil {
		return err
	}
	s.catalog = catalog.New(s.store, journal.New(s.store), s.engine, s.c.now)
	s.feed = api.NewFeed()
	s.figures = metrics.NewDaemon(metrics.DaemonOptions{Budget: conf.Window.Budget(), Version: version, Fleet: s.fleet, Process: s.process})
	s.figures.Configured(s.degraded == "", s.degraded != "")
	book, err := enrolment.Open(filepath.Join(dir, agentsFolder))
	if err != nil {
		return err
	}
	reverse, err := dialled(ctx, conf.Guests.DialTo, conf.Guests.DialListen)
	if err != nil {
		return err
	}
	s.rooms = &vcenters{
		secrets: resolver, book: book, reverse: reverse, records: s.catalog, installation: s.store.Installation().ID, home: dir, log: s.log, count: s.figures, open: map[string]*slot{},
	}
	in := s.store.Installation()
	s.daemon = daemon.New(daemon.Options{
		Catalog: s.catalog, Queue: s.engine, VCenters: s.rooms, Config: conf, Observer: s, Log: s.log,
		Installation: in.ID, Before: in.Before, Epoch: in.Epoch, Now: s.c.now,
	})
	if err := s.apply(ctx, conf); err != nil {
		return err
	}
	if err := s.face(ctx, conf); err != nil {
		return err
	}
	return s.keep(conf)
}

// apply puts a configuration in force.
func (s *service) apply(ctx context.Context, conf *config.Config) error {
	if err := s.daemon.Apply(ctx, conf); err != nil {
		return err
	}
	jobs, err := s.catalog.Jobs(ctx)
	if err != nil {
		return err
	}
	byID, names := map[string]string{}, []string{}
	for _, j := range jobs {
		byID[j.ID] = j.Name
		names = append(names, j.Name)
	}
	s.jobs.Store(&byID)
	s.figures.SetJobs(names)
	return nil
}

// face opens what operators and Prometheus speak to.
func (s *service) face(ctx context.Context, conf *config.Config) error {
	s.trail = audit.New(filepath.Join(conf.Store.StateDir, "audit.jsonl"), audit.Options{Now: s.c.now})
	o := api.Options{Socket: conf.Listen.Socket, Address: conf.Listen.Address, Version: version, Log: s.log, Now: s.c.now}
	if t := conf.Listen.TLS; t != nil {
		pair, err := s.certificate(ctx, *t)
		if err != nil {
			return fmt.Errorf("read the certificate of listen.tls: %w", err)
		}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	}
	if err := os.MkdirAll(filepath.Dir(conf.Listen.Socket), 0o755); err != nil {
		return fmt.Errorf("make the folder of the socket: %w", err)
	}
	var err error
	if s.api, err = api.New(newBackends(s.catalog, s.trail, s, s.feed, s.figures.Handler(), s.now()), o); err != nil {
		return err
	}
	return s.api.Listen(ctx)
}

// certificate reads the certificate of the TCP listener, and its key where the reference leads.
func (s *service) certificate(ctx context.Context, t config.TLS) (tls.Certificate, error) {
	cert, err := os.ReadFile(t.Cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := s.rooms.read(ctx, t.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, []byte(key.Value.Reveal()))
}

// now is the wall clock.
func (s *service) now() func() time.Time {
	if s.c.now != nil {
		return s.c.now
	}
	return time.Now
}

// keep remembers a configuration that works, for a start at which the file does not.
func (s *service) keep(conf *config.Config) error {
	if s.degraded != "" {
		return nil
	}
	return config.WriteLastGood(conf.Store.StateDir, conf)
}

// serve works until ctx ends, which begins the drain; each part ends the others.
func (s *service) serve(ctx context.Context) error {
	var group oklog.Group
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group.Add(func() error { return s.daemon.Serve(working) }, func(error) {
		s.ending.Store(true)
		s.notify("STOPPING=1")
		draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
		defer cancel()
		if err := s.daemon.Drain(draining); err != nil {
			s.log.Warn("not every run came to its end in time; what is left is undone at the next start", zap.Error(err))
		}
		stop()
	})
	answering, hangUp := context.WithCancel(working)
	group.Add(func() error { return s.api.Serve(answering) }, func(error) { hangUp() })
	watching, unwatch := context.WithCancel(ctx)
	group.Add(func() error {
		s.watch(watching)
		return nil
	}, func(error) { unwatch() })
	tending, leave := context.WithCancel(working)
	group.Add(func() error {
		s.tend(tending)
		return nil
	}, func(error) { leave() })
	copying, halt := context.WithCancel(working)
	group.Add(func() error {
		s.keepCopies(copying)
		return nil
	}, func(error) { halt() })
	keeping, end := context.WithCancel(working)
	group.Add(func() error {
		s.keepLogs(keeping)
		return nil
	}, func(error) { end() })
	s.notify("READY=1")
	s.log.Info("ready", zap.String("version", version), zap.Int("jobs", len(s.daemon.Config().Jobs)), zap.String("store", string(s.store.Dialect())))
	return group.Run()
}

// watch reads the configuration again when it is told to, until ctx ends.
func (s *service) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.c.reload:
			if _, err := s.reload(ctx); err != nil {
				s.log.Error("the configuration was not taken over", zap.Error(err))
			}
		}
	}
}

// reload reads the configuration again and puts it in force. With an error the one before stays.
func (s *service) reload(ctx context.Context) ([]config.Change, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.notify(reloadingNow())
	defer s.notify("READY=1")
	conf, problems := config.LoadWith(s.path, s.options())
	if conf == nil {
		s.figures.Configured(false, s.degraded != "")
		return nil, &problemsError{problems}
	}
	changes := config.Diff(s.daemon.Config(), conf)
	if err := s.apply(ctx, conf); err != nil {
		s.figures.Configured(false, s.degraded != "")
		return nil, err
	}
	s.degraded = ""
	s.figures.Configured(true, false)
	for _, change := range changes {
		s.log.Info("configuration changed", zap.String("what", change.Path), zap.Bool("needs_restart", change.Restart))
	}
	return changes, s.keep(conf)
}

// close takes the parts down.
func (s *service) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutLimit)
	defer cancel()
	var errs []error
	if s.trail != nil {
		errs = append(errs, s.trail.Close())
	}
	if s.rooms != nil {
		errs = append(errs, s.rooms.close(ctx))
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.logs != nil {
		errs = append(errs, s.logs.flush(true))
	}
	return errors.Join(errs...)
}

// Began implements daemon.Observer.
func (s *service) Began(r catalog.Run) {
	s.feed.Publish(api.Event{At: s.now()(), Topic: "runs", Kind: "run.began", Run: r.ID, VM: r.VMID})
	s.log.Info("run begins", zap.String("run", r.ID), zap.String("vcenter", r.VCenter), zap.String("vm", r.VMID), zap.Int("attempt", r.Attempt))
}

// Ended implements daemon.Observer.
func (s *service) Ended(r catalog.Run, result backup.Result) {
	s.figures.Observe(r.VCenter, result)
	s.logs.report(result)
	s.feed.Publish(api.Event{At: s.now()(), Topic: "runs", Kind: "run.ended", Run: r.ID, VM: r.VMID, Data: map[string]any{
		"outcome": result.Outcome, "level": result.Verdict.Level,
	}})
	fields := []zap.Field{
		zap.String("run", r.ID), zap.String("vm", result.VM.Path), zap.String("outcome", string(result.Outcome)), zap.String("level", string(result.Verdict.Level)),
	}
	if len(result.Findings) > 0 && result.Outcome != backup.OK {
		f := result.Findings[0]
		s.log.Warn("run ended", append(fields, zap.String("code", string(f.Code)), zap.String("why", f.Title), zap.Strings("evidence", f.Evidence))...)
		return
	}
	s.log.Info("run ended", fields...)
}

// Finished implements daemon.Observer.
func (s *service) Finished(r catalog.Run) {
	job := metrics.NoJob
	if r.JobID != "" {
		job = (*s.jobs.Load())[r.JobID]
	}
	var took time.Duration
	if !r.Started.IsZero() {
		took = r.Finished.Sub(r.Started)
	}
	s.ended.add(r.JobID)
	s.figures.Finished(job, backup.Outcome(r.Outcome), took)
}

// Fired implements daemon.Observer.
func (s *service) Fired(job string, queued, skipped, missed int) {
	s.figures.Fired(job, skipped, missed)
	s.feed.Publish(api.Event{At: s.now()(), Topic: "jobs", Kind: "job.fired", Job: job, Data: map[string]any{"queued": queued, "skipped": skipped, "missed": missed}})
}
