package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/store"
)

// timing is how leases are kept.
type timing struct {
	// ttl is how long a lease lasts after its last renewal by the database's clock, renew how often it is renewed, look how
	// often vCenters without an owner are looked for, spread the most that one of many nodes waits before it takes one.
	ttl, renew, look, spread time.Duration
	// share is how often is looked whether another node should have one of the vCenters, which is then left to it for a ttl.
	share time.Duration
	// stale is the age of the last renewal after which no new work begins, dead that after which all of it stops.
	stale, dead time.Duration
}

var leases = timing{
	ttl: 10 * time.Second, renew: 3 * time.Second, look: 500 * time.Millisecond, spread: 500 * time.Millisecond, share: 5 * time.Second,
	stale: 6 * time.Second, dead: 8 * time.Second,
}

// ErrOwned says that another node owns the vCenter.
var ErrOwned = errors.New("another node owns the vCenter")

// LostError is why the work on a vCenter was cancelled: it is another node's, or may be.
type LostError struct{ VCenter, Why string }

func (e *LostError) Error() string {
	return fmt.Sprintf("the vCenter %s is not ours any more: %s", e.VCenter, e.Why)
}

// Code is the code of the error catalogue.
func (e *LostError) Code() string { return "SF1903" }

// Lease is the ownership of a vCenter.
type Lease struct {
	VCenter string
	// Epoch is that of all runs that were unfinished when it was taken.
	Epoch int64
}

// held is a lease of this node.
type held struct {
	Lease
	// renewed is when the last successful renewal was begun, by the monotonic clock.
	renewed time.Time
	paused  bool
	// working is how many deliveries are at work.
	working int
	// stranded are the runs whose undoing waits for the vCenter to be wanted again.
	stranded int
	// work ends, with a *LostError, when the lease does.
	work context.Context //nolint:containedctx // it is the life of the lease
	end  context.CancelCauseFunc
}

// taken is a vCenter that was just taken.
type taken struct {
	Lease
	// at is when the lease began at the earliest, by the monotonic clock.
	at     time.Time
	undo   []catalog.Delivery
	paused bool
}

// take makes this node the owner of a vCenter, if nobody is or this node was. In one transaction the epochs of its
// unfinished runs rise, so that whoever had them is fenced; what is queued is delivered anew, and what was begun is to be
// undone, which is given. ErrOwned when another node has it.
func (e *Engine) take(ctx context.Context, vcenter string) (t taken, err error) {
	ctx, cancel := context.WithTimeout(ctx, takeLimit)
	defer cancel()
	err = e.store.Update(ctx, "take vCenter "+vcenter, func(tx store.Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		free := store.Millis(now)
		if e.store.Dialect() == store.SQLite {
			free = math.MaxInt64 // whoever holds the folder's lock owns everything
		}
		epoch, err := tx.Epoch(ctx)
		if err != nil {
			return err
		}
		t = taken{Lease: Lease{vcenter, epoch}}
		rows, err := store.All(ctx, tx, func(scan func(...any) error) (p bool, err error) { return p, scan(&p) },
			`INSERT INTO vcenter_leases (vcenter_id, owner_node, epoch, lease_until, updated_at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (vcenter_id) DO UPDATE SET owner_node = EXCLUDED.owner_node, epoch = EXCLUDED.epoch, lease_until = EXCLUDED.lease_until,
			updated_at = EXCLUDED.updated_at WHERE vcenter_leases.lease_until <= $6 OR vcenter_leases.owner_node = EXCLUDED.owner_node RETURNING paused`,
			vcenter, e.node, epoch, store.Millis(now.Add(e.timing.ttl)), store.Millis(now), free)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return fmt.Errorf("vCenter %s: %w", vcenter, ErrOwned)
		}
		t.paused = rows[0]
		if t.undo, err = e.inherit(ctx, tx, t.Lease); err != nil {
			return err
		}
		// With much in the queue that took a while, in which the row was locked: the lease begins now.
		t.at = time.Now()
		if now, err = tx.Now(ctx); err == nil {
			_, err = tx.Exec(ctx, "UPDATE vcenter_leases SET lease_until = $1 WHERE vcenter_id = $2", store.Millis(now.Add(e.timing.ttl)), vcenter)
		}
		return err
	})
	return t, err
}

