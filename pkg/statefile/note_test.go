package statefile

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestNotes(t *testing.T) {
	s, _ := steppedStore(t)
	ctx := t.Context()
	if text, err := s.Note(ctx, WaysNote, "a"); text != nil || err != nil {
		t.Errorf("Note of an unknown key = %s, %v", text, err)
	}
	err := errors.Join(s.Keep(ctx, WaysNote, "a", json.RawMessage(`{"n":1}`)), s.Keep(ctx, WaysNote, "a", json.RawMessage(`{"n":2}`)),
		s.Keep(ctx, WaysNote, "b", json.RawMessage(`{}`)), s.Keep(ctx, NoteKind("other"), "a", json.RawMessage(`{"x":1}`)), s.Keep(ctx, WaysNote, "b", nil))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	notes, err := again.Notes(ctx, WaysNote)
	var got struct{ N int }
	if err := json.Unmarshal(notes["a"], &got); err != nil {
		t.Error(err)
	}
	if len(notes) != 1 || got.N != 2 || err != nil {
		t.Errorf("Notes = %s, %v, want the last one of a", notes, err)
	}
}
