package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	firstRead        = time.Second // without a push for so long, Task.info is read
	nextRead         = 2 * time.Second
	maxReadFailures  = 300 // in a row, at least 10 min: then the task is given up, its outcome unknown
	maxPollFailures  = 10  // in a row: then only reads remain
	firstAnswerLimit = 10 * time.Second
	cancelLimit      = 2 * time.Second
)

var errTaskLost = errors.New("the task could not be read for too long")

// watcher learns the end of tasks by push. Its own property collector has a long poll in flight before the first task
// exists, so that after the call that makes a task one request suffices, which overlaps the task: a filter for it. It dies
// with the session; reads of the task then take over.
type watcher struct {
	e         *Endpoint
	collector types.ManagedObjectReference
	cancel    context.CancelFunc
	spawn     func(func(context.Context)) // runs beside everything, until close
	quit      chan struct{}               // closed first at the end: no new poll
	polled    chan struct{}               // closed when the poller has ended
	work      sync.WaitGroup

	closing sync.Once
	closed  error

	mu    sync.Mutex
	tasks map[types.ManagedObjectReference]*watched
	// other is told, if it is not nil, what is pushed of anything but tasks. It must not block.
	other func(types.ObjectUpdate)
}

// watched is what is known of one task. It may begin with a push, before anybody waits.
type watched struct {
	info   types.TaskInfo
	pushed time.Time // the last push
	ended  time.Time // when its end was learnt
	err    error     // why it cannot be known
	done   chan struct{}
}

// arm starts a watcher. It returns when the first answer has come and the next poll has been written to its connection.
func arm(ctx context.Context, e *Endpoint) (*watcher, error) {
	made, err := methods.CreatePropertyCollector(ctx, e.vim, &types.CreatePropertyCollector{
		This: e.vim.ServiceContent.PropertyCollector,
	})
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &watcher{
		e: e, collector: made.Returnval, cancel: cancel, quit: make(chan struct{}), polled: make(chan struct{}),
		tasks: make(map[types.ManagedObjectReference]*watched),
	}
	w.spawn = func(f func(context.Context)) { w.work.Go(func() { f(life) }) }
	version, err := w.firstAnswer(ctx)
	if err != nil {
		close(w.polled)
		return nil, errors.Join(err, w.close(ctx))
	}
	flying := make(chan struct{})
	go w.poll(life, version, sync.OnceFunc(func() { close(flying) }))
	select {
	case <-flying:
		return w, nil
	case <-w.polled:
		err = errors.New("the long poll ended at once")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, w.close(ctx))
}

// firstAnswer gives the collector one filter that always has an answer, then waits for it. The filter is on something that
// needs no privilege, never changes: ServiceInstance.capability. Without any filter vCenter would have nothing to say.
func (w *watcher) firstAnswer(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, firstAnswerLimit, errCallLimit)
	defer cancel()
	if err := w.filter(ctx, vim25.ServiceInstance, "capability"); err != nil {
		return "", err
	}
	set, err := w.wait(ctx, "")
	if err != nil {
		return "", err
	}
	if set == nil {
		return "", errors.New("the first answer of the long poll is empty")
	}
	return set.Version, nil
}

func (w *watcher) filter(ctx context.Context, ref types.ManagedObjectReference, paths ...string) error {
	_, err := methods.CreateFilter(ctx, once{w.e}, &types.CreateFilter{
		This: w.collector,
		Spec: types.PropertyFilterSpec{
			ObjectSet: []types.ObjectSpec{{Obj: ref}},
			PropSet:   []types.PropertySpec{{Type: ref.Type, PathSet: paths}},
		},
	})
	return err
}

func (w *watcher) wait(ctx context.Context, version string) (*types.UpdateSet, error) {
	seconds := int32(waitSeconds)
	res, err := methods.WaitForUpdatesEx(ctx, once{w.e}, &types.WaitForUpdatesEx{
		This: w.collector, Version: version, Options: &types.WaitOptions{MaxWaitSeconds: &seconds},
	})
	if err != nil {
		return nil, err
	}
	return res.Returnval, nil
}

// poll keeps one wait in flight until the watcher closes or the collector is gone.
func (w *watcher) poll(ctx context.Context, version string, written func()) {
	defer close(w.polled)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) {
		if i.Err == nil {
			written()
		}
	}})
	failures := 0
	for failures < maxPollFailures {
		select {
		case <-w.quit:
			return
		default:
		}
		set, err := w.wait(ctx, version)
		switch {
		case err == nil && set != nil:
			failures, version = 0, set.Version
			w.take(set, time.Now())
		case err == nil:
			failures = 0
		case isFault[*types.InvalidCollectorVersion](err):
			failures++
			version = "" // all filters answer anew
		case !isNetwork(err):
			return
		default:
			failures++
			if !pause(ctx, time.Duration(failures)*100*time.Millisecond) {
				return
			}
		}
	}
}

// take stores what one answer tells about tasks.
func (w *watcher) take(set *types.UpdateSet, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range set.FilterSet {
		for _, o := range f.ObjectSet {
			if o.Obj.Type != "Task" {
				if w.other != nil {
					w.other(o)
				}
				continue
			}
			t := w.task(o.Obj)
			t.pushed = now
			for _, c := range o.ChangeSet {
				merge(&t.info, c.Name, c.Val)
			}
			t.settle(now)
		}
	}
}

