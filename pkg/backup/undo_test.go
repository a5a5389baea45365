package backup

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestUndoRunsInReverseAndGoesOn(t *testing.T) {
	boom, crash := errors.New("boom"), errors.New("crash")
	var did []string
	var u undo
	for _, s := range []struct {
		what string
		err  error
	}{{"first", nil}, {"second", boom}, {"third", crash}, {"fourth", nil}} {
		u.push(s.what, func(ctx context.Context) error {
			did = append(did, s.what)
			return errors.Join(s.err, ctx.Err())
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := u.run(ctx)
	if want := []string{"fourth", "third", "second", "first"}; !slices.Equal(did, want) {
		t.Errorf("undone were %q, want %q", did, want)
	}
	if !errors.Is(err, boom) || !errors.Is(err, crash) || errors.Is(err, context.Canceled) {
		t.Errorf("run = %v, want both errors and not the end of the context", err)
	}
	if err := u.run(ctx); err != nil || len(did) != 4 {
		t.Errorf("run again = %v after %q, want nothing left to do", err, did)
	}
}
