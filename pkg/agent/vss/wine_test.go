//go:build !windows

package vss

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/wine"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The tests of this package and of vss/provider, built for Windows.
const (
	driverPath   = `C:\driver.exe`
	providerPath = `C:\provider.exe`
)

// programsDir is where windowsTests puts them.
var programsDir string

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if programsDir, err = os.MkdirTemp("", "stillframe-vss-"); err != nil {
		panic(err)
	}
	status := m.Run()
	if err := os.RemoveAll(programsDir); err != nil {
		panic(err)
	}
	os.Exit(status)
}

// windowsTests builds the tests for Windows, once.
var windowsTests = sync.OnceValues(func() (string, error) {
	for pkg, name := range map[string]string{".": "vss.exe", "./provider": "provider.exe"} {
		build := exec.Command("go", "test", "-c", "-trimpath", "-o", filepath.Join(programsDir, name), pkg)
		build.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build the tests of %s: %w: %s", pkg, err, out)
		}
	}
	return programsDir, nil
})

// guest is one Windows with the driver in it.
type guest struct{ *wine.Prefix }

// openGuest makes a Windows and puts this package's own tests, built for it, into it.
func openGuest(t *testing.T, drives ...string) guest {
	t.Helper()
	if testing.Short() {
		t.Skip("plays whole sessions under Wine")
	}
	lab.Need(t, lab.Wine, lab.Mingw)
	p, err := wine.Open(t.Context(), wine.Options{Drives: drives})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	programs, err := windowsTests()
	if err != nil {
		t.Fatal(err)
	}
	for path, name := range map[string]string{driverPath: "vss.exe", providerPath: "provider.exe"} {
		if err := p.Install(filepath.Join(programs, name), path); err != nil {
			t.Fatal(err)
		}
	}
	g := guest{p}
	// The driver looks for libraries in system32 only, as the agent does; Wine then finds none by a bare name.
	g.run(t, "reg", "add", coordinator+`\InprocServer32`, "/ve", "/d", `C:\windows\system32\vssapi.dll`, "/f")
	if p := g.play(t, "", "register"); p.err != nil || p.replies[0].Err != "" {
		t.Fatalf("register the provider: %v %v", p.err, p.replies)
	}
	return g
}

// coordinator is the class of VSS's coordinator (vsadmin.h).
const coordinator = `HKLM\SOFTWARE\Classes\CLSID\{e579ab5f-1cc4-44b4-bed9-de0991ff0623}`

// run runs a program that has to end well.
func (g guest) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := g.Run(t.Context(), program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// played is what one process of the driver answered, and what the fakes saw of it.
type played struct {
	replies []reply
	trace   wine.Trace
	err     error // of the process
}

// playLimit bounds one process of the driver: the longest, 30 sessions, takes 15 s on an idle machine. What hangs is shown.
const playLimit = 5 * time.Minute

// play runs commands with a config of VSS, its lines parted by semicolons, until all sessions have been let go.
func (g guest) play(t *testing.T, config string, commands ...string) played {
	t.Helper()
	if err := errors.Join(g.Configure(strings.Split(config, ";")...), g.ForgetTrace()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), playLimit)
	defer cancel()
	out, err := g.Run(ctx, driverPath, append([]string{"drive"}, commands...)...)
	if ctx.Err() != nil && t.Context().Err() == nil {
		trace, traceErr := g.Trace()
		t.Fatalf("the driver hangs in %q: %v %v\n%s", commands, err, traceErr, trace)
	}
	p := played{err: err}
	for line := range strings.Lines(out) {
		var r reply
		if !strings.HasPrefix(line, "{") { // what a crash says
			continue
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("the driver says %s: %v", line, err)
		}
		p.replies = append(p.replies, r)
	}
	p.trace = g.settled(t)
	return p
}

