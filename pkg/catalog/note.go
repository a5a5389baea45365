package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/stillframe/stillframe/pkg/statefile"
	"github.com/stillframe/stillframe/pkg/store"
)

// Notes reads the notes of a kind, by their keys.
func (c *Catalog) Notes(ctx context.Context, kind statefile.NoteKind) (map[string]json.RawMessage, error) {
	notes := map[string]json.RawMessage{}
	err := c.store.View(ctx, "read notes", func(tx store.Tx) error {
		_, err := store.All(ctx, tx, func(scan func(...any) error) (string, error) {
			var key, text string
			err := scan(&key, &text)
			notes[key] = json.RawMessage(text)
			return key, err
		}, "SELECT key, text FROM notes WHERE kind = $1", kind)
		return err
	})
	return notes, err
}

// Note reads one note; nil when there is none.
func (c *Catalog) Note(ctx context.Context, kind statefile.NoteKind, key string) (json.RawMessage, error) {
	var text string
	err := c.store.View(ctx, "read a note", func(tx store.Tx) error {
		return tx.One(ctx, []any{&text}, "SELECT text FROM notes WHERE kind = $1 AND key = $2", kind, key)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return json.RawMessage(text), err
}

// Keep writes a note in the place of the one that is there; with nil there is none any more.
func (c *Catalog) Keep(ctx context.Context, kind statefile.NoteKind, key string, text json.RawMessage) error {
	return c.store.Update(ctx, "keep a note", func(tx store.Tx) error {
		if text == nil {
			_, err := tx.Exec(ctx, "DELETE FROM notes WHERE kind = $1 AND key = $2", kind, key)
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO notes (kind, key, text, updated_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (kind, key) DO UPDATE SET text = EXCLUDED.text, updated_at = EXCLUDED.updated_at`, kind, key, string(text), c.millis())
		return err
	})
}
