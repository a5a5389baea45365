package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWait takes a lock that is free, gives up on one that stays held, and gets one that is let go meanwhile.
func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	first, second := open(), open()
	if err := Wait(t.Context(), first, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := Wait(t.Context(), second, 20*time.Millisecond); !errors.Is(err, ErrHeld) {
		t.Errorf("Wait for a held one = %v, want ErrHeld", err)
	}
	why := errors.New("nobody wants it any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := Wait(ctx, second, time.Minute); !errors.Is(err, why) {
		t.Errorf("Wait whose time is over = %v, want the cause", err)
	}
	got := make(chan error)
	go func() { got <- Wait(t.Context(), second, time.Minute) }()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Errorf("Wait for one that is let go = %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}
