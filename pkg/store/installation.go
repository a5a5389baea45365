package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

// nodeName is the file in the state folder by which a node knows itself, and notices that its database is another one.
const nodeName = "node.json"

// Installation says who we are.
type Installation struct {
	// ID is made once and lies in the database; it tells our snapshots from those of another installation on one vCenter.
	ID string
	// Node is made once and lies in the state folder.
	Node string
	// Epoch was drawn when the database was opened; Before is the highest one that the database knew until then.
	Epoch, Before int64
	// Reconcile is not empty when the database knew less, at this start or an earlier one, than this node had seen: it was
	// lost, or put back from a copy. Then no schedule may fire before snapshots were read from outside (SF1906).
	Reconcile string
}

// Installation says who we are.
func (s *Store) Installation() Installation { return s.installation }

// memory is what a node keeps outside the database.
type memory struct {
	Installation string `json:"installation_id"`
	Node         string `json:"node_id"`
	Epoch        int64  `json:"epoch"`
}

// install names a new installation, or finds the name of the old one, and compares it with what the folder remembers.
func (s *Store) install(ctx context.Context, o Options) error {
	path := filepath.Join(s.dir, nodeName)
	known, err := remembered(path)
	if err != nil {
		return coded("read "+path, err, unwritable)
	}
	if known.Node == "" {
		known.Node = uuid.NewString()
	}
	want := known.Installation
	if want == "" {
		want = o.Installation
	}
	if want == "" {
		want = uuid.NewString()
	}
	in := Installation{Node: known.Node}
	err = s.Update(ctx, "name this installation", func(tx Tx) error {
		var had int64
		if err := tx.One(ctx, []any{&had}, "SELECT value FROM counters WHERE name = 'epoch'"+tx.Lock()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO settings (name, value) VALUES ('installation_id', $1) ON CONFLICT (name) DO NOTHING", want); err != nil {
			return err
		}
		if err := tx.One(ctx, []any{&in.ID}, "SELECT value FROM settings WHERE name = 'installation_id'"); err != nil {
			return err
		}
		in.Before = had
		behind := ""
		switch {
		case known.Installation != "" && known.Installation != in.ID:
			behind = fmt.Sprintf("the database is of installation %s, this folder was of %s", in.ID, known.Installation)
		case known.Epoch > had:
			behind = fmt.Sprintf("the database knows nothing after epoch %d, this folder has seen epoch %d: it was lost, or put back from a copy", had, known.Epoch)
		}
		if behind != "" {
			if err := tx.Reconcile(ctx, behind); err != nil {
				return err
			}
		}
		if _, err := tx.epochAbove(ctx, max(known.Epoch, o.EpochAbove)); err != nil {
			return err
		}
		var err error
		if in.Reconcile, _, err = tx.Reconciling(ctx); err != nil {
			return err
		}
		in.Epoch, err = tx.Epoch(ctx)
		return err
	})
	if err != nil {
		return err
	}
	content, err := json.Marshal(memory{in.ID, in.Node, in.Epoch})
	if err == nil {
		err = replace(path, append(content, '\n'))
	}
	if err != nil {
		return coded("write "+path, err, unwritable)
	}
	s.installation = in
	return nil
}

// reconcileName is the setting that says why the database has to learn first what is outside.
const reconcileName = "reconcile"

// Reconcile writes down that the database knows less than was seen outside of it: it was lost, or put back from a copy. Until
// Reconciled no schedule may fire (SF1906), on no node and whatever is started anew meanwhile.
func (t Tx) Reconcile(ctx context.Context, why string) error {
	if err := t.Reconciled(ctx); err != nil {
		return err
	}
	_, err := t.Exec(ctx, "INSERT INTO settings (name, value) VALUES ($1, $2)", reconcileName, why)
	return err
}

// ReconciledOf writes down that what a vCenter has was taken into the database since Reconcile.
func (t Tx) ReconciledOf(ctx context.Context, vcenter string) error {
	_, err := t.Exec(ctx, "INSERT INTO settings (name, value) VALUES ($1, '') ON CONFLICT (name) DO NOTHING", reconcileName+"/"+vcenter)
	return err
}

// Reconciled ends what Reconcile began.
func (t Tx) Reconciled(ctx context.Context) error {
	_, err := t.Exec(ctx, "DELETE FROM settings WHERE name = $1 OR name LIKE $2", reconcileName, reconcileName+"/%")
	return err
}

// Reconciling gives why no schedule may fire, empty when one may, and the vCenters that were taken in since.
func (t Tx) Reconciling(ctx context.Context) (why string, vcenters []string, err error) {
	_, err = All(ctx, t, func(scan func(...any) error) (struct{}, error) {
		var name, value string
		err := scan(&name, &value)
		if vcenter, of := strings.CutPrefix(name, reconcileName+"/"); of {
			vcenters = append(vcenters, vcenter)
		} else {
			why = value
		}
		return struct{}{}, err
	}, "SELECT name, value FROM settings WHERE name = $1 OR name LIKE $2 ORDER BY name", reconcileName, reconcileName+"/%")
	return why, vcenters, err
}

func remembered(path string) (memory, error) {
	var m memory
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &m)
	}
	return m, err
}
