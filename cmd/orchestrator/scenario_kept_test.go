package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
)

// TestKeptOnLinux keeps a program from run to run, does not believe a READY that somebody has put beside it, and takes it away
// when nothing is to be kept any more.
func TestKeptOnLinux(t *testing.T) {
	t.Parallel()
	w := start(t, "recover-quick")
	env := w.environment("vm")
	run := func(lifetime string) outcome {
		return operate(t, env, nil, append(window("vm"), "--agent-lifetime", lifetime)...)
	}
	files := func() []string {
		found, err := filepath.Glob(filepath.Join(w.guest(t, "vm").Root, "var/lib/stillframe/agent/*/*"))
		if err != nil {
			t.Error(err)
		}
		return found
	}
	well := func(o outcome) {
		t.Helper()
		if o.exit != exitOK || len(o.result.Leftovers) > 0 {
			t.Errorf("exit status %d, left %v", o.exit, o.result.Leftovers)
		}
	}
	well(run(lifetimeCached))
	first := files()
	well(run(lifetimeCached))
	if again := files(); len(first) != 2 || filepath.Base(first[0]) != guest.KeptFile || !slices.Equal(again, first) {
		t.Fatalf("kept are %q, then %q, want the program and its mark, twice the same", first, again)
	}
	planted := filepath.Join(filepath.Dir(first[0]), "ready")
	if err := os.WriteFile(planted, []byte("READY "+protocol.Fingerprint{7}.String()+" 6465\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := run(lifetimeCached); o.exit == exitOK || len(o.result.Leftovers) > 0 || len(files()) > 0 {
		t.Errorf("with a READY that was planted: exit status %d, left %v, files %v, want a failure and nothing", o.exit, o.result.Leftovers, files())
	}
	well(run(lifetimeCached))
	if fresh := files(); len(fresh) != 2 || filepath.Dir(fresh[0]) == filepath.Dir(first[0]) {
		t.Errorf("kept are %q after %q, want a fresh folder", fresh, first)
	}
	well(run(lifetimeRun))
	clean(t, w, "vm")
}
