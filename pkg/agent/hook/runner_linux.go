package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// codeFailed is SF4019 of the catalogue.
const codeFailed = "SF4019"

// Options say where the hooks are.
type Options struct {
	// Dir is the folder of the hooks, Owner the user that they must belong to besides root: 0 in the product.
	Dir   string
	Owner uint32
	// RunDir is where it is marked that hooks have begun, on a file system that is not frozen; empty for no mark.
	RunDir string
}

// Runner runs the hooks of one session. Its methods follow agent.Hooks.
type Runner struct {
	o Options

	stop    chan struct{} // closed by End
	running sync.WaitGroup

	mu    sync.Mutex
	ended bool
	hooks []hook
	dog   *watchdog
	mark  *mark // from the first hook to the end of post-thaw
	held  []*child
	rows  []protocol.Hook // of holding hooks that are over
}

var _ agent.Hooks = (*Runner)(nil)

// New makes a Runner; it looks at the folder when prepare is run.
func New(o Options) *Runner { return &Runner{o: o, stop: make(chan struct{})} }

// begin admits a Run, which End then waits for.
func (r *Runner) begin(p agent.Point) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended && p != agent.PointPostThaw {
		return false
	}
	r.running.Add(1)
	return true
}

// Run implements agent.Hooks.
func (r *Runner) Run(ctx context.Context, q agent.HookRequest, started func()) agent.HookOutcome {
	if !r.begin(q.Point) {
		return agent.HookOutcome{Err: coded("the session has ended")}
	}
	defer r.running.Done()
	var rows []protocol.Hook
	var err error
	switch q.Point {
	case agent.PointPrepare:
		rows, err = r.prepare(ctx, q)
	case agent.PointPreFreeze:
		err = r.preFreeze(q, started)
	case agent.PointPostThaw:
		rows = r.postThaw(q)
		err = r.unmark(true)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o := agent.HookOutcome{Results: rows, Err: err}
	for _, h := range r.hooks {
		o.Installed = append(o.Installed, h.name)
		if h.at(agent.PointPreFreeze) {
			o.Holding++
		}
	}
	return o
}

func coded(format string, a ...any) error {
	return &agent.CodedError{Code: codeFailed, Err: fmt.Errorf(format, a...)}
}

// failed names the first required hook among the rows that failed.
func failed(rows []protocol.Hook) error {
	for _, row := range rows {
		if row.Required && !row.OK {
			return coded("required hook %s at %s: %s", row.Name, row.Point, row.Error)
		}
	}
	return nil
}

// of lists the hooks of a point.
func (r *Runner) of(p agent.Point) []hook {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.hooks), func(h hook) bool { return !h.at(p) })
}

// prepare reads the folder, marks that hooks have begun, starts the watchdog if any hook will hold, and runs the hooks
// one after the other.
func (r *Runner) prepare(ctx context.Context, q agent.HookRequest) ([]protocol.Hook, error) {
	hooks, err := load(r.o.Dir, r.o.Owner)
	if err != nil {
		return nil, &agent.CodedError{Code: codeFailed, Err: err}
	}
	r.mu.Lock()
	r.hooks = hooks
	r.mu.Unlock()
	var begun *os.File
	if r.o.RunDir != "" && len(r.of(agent.PointPostThaw)) > 0 {
		m, err := makeMark(ctx, r.o.RunDir, q)
		if err != nil {
			return nil, &agent.CodedError{Code: codeFailed, Err: err}
		}
		r.mu.Lock()
		r.mark, begun = m, m.file
		r.mu.Unlock()
	}
	if len(r.of(agent.PointPreFreeze)) > 0 {
		dog, err := startWatchdog(ctx, q.Deadman, begun)
		if err != nil {
			return nil, &agent.CodedError{Code: codeFailed, Err: err}
		}
		r.mu.Lock()
		r.dog = dog
		r.mu.Unlock()
	}
	end := time.Now().Add(prepareLimit)
	var rows []protocol.Hook
	for _, h := range r.of(agent.PointPrepare) {
		if r.stopped() {
			return rows, coded("the session has ended")
		}
		rows = append(rows, r.once(h, q, end, r.stop))
		if err := failed(rows); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// stopped says whether End was called.
func (r *Runner) stopped() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

// unmark lets the mark go; remove says that post-thaw is over.
func (r *Runner) unmark(remove bool) error {
	r.mu.Lock()
	m := r.mark
	r.mark = nil
	r.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.close(remove)
}

// once runs a hook to its end, until the lower of its own limit and end.
func (r *Runner) once(h hook, q agent.HookRequest, end time.Time, stop <-chan struct{}) protocol.Hook {
	c, err := start(h, q, nil)
	if err != nil {
		return rowOf(h, q.Point, err)
	}
	return c.row(c.finish(c.began.Add(h.bound(end.Sub(c.began))), stop))
}

// preFreeze starts the holding hooks one after the other, each when the one before holds. The results come with End.
func (r *Runner) preFreeze(q agent.HookRequest, started func()) error {
	end := time.Now().Add(preFreezeLimit)
	for i, h := range r.of(agent.PointPreFreeze) {
		if r.stopped() {
			return coded("the session has ended")
		}
		if i == 0 {
			started() // the hold is as old as the first hook
		}
		row := r.hold(h, q, end)
		if row == nil {
			continue
		}
		r.mu.Lock()
		r.rows = append(r.rows, *row)
		r.mu.Unlock()
		if err := failed([]protocol.Hook{*row}); err != nil {
			return err
		}
	}
	return nil
}

// hold starts one holding hook and waits until it holds; a row means that it does not.
func (r *Runner) hold(h hook, q agent.HookRequest, end time.Time) *protocol.Hook {
	by := time.Now().Add(h.bound(eachLimit))
	if end.Before(by) {
		by = end
	}
	c, err := start(h, q, r.dog)
	if err != nil {
		row := rowOf(h, q.Point, err)
		return &row
	}
	if err := c.awaitHeld(by, r.stop); err != nil {
		row := c.row(err)
		return &row
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, c)
	return nil
}

// postThaw runs the hooks side by side, so that the last of them is over after 30 s.
func (r *Runner) postThaw(q agent.HookRequest) []protocol.Hook {
	hooks := r.of(agent.PointPostThaw)
	rows := make([]protocol.Hook, len(hooks))
	end := time.Now().Add(postThawLimit)
	var all sync.WaitGroup
	for i, h := range hooks {
		all.Go(func() { rows[i] = r.once(h, q, end, nil) })
	}
	all.Wait()
	return rows
}

// End implements agent.Hooks. The hooks are let go side by side.
func (r *Runner) End(by time.Time) []protocol.Hook {
	r.mu.Lock()
	if !r.ended {
		r.ended = true
		close(r.stop)
	}
	r.mu.Unlock()
	r.running.Wait()
	r.mu.Lock()
	held, rows := r.held, r.rows
	r.held, r.rows = nil, nil
	r.mu.Unlock()
	ended := make([]protocol.Hook, len(held))
	var all sync.WaitGroup
	for i, c := range held {
		all.Go(func() {
			ended[i] = c.row(c.letGo(by))
		})
	}
	all.Wait()
	return append(rows, ended...)
}

// Close implements agent.Hooks.
func (r *Runner) Close() error {
	r.mu.Lock()
	dog := r.dog
	r.dog = nil
	r.mu.Unlock()
	err := r.unmark(false) // post-thaw is still owed if the mark is there
	if dog == nil {
		return err
	}
	return errors.Join(err, dog.leave())
}