// settled reads the trace when every session that was opened is closed: that comes after the requestor's end.
func (g guest) settled(t *testing.T) wine.Trace {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		trace, err := g.Trace()
		if err != nil {
			t.Fatal(err)
		}
		count := func(what string) int { return len(trace.All("mark", "session", what)) }
		if count("opened") <= count("closed")+count("leaked") || strings.Contains(config(t, g), "exit =") {
			return trace
		}
		select {
		case <-limit:
			t.Fatalf("a session is still open:\n%s", trace)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func config(t *testing.T, g guest) string {
	t.Helper()
	text, err := os.ReadFile(g.Path(`C:\lab\vss.conf`))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// said are the replies without times.
func (p played) said() []string {
	all := []string{}
	for _, r := range p.replies {
		all = append(all, r.String())
	}
	return all
}

// of is the first reply to a command.
func (p played) of(t *testing.T, command string) reply {
	t.Helper()
	i := slices.IndexFunc(p.replies, func(r reply) bool { return r.Do == command })
	if i < 0 {
		t.Fatalf("no reply to %s: %v %v", command, p.said(), p.err)
	}
	return p.replies[i]
}

// story is the trace without times and ids: what the requestor called, what the provider was asked and answered, what
// became of the writers, the volumes and the session. Each of the four is in its own order.
func (p played) story() string {
	parts := map[string][]string{}
	called := map[string]int{} // where a call's line is that has no answer yet
	for _, l := range p.trace {
		f, whats := l.Fields, parts[l.Who]
		at, waits := called[l.Who+l.What]
		switch {
		case l.What == "OnUnload": // it meets an agent that may be gone already
		case (l.Who == "requestor" || l.Who == "provider") && l.Kind == "begin":
			called[l.Who+l.What] = len(whats)
			parts[l.Who] = append(whats, l.What+details(f, "context", "type", "component", "ok", "count"))
		case l.Who == "provider" && l.Kind == "end" && waits, l.Who == "requestor" && l.Kind == "end" && waits && l.HR != 0:
			whats[at] += fmt.Sprintf(" = %08x", l.HR)
		case l.Who == "provider" && l.Kind == "mark":
			parts[l.Who] = append(whats, l.What+details(f, "answer"))
		case l.Who == "requestor" && strings.HasSuffix(l.What, "result") && !strings.HasPrefix(l.What, "GatherWriterStatus"):
			parts[l.Who] = append(whats, fmt.Sprintf("%s = %08x", l.What, l.HR))
		case l.Who == "writer" && slices.Contains([]string{"released", "limit", "truncates"}, l.What):
			parts[l.Who] = append(whats, l.What+details(f, "writer", "how", "component"))
		case l.Who == "volume" && l.What == "hold" && l.Kind == "end":
			parts[l.Who] = append(whats, fmt.Sprintf("hold ended by %s = %08x", f["how"], l.HR))
		case l.Who == "session":
			parts[l.Who] = append(whats, l.What)
		}
	}
	var b strings.Builder
	for _, who := range []string{"requestor", "provider", "writer", "volume", "session"} {
		fmt.Fprintf(&b, "%s\n", who)
		for _, line := range parts[who] {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.String()
}

func details(fields map[string]string, names ...string) string {
	text := ""
	for _, name := range names {
		if value, ok := fields[name]; ok {
			text += " " + name + "=" + value
		}
	}
	return text
}

// golden compares with testdata/NAME.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-update rewrites it):\n%s", file, d)
	}
}

// ended checks what must hold of every session: one end of it, and nobody left frozen.
func (p played) ended(t *testing.T) {
	t.Helper()
	count := func(what string) int { return len(p.trace.All("begin", "requestor", what)) }
	begun, over := count("InitializeForBackup"), count("AbortBackup")+len(p.trace.All("end", "requestor", "BackupComplete"))
	if begun != over && count("AbortBackup") != 1 { // BackupComplete that failed, then AbortBackup, is one end
		t.Errorf("%d sessions begun, %d ended:\n%s", begun, over, p.trace)
	}
	held, released := len(p.trace.All("mark", "writer", "held")), len(p.trace.All("mark", "writer", "released"))
	if held != released {
		t.Errorf("%d writers held, %d released:\n%s", held, released, p.trace)
	}
}

const (
	prepared   = "prepare: served 1"
	heldIO     = "freeze: held started=true io=true flush=full"
	heldWriter = "freeze: held started=true io=false flush=full"
	closed     = "close:"
)

// TestSessions plays whole sessions against VSS's double in another process.
func TestSessions(t *testing.T) {
	g := openGuest(t, "D")
	for _, c := range []struct {
		name, config string
		do, want     []string
	}{
		{
			"good io", "",
			[]string{"prepare", "freeze", "hold 500ms", "thaw", "settle", "complete all", "close"},
			[]string{prepared, heldIO, "hold:", `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true", closed},
		},
		{
			"good writer", "",
			[]string{"prepare mode=writer", "freeze", "hold 500ms", "thaw", "settle", "complete all", "close"},
			[]string{prepared, heldWriter, "hold:", `thaw: rows=1 expired="" io=false`, "settle: 0004230a finished=true", "complete: 0004230a closed=true", closed},
		},
		{
			"two volumes", "",
			[]string{`prepare volumes=C:\,D:\`, "freeze", "thaw", "settle", "complete all"},
			[]string{"prepare: served 2", heldIO, `thaw: rows=2 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true"},
		},
		{
			"dead-man", "",
			[]string{"prepare mode=writer deadman=2s", "freeze", "expired", "thaw", "settle", "close"},
			[]string{prepared, heldWriter, "expired: deadman", `thaw: rows=0 expired="deadman" io=false`, "settle: 80042306 finished=false", closed},
		},
		{
			"io dead-man", "",
			[]string{"prepare io_deadman=400ms", "freeze", "expired", "thaw", "settle", "close"},
			[]string{prepared, heldIO, "expired: io_deadman", `thaw: rows=0 expired="io_deadman" io=true`, "settle: 80042306 finished=false", closed},
		},
		{
			"dead-man before the hold", "delay.freeze = 3000",
			[]string{"prepare deadman=400ms", "freeze", "thaw", "settle", "close"},
			[]string{prepared, "freeze: SF4002", `thaw: rows=0 expired="" io=false`, "settle: 0004230b finished=false", closed},
		},
		{
			"veto seen as another error", "veto_as = 0x8004230f",
			[]string{"prepare io_deadman=300ms", "freeze", "expired", "thaw", "settle", "close"},
			[]string{prepared, heldIO, "expired: io_deadman", `thaw: rows=0 expired="io_deadman" io=true`, "settle: 8004230f finished=false", closed},
		},
		{
			"hold limit", "hold_limit_ms = 1500",
			[]string{"prepare", "freeze", "hold 2500ms", "thaw", "settle", "close"},
			[]string{prepared, heldIO, "hold:", `thaw: rows=1 expired="" io=true`, "settle: 80042314 finished=false", closed},
		},
		{
			"hold limit with an abort", "hold_limit_ms = 1500;abort_during_commit = 1",
			[]string{"prepare", "freeze", "expired", "thaw", "settle", "close"},
			[]string{prepared, heldIO, "expired: system", `thaw: rows=0 expired="system" io=true`, "settle: 80042314 finished=false", closed},
		},
		{
			"flush limit", "flush_timeout = 1",
			[]string{"prepare", "freeze", "thaw", "settle", "close"},
			[]string{prepared, "freeze: SF4004", `thaw: rows=0 expired="" io=false`, "settle: 80042313 finished=false", closed},
		},
		{
			"writer limit", "writer.exchange.limit_ms = 300",
			[]string{"prepare mode=writer", "freeze", "hold 700ms", "thaw", "settle", "complete none", "close"},
			[]string{
				prepared, heldWriter, "hold:", `thaw: rows=1 expired="" io=false`, "settle: 0004230a finished=true [Microsoft Exchange Writer 9 800423f2]",
				"complete: 0004230a closed=true [Microsoft Exchange Writer 9 800423f2]", closed,
			},
		},
		{
			"client edition", "edition = client",
			[]string{"prepare", "freeze", "thaw", "settle", "complete all"},
			[]string{prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true"},
		},
		{
			"set in progress", "in_progress = 5",
			[]string{"prepare", "close", "prepare", "close"},
			[]string{"prepare: SF4008", closed, prepared, closed},
		},
		{
			"set in progress for a while", "in_progress = 2",
			[]string{"prepare", "close"},
			[]string{prepared, closed},
		},
		{
			"class refused", "provider_error = CoCreateInstance:0x80040154",
			[]string{"prepare", "close"},
			[]string{"prepare: SF4107", closed},
		},
		{
			"unsupported volume", `unsupported_volume = C:\`,
			[]string{"prepare", "close"},
			[]string{"prepare: SF4202", closed},
		},
		{
			"required writer failed before", "writer.sql.failed_before = 7:0x800423f4",
			[]string{"prepare", "close"},
			[]string{"prepare: SF4013", closed},
		},
		{
			"tolerated writer failed before", "writer.unknown.failed_before = 7:0x800423f4",
			[]string{"prepare", "freeze", "thaw", "settle", "complete all"},
			[]string{
				"prepare: served 1 [Somebody's Writer 7 800423f4]", heldIO, `thaw: rows=1 expired="" io=true`,
				"settle: 0004230a finished=true [Somebody's Writer 7 800423f4]", "complete: 0004230a closed=true [Somebody's Writer 7 800423f4]",
			},
		},
		{
			"required writer vanished", "writer.sql.vanish = 1",
			[]string{"prepare", "close"},
			[]string{"prepare: SF4013", closed},
		},
		{
			"required component elsewhere", `writer.sql.component = database|LAB|orders|1|D:\SQL|*`,
			[]string{"prepare", "close", `prepare volumes=C:\,D:\`, "close"},
			[]string{"prepare: SF4203", closed, "prepare: served 2", closed},
		},
		{
			"required writer missing", "",
			[]string{"prepare required=Oracle_VSS_Writer", "close"},
			[]string{"prepare: SF4013", closed},
		},
		{
			"excluded writer", "writer.exchange.failed_before = 9:0x800423f2",
			[]string{"prepare excluded=Microsoft_Exchange_Writer", "freeze", "thaw", "settle", "complete all"},
			[]string{prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true"},
		},
		{
			"abort in metadata", "delay.metadata = hang",
			[]string{"prepare within=3s", "close"},
			[]string{"prepare: SF4001", closed},
		},
		{
			"abort in prepare", "delay.prepare_backup = hang",
			[]string{"prepare within=5s", "close"},
			[]string{"prepare: SF4001", closed},
		},
		{
			"abort when ready", "",
			[]string{"prepare", "thaw", "close"},
			[]string{prepared, `thaw: rows=0 expired="" io=false`, closed},
		},
		{
			"abort while freezing", "delay.freeze = 3000",
			[]string{"prepare", "freezing", "started", "veto", "frozen", "thaw", "close"},
			[]string{prepared, "freezing:", "started:", "veto:", "frozen: SF4001", `thaw: rows=0 expired="" io=false`, closed},
		},
		{
			"abort while frozen", "",
			[]string{"prepare", "freeze", "veto", "thaw", "settle", "close"},
			[]string{prepared, heldIO, "veto:", `thaw: rows=0 expired="" io=true`, "settle: 80042306 finished=false", closed},
		},
		{
			"abort when open", "",
			[]string{"prepare", "freeze", "thaw", "settle", "close"},
			[]string{prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", closed},
		},
		{
			"thaw before the clock", "delay.prepare_snapshot = 3000",
			[]string{"prepare", "freezing", "hold 100ms", "thaw", "frozen", "settle", "close"},
			[]string{prepared, "freezing:", "hold:", `thaw: rows=0 expired="" io=false`, "frozen: SF4001", "settle: 0004230b finished=false", closed},
		},
		{
			"thaw before frozen", "delay.pre_commit = 3000",
			[]string{"prepare", "freezing", "started", "hold 1s", "thaw", "frozen", "settle", "close"},
			[]string{prepared, "freezing:", "started:", "hold:", `thaw: rows=0 expired="" io=false`, "frozen: SF4001", "settle: 0004230b finished=false", closed},
		},
		{
			"complete without success", "",
			[]string{"prepare type=full", "freeze", "thaw", "settle", "complete none"},
			[]string{prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true"},
		},
		{
			"full with truncation", "",
			[]string{"prepare type=full", "freeze", "thaw", "settle", "complete all truncate=1"},
			[]string{prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true"},
		},
		{
			"full without truncation", "",
			[]string{"prepare type=full", "freeze", "thaw", "settle", "complete all"},
			[]string{prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true"},
		},
		{
			"writer fails at complete", "writer.exchange.fail = 12:0x800423f4",
			[]string{"prepare", "freeze", "thaw", "settle", "complete all"},
			[]string{
				prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true",
				"complete: 0004230a closed=true [Microsoft Exchange Writer 12 800423f4]",
			},
		},
		{
			"complete after a failed set", "hold_limit_ms = 1500",
			[]string{"prepare", "freeze", "hold 2500ms", "thaw", "settle", "complete all", "close"},
			[]string{prepared, heldIO, "hold:", `thaw: rows=1 expired="" io=true`, "settle: 80042314 finished=false", "complete: SF4031 80042314 closed=true", closed},
		},
		{
			"64 leaked sessions", "leaked_sessions = 64",
			[]string{"prepare", "freeze", "thaw", "settle", "complete all"},
			[]string{prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := g.play(t, c.config, c.do...)
			if p.err != nil {
				t.Error(p.err)
			}
			if d := cmp.Diff(c.want, p.said()); d != "" {
				t.Errorf("replies:\n%s%+v", d, p.replies)
			}
			p.ended(t)
			golden(t, c.name, p.story())
		})
	}
}

// TestAgentDies ends the agent in the middle of a hold: all writers are let go at once. Each has a Windows of its own, because
// Wine 8.0's class table keeps the classes of dead processes.
func TestAgentDies(t *testing.T) {
	for name, c := range map[string]struct {
		config, prepare, then string
	}{
		"agent killed in commit":          {"kill_requestor = commit:1500", "prepare", "expired"},
		"agent killed in pre_commit":      {"kill_requestor = pre_commit:1500", "prepare mode=writer", "expired"},
		"agent dies with an open session": {"", "prepare", "die"},
		// Its own deadlines are later than the second net here, as if they did not come.
		"the second net ends a hold": {"", "prepare second_net=2s", "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			p := openGuest(t).play(t, c.config, c.prepare, "freeze", c.then)
			// Wine may give a process that was terminated the status 0; what it did not say and VSS's open session tell.
			if len(p.replies) != 2 || len(p.trace.All("mark", "session", "leaked")) != 1 {
				t.Errorf("the agent did not die: %v %v", p.said(), p.err)
			}
			for _, l := range p.trace.All("mark", "writer", "released") {
				if l.Fields["how"] == "limit" {
					t.Errorf("%s was held to its limit:\n%s", l.Fields["writer"], p.trace)
				}
			}
		})
	}
}

// TestVSSDies ends VSS in the middle of a session.
func TestVSSDies(t *testing.T) {
	g := openGuest(t)
	again := func(t *testing.T) {
		t.Helper()
		p := g.play(t, "", "prepare", "freeze", "thaw", "settle", "complete all")
		want := []string{prepared, heldIO, `thaw: rows=1 expired="" io=true`, "settle: 0004230a finished=true", "complete: 0004230a closed=true"}
		if d := cmp.Diff(want, p.said()); d != "" || p.err != nil {
			t.Errorf("the next session: %s %v", d, p.err)
		}
	}
	t.Run("while we hold", func(t *testing.T) {
		p := g.play(t, "exit = commit:1500", "prepare", "freeze", "expired", "thaw", "settle", "close")
		said := p.said()
		want := []string{prepared, heldIO, "expired: system", `thaw: rows=0 expired="system" io=true`}
		if len(said) != 6 || !slices.Equal(said[:4], want) || !strings.HasPrefix(said[4], "settle: 800706b") || p.err != nil {
			t.Errorf("replies %q %v", said, p.err)
		}
		again(t)
	})
	t.Run("before the hold", func(t *testing.T) {
		p := g.play(t, "exit = freeze:0;delay.freeze = 3000", "prepare", "freeze", "thaw", "close")
		if said := p.said(); len(said) != 4 || said[1] != "freeze: SF4034" || p.err != nil {
			t.Errorf("replies %q %v", said, p.err)
		}
		again(t)
	})
}

// TestManyCycles has 30 sessions in one process, some completed, some aborted, while the collector runs all the time.
func TestManyCycles(t *testing.T) {
	g := openGuest(t)
	p := g.play(t, "", "cycles 30")
	if d := cmp.Diff([]string{"cycles: 30"}, p.said()); d != "" || p.err != nil {
		t.Errorf("30 sessions in one process, with the collector running: %s %v", d, p.err)
	}
	p.ended(t)
	if n := len(p.trace.All("mark", "session", "ended")); n != 30 {
		t.Errorf("%d of 30 sessions ended properly", n)
	}
}

// TestOtherProducts has another product make shadow copies without naming a provider.
func TestOtherProducts(t *testing.T) {
	g := openGuest(t)
	const other = `run C:\windows\system32\otherbackup.exe`
	p := g.play(t, "", other, "prepare", other, "freeze", "thaw", "settle", "complete all", other)
	if p.err != nil {
		t.Error(p.err)
	}
	ours := 0
	for _, l := range p.trace.All("mark", "coordinator", "volume") {
		if l.Fields["provider"] == ourID {
			ours++
		}
	}
	if ours != 1 {
		t.Errorf("%d volumes were served by our provider, want only our own session's:\n%s", ours, p.trace)
	}
	if r := p.of(t, "settle"); !r.Settled.Finished {
		t.Errorf("our own session: %v", p.said())
	}
}

const ourID = "1ff4bafb-1cad-4364-8592-221443e14ef6"

// TestRegistration leaves nothing behind, and replaces what another version left.
func TestRegistration(t *testing.T) {
	g := openGuest(t)
	p := g.play(t, "", "register version=0.9", "register version=1.0", "register version=1.0", "unregister", "unregister", "register", "prepare", "close", "unregister")
	want := []string{"register:", "register:", "register:", "unregister:", "unregister:", "register:", prepared, closed, "unregister:"}
	if d := cmp.Diff(want, p.said()); d != "" || p.err != nil {
		t.Errorf("replies: %s %v", d, p.replies)
	}
	var calls []string
	for _, l := range p.trace.All("begin", "admin", "") {
		calls = append(calls, l.What)
	}
	if d := cmp.Diff([]string{
		"RegisterProvider", "UnregisterProvider", "RegisterProvider", // 0.9 in place of 1.0
		"RegisterProvider", "UnregisterProvider", "RegisterProvider", // 1.0 in place of 0.9
		"UnregisterProvider", "UnregisterProvider", "RegisterProvider", "UnregisterProvider",
	}, calls); d != "" {
		t.Error(d)
	}
	for _, key := range []string{
		`HKLM\SOFTWARE\Classes\CLSID\{c9bbb1b2-2fae-46ce-ad73-ba48df4715d1}`, `HKLM\SOFTWARE\Classes\AppID\{8ec46b07-939b-40bb-a8be-2fc312d402b7}`,
		`HKLM\SYSTEM\CurrentControlSet\Services\VSS\Providers\{` + ourID + `}`,
	} {
		if out, err := g.Run(t.Context(), "reg", "query", key); err == nil {
			t.Errorf("left behind: %s", out)
		}
	}
}

// TestHeldTimes compares what the agent says of its holds with what VSS's double saw. A busy machine lets time pass between the two
// clocks; what is wrong every time is not the machine's.
func TestHeldTimes(t *testing.T) {
	g := openGuest(t)
	for try := 1; ; try++ {
		near := heldTimes(t, g)
		if near || t.Failed() {
			return
		}
		if try == 5 {
			t.Fatal("the agent's clock is far from VSS's in each of 5 tries")
		}
	}
}

// heldTimes plays a hold that is thawed and one that the dead-man ends, and says whether the agent's times are near to what was seen.
func heldTimes(t *testing.T, g guest) (near bool) {
	t.Helper()
	p := g.play(t, "", "prepare", "freeze", "hold 600ms", "thaw", "settle", "complete all", "close", "prepare io_deadman=500ms", "freeze", "expired", "thaw", "settle", "close")
	volumes := p.trace.All("end", "volume", "hold")
	if len(volumes) != 2 || p.err != nil {
		t.Fatalf("replies %v %v", p.said(), p.err)
	}
	var said []time.Duration
	for _, r := range p.replies {
		if r.Release != nil {
			said = append(said, r.Release.IO)
		}
	}
	near = true
	for i, l := range volumes {
		var ms int
		if _, err := fmt.Sscan(l.Fields["held_ms"], &ms); err != nil {
			t.Fatal(err)
		}
		seen := time.Duration(ms+1) * time.Millisecond // it rounds down
		t.Logf("hold %d: the agent says %v, VSS saw %v", i, said[i], seen)
		if said[i] > seen {
			t.Errorf("hold %d: the agent says %v, VSS saw %v", i, said[i], seen)
		}
		near = near && seen-said[i] <= 250*time.Millisecond
	}
	t.Logf("freeze took %v, thaw %v, prepare %v", p.of(t, "freeze").Took, p.of(t, "thaw").Took, p.of(t, "prepare").Took)
	if said[1] < 500*time.Millisecond {
		t.Errorf("the dead-man of 500ms ended the hold after %v", said[1])
	}
	return near && said[1] <= time.Second
}

// TestHeaders compares our tables and layouts with those that a C++ compiler makes of mingw-w64's headers.
func TestHeaders(t *testing.T) {
	g := openGuest(t)
	if err := g.Write(`C:\lab\abi.json`, []byte(g.run(t, "abi.exe"))); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{driverPath, providerPath} {
		out := g.run(t, program, "-test.v")
		if !strings.Contains(out, "--- PASS: TestABI") {
			t.Errorf("%s did not compare:\n%s", program, out)
		}
		t.Log(out)
	}
}
