package vss

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// session is one IVssBackupComponents from its making to its release.
type session struct {
	f       *Freezer
	request agent.PrepareRequest
	policy  policy
	mode    provider.Mode
	kind    vsscode.BackupType
	volumes []protocol.Volume
	ids     []string // of the volumes
	caches  caches   // of the volumes, in mode writer

	thread *thread
	// Of the thread, and of those that have waited for it.
	backup   *backup
	open     bool // InitializeForBackup was called, and neither BackupComplete nor AbortBackup
	writers  []writer
	statuses []status
	id       com.GUID
	phases   map[string]time.Duration

	set      atomic.Pointer[provider.Set] // nil until it is armed
	cancel   atomic.Bool                  // the set is to be cancelled
	reported atomic.Bool                  // Thaw has told of the volumes
	freezing atomic.Bool                  // ended will be closed
	ended    chan struct{}                // closed when DoSnapshotSet is over
	result   vsscode.HRESULT              // of DoSnapshotSet, once ended
	group    sync.WaitGroup
}

func newSession(f *Freezer, r agent.PrepareRequest, mode provider.Mode, kind vsscode.BackupType, volumes []protocol.Volume) (*session, error) {
	s := &session{
		f: f, request: r, policy: policy{r.Writers}, mode: mode, kind: kind, volumes: volumes,
		phases: map[string]time.Duration{}, ended: make(chan struct{}),
	}
	for _, v := range volumes {
		s.ids = append(s.ids, v.ID)
	}
	var err error
	if s.thread, err = startThread(); err != nil {
		return nil, err
	}
	return s, nil
}

// prepare does what comes before GO.
func (s *session) prepare(ctx context.Context) (agent.Prepared, error) {
	if s.mode == provider.Writer {
		if err := s.openCaches(); err != nil {
			return agent.Prepared{}, err
		}
	}
	err := s.thread.do(func() error {
		for _, step := range []struct {
			name string
			do   func(context.Context) error
		}{
			{"metadata", s.gather}, {"components", s.addComponents}, {"volumes", s.addVolumes}, {"prepare_backup", s.prepareBackup}, {"status", s.check},
		} {
			begun := time.Now()
			if err := step.do(ctx); err != nil {
				return err
			}
			s.phases[step.name] = time.Since(begun)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if err != nil {
		return agent.Prepared{}, err
	}
	return agent.Prepared{
		Volumes: s.volumes, SetID: s.id.String(), Writers: table(s.writers, s.statuses, s.policy), Phases: s.phases,
		Provider: protocol.Provider{ID: provider.ID().String(), Version: s.f.o.Version, Served: s.set.Load().Facts().Served},
	}, nil
}

func (s *session) openCaches() error {
	open := s.f.o.Seams.Open
	if open == nil {
		open = openVolume
	}
	for _, id := range s.ids {
		v, err := open(id)
		if err != nil {
			return fmt.Errorf("open %s to flush it: %w", id, err)
		}
		s.caches.volumes = append(s.caches.volumes, v)
	}
	return nil
}

// gather opens the session and reads the writers' metadata.
func (s *session) gather(ctx context.Context) (err error) {
	if s.backup, err = openBackup(); err != nil {
		return err
	}
	if err := s.backup.call("begin a backup", slotInitializeForBackup, 0); err != nil {
		return err
	}
	s.open = true
	if err := s.backup.begin(s.kind); err != nil {
		return err
	}
	classes, err := s.policy.classes()
	if err != nil {
		return err
	}
	if err := s.backup.disable(classes); err != nil { // before the metadata, or it has no effect
		return err
	}
	a, err := s.backup.start("gather the writers' metadata", slotGatherWriterMetadata)
	if err != nil {
		return err
	}
	if err := s.f.wait(ctx, a, s.f.limits.metadata); err != nil {
		return err
	}
	s.writers, err = s.backup.metadata()
	return err
}

// addComponents names to VSS what is backed up. A component that VSS refuses is left out, unless its writer is required.
func (s *session) addComponents(context.Context) error {
	if missing := s.policy.missing(s.writers); len(missing) > 0 {
		return coded(codeNotReady, "required writers are not there: %q", missing)
	}
	if err := choose(s.writers, s.policy, s.ids, locate); err != nil {
		return err
	}
	for _, w := range s.writers {
		for i := range w.components {
			c := &w.components[i]
			if !c.added {
				continue
			}
			err := s.backup.add(w, *c)
			if err != nil && s.policy.role(w.class, w.name) == required {
				return err
			}
			c.added = err == nil
		}
	}
	return s.backup.call("free the writers' metadata", slotFreeWriterMetadata)
}

// addVolumes starts the set and has our provider take each volume. Only between the two the provider supports any.
func (s *session) addVolumes(context.Context) (err error) {
	if s.id, err = s.backup.startSet(); err != nil {
		return err
	}
	set, err := s.f.o.Provider.Arm(provider.Order{
		Set: s.id, Volumes: s.ids, Mode: s.mode, Deadman: s.request.Deadman, IODeadman: s.request.IODeadman, Flush: s.caches.flush,
	})
	if err != nil {
		return err
	}
	s.set.Store(set)
	defer s.f.o.Provider.Shut()
	for _, id := range s.ids {
		if err := s.backup.addVolume(id, provider.ID()); err != nil {
			return notStarted(err, set.Facts().Served)
		}
	}
	return nil
}

func (s *session) prepareBackup(ctx context.Context) error {
	a, err := s.backup.start("prepare the writers for the backup", slotPrepareForBackup)
	if err != nil {
		return err
	}
	return s.f.wait(ctx, a, s.f.limits.prepare)
}

// check reads how the writers are before the freeze.
func (s *session) check(ctx context.Context) error {
	if err := s.readStatus(ctx); err != nil {
		return err
	}
	return ready(s.writers, s.statuses, s.policy)
}

// readStatus asks the writers how they are, once more when VSS has lost the answer of a required one.
func (s *session) readStatus(ctx context.Context) error {
	for again := range 2 {
		a, err := s.backup.start("gather the writers' status", slotGatherWriterStatus)
		if err != nil {
			return err
		}
		if err := s.f.wait(ctx, a, s.f.limits.status); err != nil {
			return err
		}
		all, err := s.backup.status()
		err = errors.Join(err, s.backup.call("free the writers' status", slotFreeWriterStatus))
		if err != nil {
			return err
		}
		s.statuses = all
		if again > 0 || !lost(s.writers, all, s.policy) {
			break
		}
	}
	return nil
}

// abort ends the session in the writers, if nothing has, and lets go of it.
func (s *session) abort() error {
	if s.backup == nil {
		return nil
	}
	var err error
	if s.open {
		s.open = false
		err = s.backup.call("abort the backup", slotAbortBackup)
	}
	s.backup.release()
	s.backup = nil
	return err
}

// close aborts the session unless it was completed, and ends all that it has started.
func (s *session) close() error {
	s.giveUp()
	if s.freezing.Load() {
		select {
		case <-s.ended:
		case <-time.After(s.f.limits.cancel):
			return errStuck
		}
	}
	err := s.thread.do(s.abort)
	s.thread.stop()
	s.group.Wait()
	if set := s.set.Load(); set != nil {
		err = errors.Join(err, s.f.o.Provider.Disarm(set))
	}
	return errors.Join(err, s.caches.close())
}