// inherit takes over the unfinished runs of a vCenter.
func (e *Engine) inherit(ctx context.Context, tx store.Tx, l Lease) (undo []catalog.Delivery, err error) {
	// The rows of the queue are worth nothing without their epoch; left, they would stand before the new ones. Those at work on
	// the node that lost the vCenter stay: where one vanishes in the instant in which the library ends it, the library panics
	// (v0.47.0, its statement then reads it as still running).
	if _, err := tx.Exec(ctx, "DELETE FROM river_job WHERE queue = $1 AND state <> 'running'", queueOf(l.VCenter)); err != nil {
		return nil, err
	}
	type begun struct {
		catalog.Delivery
		state string
	}
	all, err := store.All(ctx, tx, func(scan func(...any) error) (begun, error) {
		b := begun{Delivery: catalog.Delivery{Epoch: l.Epoch, VCenter: l.VCenter}}
		var next int64
		err := scan(&b.RunID, &b.Priority, &next, &b.state)
		b.NotBefore = store.Time(next)
		return b, err
	}, `UPDATE runs SET epoch = $1, state = CASE WHEN state = 'queued' THEN 'queued' ELSE 'compensating' END
		WHERE vcenter_id = $2 AND state IN ('queued', 'running', 'compensating') RETURNING id, priority, next_attempt_at, state`, l.Epoch, l.VCenter)
	if err != nil {
		return nil, err
	}
	var queued []catalog.Delivery
	for _, b := range all {
		if b.state == "queued" {
			queued = append(queued, b.Delivery)
		} else {
			undo = append(undo, b.Delivery)
		}
	}
	return undo, e.queue.insert(ctx, tx, queued)
}

// renewal is what a renewal found.
type renewal struct {
	lost   []Lease
	paused map[Lease]bool
	// cancel are the runs whose end somebody has asked for.
	cancel []string
}

// renew keeps the leases, says that this node lives, and reads what other nodes ask for. A run that is asked to end before
// it began ends here.
func (e *Engine) renew(ctx context.Context, leases []Lease) (r renewal, err error) {
	err = e.store.Update(ctx, "renew the ownership of vCenters", func(tx store.Tx) error {
		r = renewal{paused: map[Lease]bool{}}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		ms := store.Millis(now)
		_, err = tx.Exec(ctx, `INSERT INTO nodes (id, hostname, version, started_at, seen_at, draining) VALUES ($1, $2, $3, $4, $4, $5)
			ON CONFLICT (id) DO UPDATE SET hostname = EXCLUDED.hostname, version = EXCLUDED.version, seen_at = EXCLUDED.seen_at, draining = EXCLUDED.draining,
			started_at = CASE WHEN $6 = 1 THEN EXCLUDED.started_at ELSE nodes.started_at END`,
			e.node, e.options.Hostname, e.options.Version, ms, store.Flag(e.draining.Load()), store.Flag(!e.seen.Swap(true)))
		for _, l := range leases {
			if err != nil {
				return err
			}
			var rows []bool
			// One that was let go meanwhile stays so.
			rows, err = store.All(ctx, tx, func(scan func(...any) error) (p bool, err error) { return p, scan(&p) },
				"UPDATE vcenter_leases SET lease_until = $1, updated_at = $2 WHERE vcenter_id = $3 AND owner_node = $4 AND epoch = $5 AND lease_until > 0 RETURNING paused",
				store.Millis(now.Add(e.timing.ttl)), ms, l.VCenter, e.node, l.Epoch)
			if err == nil && len(rows) == 0 {
				r.lost = append(r.lost, l)
				continue
			}
			if err == nil {
				r.paused[l] = rows[0]
				_, err = tx.Exec(ctx, "UPDATE runs SET state = 'cancelled', finished_at = $1 WHERE vcenter_id = $2 AND state = 'queued' AND cancel_requested = 1", ms, l.VCenter)
			}
		}
		if err != nil {
			return err
		}
		r.cancel, err = store.All(ctx, tx, func(scan func(...any) error) (id string, err error) { return id, scan(&id) },
			`SELECT r.id FROM runs r JOIN vcenter_leases l ON l.vcenter_id = r.vcenter_id WHERE l.owner_node = $1 AND r.cancel_requested = 1 AND r.state = 'running'`, e.node)
		return err
	})
	return r, err
}

