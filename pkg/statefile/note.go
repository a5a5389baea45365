package statefile

import (
	"context"
	"encoding/json"
	"maps"
)

// NoteKind is what notes are about. Their text is JSON that their owner writes and reads.
type NoteKind string

// The kinds.
const (
	// WaysNote is what is known of the ways into a guest, by the VM's instance UUID.
	WaysNote NoteKind = "ways"
)

// Notes reads the notes of a kind, by their keys.
func (s *Store) Notes(ctx context.Context, kind NoteKind) (map[string]json.RawMessage, error) {
	notes := map[string]json.RawMessage{}
	err := s.view(ctx, "read notes", func(now *state) error {
		maps.Copy(notes, now.Notes[kind])
		return nil
	})
	return notes, err
}

// Note reads one note; nil when there is none.
func (s *Store) Note(ctx context.Context, kind NoteKind, key string) (json.RawMessage, error) {
	notes, err := s.Notes(ctx, kind)
	return notes[key], err
}

// Keep writes a note in the place of the one that is there; with nil there is none any more.
func (s *Store) Keep(ctx context.Context, kind NoteKind, key string, text json.RawMessage) error {
	return s.update(ctx, "keep a note", func(now *state) error {
		if text == nil {
			delete(now.Notes[kind], key)
			return nil
		}
		if now.Notes == nil {
			now.Notes = map[NoteKind]map[string]json.RawMessage{}
		}
		if now.Notes[kind] == nil {
			now.Notes[kind] = map[string]json.RawMessage{}
		}
		now.Notes[kind][key] = text
		return nil
	})
}
