package guests_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// shared are a VM's variables; err is what their reading gives.
type shared struct {
	mu     sync.Mutex
	values map[string]string
	sets   int
	err    error
}

func (s *shared) Guestinfo(_, key string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[key], s.err
}

func (s *shared) SetGuestinfo(_, key, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = value
	s.sets++
	return nil
}

func TestMailbox(t *testing.T) {
	dir := t.TempDir()
	v := &shared{values: map[string]string{"guestinfo.stillframe.down": "hello"}}
	m, err := guests.OpenMailbox(t.Context(), v, "db", dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Env() != "STILLFRAME_LAB_MAILBOX="+dir {
		t.Errorf("Env = %q", m.Env())
	}
	down, up := filepath.Join(dir, "guestinfo.stillframe.down"), filepath.Join(dir, "guestinfo.stillframe.up")
	until(t, "the guest sees what the VM has", func() bool { text, err := os.ReadFile(down); return err == nil && string(text) == "hello" })
	answer := strings.Repeat("answer", 9999)
	if err := os.WriteFile(up+".draft", []byte(answer), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(up+".draft", up); err != nil {
		t.Fatal(err)
	}
	until(t, "the VM sees what the guest wrote", func() bool {
		text, err := v.Guestinfo("db", "guestinfo.stillframe.up")
		return err == nil && text == answer
	})
	v.mu.Lock()
	v.values = map[string]string{} // the orchestrator empties both
	v.mu.Unlock()
	until(t, "the guest sees that it is empty", func() bool { text, err := os.ReadFile(down); return err == nil && len(text) == 0 })
	if text, err := v.Guestinfo("db", "guestinfo.stillframe.up"); err != nil || text != "" || v.sets != 1 {
		t.Errorf("what the guest wrote once came %d times, the VM has %.20q, %v", v.sets, text, err)
	}
	for _, want := range []string{"not allowed", ""} {
		if err := m.Refuse(want); err != nil {
			t.Error(err)
		}
		if why, err := os.ReadFile(filepath.Join(dir, "refuse")); string(why) != want || (err == nil) != (want != "") {
			t.Errorf("the guest is refused with %q, %v, want %q", why, err, want)
		}
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
}

func TestMailboxTellsWhyItEnded(t *testing.T) {
	if _, err := guests.OpenMailbox(t.Context(), &shared{}, "db", "mailbox"); err == nil {
		t.Error("a folder that is not absolute was taken")
	}
	why := errors.New("no such VM")
	v := &shared{values: map[string]string{}}
	m, err := guests.OpenMailbox(t.Context(), v, "db", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	v.err = why
	v.mu.Unlock()
	var got error
	until(t, "the error is told", func() bool { got = m.Err(); return got != nil })
	if !errors.Is(got, why) || !errors.Is(m.Close(), why) {
		t.Errorf("it ended with %v, want %v", got, why)
	}
}