// free lists the vCenters of this node's configuration that nobody owns.
func (e *Engine) free(ctx context.Context, wanted []string) (free []string, err error) {
	if e.store.Dialect() == store.SQLite {
		return wanted, nil
	}
	err = e.view(ctx, "look for vCenters without an owner", func(ctx context.Context, tx store.Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		owned, err := store.All(ctx, tx, func(scan func(...any) error) (id string, err error) { return id, scan(&id) },
			"SELECT vcenter_id FROM vcenter_leases WHERE lease_until > $1 AND owner_node <> $2", store.Millis(now), e.node)
		taken := map[string]bool{}
		for _, id := range owned {
			taken[id] = true
		}
		for _, id := range wanted {
			if !taken[id] {
				free = append(free, id)
			}
		}
		return err
	})
	return free, err
}

// least is how many vCenters that node owns which owns the fewest of those beside this one that live and do not drain;
// many when there is none.
func (e *Engine) least(ctx context.Context) (n int, err error) {
	err = e.view(ctx, "count the vCenters of other nodes", func(ctx context.Context, tx store.Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		return tx.One(ctx, []any{&n}, `SELECT COALESCE(MIN(owned), $4) FROM (SELECT (SELECT count(*) FROM vcenter_leases l WHERE l.owner_node = n.id AND l.lease_until > $2) AS owned
			FROM nodes n WHERE n.id <> $1 AND n.draining = 0 AND n.seen_at > $3) AS others`,
			e.node, store.Millis(now), store.Millis(now.Add(-e.timing.ttl)), int64(math.MaxInt32))
	})
	return n, err
}

// release gives a vCenter to whoever wants it, at once.
func (e *Engine) release(ctx context.Context, l Lease) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return e.store.Update(ctx, "let go of vCenter "+l.VCenter, func(tx store.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE vcenter_leases SET lease_until = 0 WHERE vcenter_id = $1 AND owner_node = $2 AND epoch = $3", l.VCenter, e.node, l.Epoch)
		return err
	})
}

// Fresh is the age of the last successful renewal, the longest duration when this node does not own the vCenter. With
// SQLite it is 0: the folder's lock does not age. Above 4 s no GO may be sent.
func (e *Engine) Fresh(vcenter string) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.held[vcenter]
	switch {
	case h == nil:
		return math.MaxInt64
	case e.store.Dialect() == store.SQLite:
		return 0
	}
	return time.Since(h.renewed)
}

// Owned lists the vCenters that this node owns.
func (e *Engine) Owned() []Lease {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]Lease, 0, len(e.held))
	for _, h := range e.held {
		all = append(all, h.Lease)
	}
	return all
}

// Unowned lists the wanted vCenters that no node owned when that was last looked at.
func (e *Engine) Unowned() (all []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range e.wanted {
		if e.held[v] == nil && !e.others[v] {
			all = append(all, v)
		}
	}
	return all
}

// lose ends the work on a vCenter that is another's, or may be.
func (e *Engine) lose(ctx context.Context, l Lease, why string) {
	e.mu.Lock()
	h := e.drop(l)
	e.mu.Unlock()
	e.end(ctx, h, why)
}

// loseIdle does so when nothing is at work there, and says whether it did.
func (e *Engine) loseIdle(ctx context.Context, l Lease, why string) bool {
	e.mu.Lock()
	h := e.held[l.VCenter]
	if h != nil && h.working > 0 {
		h = nil
	} else {
		h = e.drop(l)
	}
	e.mu.Unlock()
	e.end(ctx, h, why)
	return h != nil
}

// drop takes out a lease, if it is still held; nil when it is not.
func (e *Engine) drop(l Lease) *held {
	h := e.held[l.VCenter]
	if h == nil || h.Lease != l {
		return nil
	}
	delete(e.held, l.VCenter)
	e.closing[l.VCenter] = true
	return h
}

func (e *Engine) end(ctx context.Context, h *held, why string) {
	if h == nil {
		return
	}
	h.end(&LostError{h.VCenter, why})
	e.log.Warn("the ownership of a vCenter has ended", zap.String("vcenter", h.VCenter), zap.String("why", why))
	e.shut(ctx, h.VCenter)
}