// task gives the entry of one task, a new one when it is unknown. The caller holds mu.
func (w *watcher) task(ref types.ManagedObjectReference) *watched {
	t, ok := w.tasks[key(ref)]
	if !ok {
		t = &watched{done: make(chan struct{})}
		w.tasks[key(ref)] = t
	}
	return t
}

// forget lets go of a task that has ended.
func (w *watcher) forget(ref types.ManagedObjectReference) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tasks, key(ref))
}

// settle notes the end of a task, once.
func (t *watched) settle(now time.Time) {
	ended := t.info.State == types.TaskInfoStateSuccess || t.info.State == types.TaskInfoStateError || t.err != nil
	if ended && t.ended.IsZero() {
		t.ended = now
		close(t.done)
	}
}

// merge puts one pushed property of a task into info.
func merge(info *types.TaskInfo, path string, v any) {
	switch path {
	case "info.state":
		info.State = types.TaskInfoState(fmt.Sprint(v))
	case "info.result":
		info.Result = v
	case "info.error":
		if f, ok := v.(types.LocalizedMethodFault); ok {
			info.Error = &f
		}
	case "info.queueTime":
		info.QueueTime, _ = v.(time.Time)
	case "info.startTime":
		if t, ok := v.(time.Time); ok {
			info.StartTime = &t
		}
	case "info.completeTime":
		if t, ok := v.(time.Time); ok {
			info.CompleteTime = &t
		}
	}
}

// track begins to follow a task: the filter's request runs beside whatever the caller does next. When it fails the reads
// of follow find the task's end. Progress is not asked for: each percent would take the poll out of flight.
func (w *watcher) track(ref types.ManagedObjectReference) {
	w.spawn(func(ctx context.Context) {
		err := w.filter(ctx, ref, "info.state", "info.result", "info.error", "info.queueTime", "info.startTime", "info.completeTime")
		if isFault[*types.ManagedObjectNotFound](err) || err == nil {
			return
		}
		w.read(ctx, ref)
	})
}

// follow waits for the end of a tracked task, however late, or for ctx. It gives the time when this machine learnt the end.
func (w *watcher) follow(ctx context.Context, ref types.ManagedObjectReference) (types.TaskInfo, time.Time, error) {
	w.mu.Lock()
	t := w.task(ref)
	w.mu.Unlock()
	timer := time.NewTimer(firstRead)
	defer timer.Stop()
	reading := make(chan bool, 1) // the one read in flight; it gives whether it succeeded
	busy, failures := false, 0
	for {
		select {
		case <-t.done:
			w.mu.Lock()
			defer w.mu.Unlock()
			return t.info, t.ended, t.err
		case <-ctx.Done():
			return types.TaskInfo{}, time.Time{}, context.Cause(ctx)
		case ok := <-reading:
			busy = false
			if failures++; ok {
				failures = 0
			}
			if failures >= maxReadFailures {
				return types.TaskInfo{}, time.Time{}, errTaskLost
			}
		case <-timer.C:
			timer.Reset(nextRead)
			if !busy && w.silent(t, firstRead) {
				busy = true
				w.spawn(func(ctx context.Context) { reading <- w.read(ctx, ref) })
			}
		}
	}
}

func (w *watcher) silent(t *watched, d time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(t.pushed) >= d
}

// read asks for the task once. It says whether there was an answer.
func (w *watcher) read(ctx context.Context, ref types.ManagedObjectReference) bool {
	p, err := w.e.properties(ctx, ref, "info")
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.task(ref)
	if !t.ended.IsZero() {
		return true
	}
	switch info, ok := p["info"].(types.TaskInfo); {
	case isFault[*types.ManagedObjectNotFound](err):
		t.err = err
	case err != nil || !ok:
		return false
	default:
		t.info = info
	}
	t.settle(time.Now())
	return true
}

// close ends the poll, then the collector with all its filters, then waits for its goroutines. It is idempotent and blocks
// for at most 7 s.
func (w *watcher) close(ctx context.Context) error {
	w.closing.Do(func() {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeLimit, errCallLimit)
		defer cancel()
		close(w.quit)
		_, err := methods.CancelWaitForUpdates(ctx, once{w.e}, &types.CancelWaitForUpdates{This: w.collector})
		w.closed = gone(err)
		t := time.NewTimer(cancelLimit)
		select {
		case <-w.polled:
		case <-t.C:
		}
		t.Stop()
		w.cancel()
		<-w.polled
		_, err = methods.DestroyPropertyCollector(ctx, once{w.e}, &types.DestroyPropertyCollector{This: w.collector})
		w.closed = errors.Join(w.closed, gone(err))
		w.work.Wait()
	})
	return w.closed
}

// gone forgives the end of what has already ended: a collector dies with its session.
func gone(err error) error {
	if isFault[*types.ManagedObjectNotFound](err) || isFault[*types.NotAuthenticated](err) {
		return nil
	}
	return err
}
