package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLattice: each key that could break the order of the limits is refused with both numbers, at its place.
func TestLattice(t *testing.T) {
	job := "jobs:\n  - name: j\n    select: {names: [a]}\n"
	for _, tc := range []struct{ name, text, want string }{
		{"hold above the promise", "window: {hold: 21s}\n", "c.yaml:8:16: window.hold: window.hold (configuration) 21s must not be more than Exchange's own limit (application) 20s"},
		{"hold above it, and the reserve fits", "window: {hold: 25s, reserve: 9s}\n", "c.yaml:8:16: window.hold: window.hold (configuration) 25s must not be more than Exchange's own limit (application) 20s"},
		{"reserve too short", "window: {reserve: 1s}\n", "c.yaml:8:19: window.reserve: hold after the dead-man + slowest round trip (network) 2.5s must be less than window.reserve (configuration) 1s"},
		{"reserve at the tie", "window: {reserve: 2500ms}\n", "c.yaml:8:19: window.reserve: hold after the dead-man + slowest round trip (network) 2.5s must be less than window.reserve (configuration) 2.5s"},
		{"reserve just above", "window: {reserve: 2501ms}\n", ""},
		{"nothing left", "window: {hold: 5s, reserve: 5s}\n", "c.yaml:8:29: window.reserve: first read of a task without a push (task) 1s must be less than window.hold - window.reserve (configuration) 0s"},
		{"hold too short for the default reserve", "window: {hold: 4s}\n", "c.yaml:8:16: window.hold: first read of a task without a push (task) 1s must be less than window.hold - window.reserve (configuration) 1s"},
		{"short but whole", "window: {hold: 4500ms}\n", ""},
		{"half", "window: {hold: 10s}\n", ""},
		{"waiting longer than READY lives", "limits: {window_wait: 1m}\n", "c.yaml:8:23: limits.window_wait: limits.window_wait + what READY must have left (configuration) 1m5s must be less than READY (agent) 1m0s"},
		{"waiting as long", "limits: {window_wait: 55s}\n", "c.yaml:8:23: limits.window_wait: limits.window_wait + what READY must have left (configuration) 1m0s must be less than READY (agent) 1m0s"},
		{"mover longer than the session", job + "    mover: {limit: 24h}\n", "c.yaml:11:20: jobs[0].mover.limit: jobs[0].mover.limit (configuration) 24h0m0s must be less than time for COMPLETE after THAWED (agent) 24h0m0s"},
		{"retries too close", job + "    retry: {wait: 1m}\n", "c.yaml:11:19: jobs[0].retry.wait: time between two freezes (agent) 5m0s must not be more than jobs[0].retry.wait (configuration) 1m0s"},
		{"two keys", "window: {hold: 21s}\nlimits: {window_wait: 1h}\n", "c.yaml:9:23: limits.window_wait"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, got := load(t, base+tc.text)
			if (tc.want == "") != (c != nil) || !strings.Contains(got, tc.want) {
				t.Errorf("load says\n%swant\n%s", got, tc.want)
			}
			if c == nil && !strings.Contains(got, "(SF1207)") {
				t.Errorf("the code is missing: %s", got)
			}
		})
	}
}

// TestLatticeIsEnough tries windows at random: whatever passes, freezewindow takes, for the slowest round trip that is
// admitted, and no two limits that could race are the same.
func TestLatticeIsEnough(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	passed := 0
	for range 20_000 {
		var w Window
		w.Hold.Duration = time.Duration(random.IntN(230)) * 100 * time.Millisecond
		w.Reserve.Duration = time.Duration(random.IntN(230)) * 100 * time.Millisecond
		holds := true
		for _, r := range w.rungs() {
			holds = holds && r.holds()
		}
		b := w.Budget()
		if err := b.Check(slowestRTT); holds && err != nil {
			t.Fatalf("hold %v with reserve %v passes, but %v", w.Hold, w.Reserve, err)
		}
		if !holds {
			continue
		}
		passed++
		if min(b.ThawBy(), b.IOThaw) >= b.IODeadman || b.IODeadman >= b.Deadman || b.ThawBy() >= b.Deadman || b.Hold > 20*time.Second {
			t.Fatalf("hold %v with reserve %v gives %+v", w.Hold, w.Reserve, b)
		}
	}
	if passed < 1000 {
		t.Errorf("only %d windows passed", passed)
	}
}

// TestCompiledLimitsFit: without a word in the file nothing of the lattice is broken.
func TestCompiledLimitsFit(t *testing.T) {
	c := loaded(t, base+"jobs: [{name: j, select: {names: [a]}}]\n")
	layers := map[string]bool{}
	for _, r := range c.lattice() {
		layers[r.less.layer], layers[r.more.layer] = true, true
		if !r.holds() {
			t.Errorf("%s", r.explain())
		}
	}
	for _, layer := range []string{"configuration", "agent", "task", "HTTP", "lease", "systemd", "daemon", "Windows", "application", "network"} {
		if !layers[layer] {
			t.Errorf("no limit of the layer %s is in the lattice", layer)
		}
	}
}

// TestLimitsOfOtherLayers holds the literals of the lattice to the constants of the packages that keep them.
func TestLimitsOfOtherLayers(t *testing.T) {
	for _, tc := range []struct {
		file, name string
		want       time.Duration
	}{
		{"agent/limits.go", "Deadman", agentDeadman},
		{"agent/limits.go", "IODeadman", agentIODeadman},
		{"agent/limits.go", "readyLimit", agentReady},
		{"agent/limits.go", "openLimit", agentOpen},
		{"agent/limits.go", "GoesPerHour", agentGoes},
		{"admission/predict.go", "maxRTT", slowestRTT},
		{"vsphere/watcher.go", "firstRead", firstRead},
		{"vsphere/endpoint.go", "callLimit", httpCall},
	} {
		if got := constant(t, filepath.Join("..", tc.file), tc.name); got != tc.want {
			t.Errorf("%s in pkg/%s is %v, the lattice has %v", tc.name, tc.file, got, tc.want)
		}
	}
}

// constant reads a constant of a source file.
func constant(t *testing.T, path, name string) time.Duration {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.CONST {
			continue
		}
		for _, s := range decl.Specs {
			spec, _ := s.(*ast.ValueSpec)
			for i, n := range spec.Names {
				if n.Name != name || i >= len(spec.Values) {
					continue
				}
				v, err := value(spec.Values[i])
				if err != nil {
					t.Fatalf("%s in %s: %v", name, path, err)
				}
				return v
			}
		}
	}
	t.Fatalf("%s has no constant %s", path, name)
	return 0
}

func value(e ast.Expr) (time.Duration, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		n, err := strconv.ParseInt(e.Value, 10, 64)
		return time.Duration(n), err
	case *ast.SelectorExpr:
		units := map[string]time.Duration{"Hour": time.Hour, "Minute": time.Minute, "Second": time.Second, "Millisecond": time.Millisecond}
		if u, ok := units[e.Sel.Name]; ok {
			return u, nil
		}
	case *ast.BinaryExpr:
		x, errX := value(e.X)
		y, errY := value(e.Y)
		if errX == nil && errY == nil && e.Op == token.MUL {
			return x * y, nil
		}
	}
	return 0, fmt.Errorf("its value is no product of a number and a unit")
}
