package adminshare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/lab/smb"
	"github.com/stillframe/stillframe/pkg/lab/svcctl"
)

// wires are services that do something, once, before they do what they are asked for.
type wires struct {
	svcctl.Services
	start, query, remove func()
}

func (w *wires) Start(name string) error {
	w.start()
	return w.Services.Start(name)
}

func (w *wires) Query(name string) (svcctl.Status, error) {
	w.query()
	return w.Services.Query(name)
}

func (w *wires) Delete(name string) error {
	w.remove()
	return w.Services.Delete(name)
}

// notes is a ledger that does something before it writes down.
type notes struct {
	intend func(guest.Stage)
	open   map[guest.Stage]bool
}

func (n *notes) Intend(_ context.Context, stage guest.Stage, _ guest.Remote) error {
	n.intend(stage)
	n.open[stage] = true
	return nil
}

func (n *notes) Settle(context.Context, guest.Remote) error {
	clear(n.open)
	return nil
}

// stallLimit bounds a stage in these tests; stallSlack is what its end may take: the goodbye to a server that hears nothing has
// a second.
const (
	stallLimit = 1500 * time.Millisecond
	stallSlack = 2500 * time.Millisecond
)

// TestStalled has the server stand still at each step. Every stage comes back in time, and when the server goes on a session
// made anew takes away whatever there is.
func TestStalled(t *testing.T) {
	content := bytes.Repeat([]byte("agent"), 100_000)
	payload := guest.Payload{
		Name: "stillframe-agent.exe", Size: int64(len(content)), SHA256: sha256.Sum256(content),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
	for _, kind := range []smb.Kind{smb.Encrypted, smb.Signing} {
		for _, step := range []string{"dial", "folder", "service", "start", "ready", "delete"} {
			t.Run(step+" of "+string(kind), func(t *testing.T) {
				t.Parallel()
				server, windows := serve(t, smb.Options{Kind: kind, OwnPipes: true})
				var once sync.Once
				stall := func(at string) func() {
					return func() {
						if at == step {
							once.Do(func() {
								if err := server.Stall(); err != nil {
									t.Error(err)
								}
							})
						}
					}
				}
				table := &svcctl.Table{}
				manager, err := svcctl.Start(svcctl.Options{Services: &wires{table, stall("start"), stall("ready"), stall("delete")}}, server.Pipes())
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := manager.Close(); err != nil {
						t.Error(err)
					}
				}()
				book := &notes{open: map[guest.Stage]bool{}, intend: func(s guest.Stage) {
					stall(map[guest.Stage]string{guest.StagePush: "folder", guest.StageStart: "service"}[s])()
				}}
				o := at(server, "Administrator")
				o.Start, o.Ledger = guest.StartSCM, book
				a := New(o)
				stall("dial")()
				remote, err := endure(t, a, payload)
				if guest.CodeOf(err) != "SF3204" {
					t.Errorf("it came back with %q of %v, want SF3204", guest.CodeOf(err), err)
				}
				if a.present != nil {
					t.Error("a session is kept after an error of its context")
				}
				if err := server.Continue(); err != nil {
					t.Fatal(err)
				}
				if err := removeAtLast(t, a, remote); err != nil {
					t.Errorf("Remove by new sessions = %v", err)
				}
				if left, err := os.ReadDir(filepath.Join(windows, home)); len(left) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%v is left, %v", left, err)
				}
				if left, err := table.List(); len(left) > 0 || err != nil || len(book.open) > 0 {
					t.Errorf("the services %v are left, %v; open in the book: %v", left, err, book.open)
				}
			})
		}
	}
}

// removeAtLast removes as a run does within 25 s, and twice more as recoveries do: of 100 servers that went on one gave a new
// session's read no answer, and only the limit ended that; on a busy machine one let no new session in for 35 s.
func removeAtLast(t *testing.T, a *Access, r guest.Remote) (err error) {
	t.Helper()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		err = a.Remove(ctx, r)
		cancel()
		if err == nil || guest.CodeOf(err) != "SF3204" {
			return err
		}
		t.Logf("not at once: %v", err)
	}
	return err
}

// endure does the stages until one fails, each within its limit.
func endure(t *testing.T, a *Access, p guest.Payload) (r guest.Remote, err error) {
	t.Helper()
	stages := []func(context.Context) error{
		func(ctx context.Context) (err error) { r, err = a.Put(ctx, p); return err },
		func(ctx context.Context) error {
			r.Started = true
			_, err := a.Start(ctx, r, guest.Bootstrap{})
			return err
		},
		func(ctx context.Context) error { return a.Remove(ctx, r) },
	}
	for i, stage := range stages {
		ctx, cancel := context.WithTimeout(t.Context(), stallLimit)
		begin := time.Now()
		err = stage(ctx)
		cancel()
		if took := time.Since(begin); took > stallLimit+stallSlack {
			t.Errorf("stage %d took %v, want at most %v", i, took, stallLimit+stallSlack)
		}
		// An agent that never says READY, as this table's services never do, is no reason to stop here.
		if err != nil && guest.CodeOf(err) != "SF3703" {
			return r, err
		}
	}
	return r, err
}
