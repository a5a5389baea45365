package wine_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/wine"
)

// The fakes are proved with a requestor and a provider made from mingw-w64's headers alone.

const (
	finished        = "0x0004230a"
	cancelled       = "0x0004230b"
	badState        = "0x80042301"
	veto            = "0x80042306"
	unexpected      = "0x8004230f"
	flushTimeout    = "0x80042313"
	holdTimeout     = "0x80042314"
	inProgress      = "0x80042316"
	badContext      = "0x8004231b"
	writerTimeout   = "0x800423f2"
	callFailed      = 0x800706be
	serverGone      = 0x800706ba
	selfProvider    = "c0ffee00-1ab5-4d1e-8a11-000000000001"
	systemProvider  = "b5946137-7b9f-4925-af80-51abd60b20d5"
	exchangeWriter  = "Microsoft Exchange Writer"
	untilPrepared   = "init state context metadata components set volume prepare"
	afterTheFailure = " status abort"
)

// fakes is one prefix with the lab's own provider in it.
type fakes struct{ p *wine.Prefix }

// played is what the requestor said: the last HRESULT of each step, the writers' last states, and the trace.
type played struct {
	steps, writers map[string]string
	trace          wine.Trace
}

// play runs the steps with that config of VSS and of the provider.
func (f fakes) play(t *testing.T, config, provider, steps string) played {
	t.Helper()
	f.prepare(t, config, provider)
	out := run(t, f.p, "selfrequestor.exe", strings.Fields(steps)...)
	r := played{steps: map[string]string{}, writers: map[string]string{}}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if writer, ok := strings.CutPrefix(line, "writer "); ok {
			name, state, _ := strings.Cut(writer, " state ")
			r.writers[name] = state
		} else if step, hr, ok := strings.Cut(line, " "); ok {
			r.steps[step] = hr
		}
	}
	r.trace = f.read(t)
	return r
}

// prepare says how the next sessions shall go, and begins a new trace when the last has come to its end.
func (f fakes) prepare(t *testing.T, config, provider string) {
	t.Helper()
	f.read(t)
	err := errors.Join(
		f.p.Write(`C:\lab\selfprovider.conf`, []byte(provider+"\n")), f.p.Configure(strings.Split(config, ";")...), f.p.ForgetTrace(),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// read waits until the session has been let go, which happens after the requestor has ended, and returns the trace.
func (f fakes) read(t *testing.T) wine.Trace {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		trace, err := f.p.Trace()
		if err != nil {
			t.Fatal(err)
		}
		opened := len(trace.All("mark", "session", "opened"))
		if opened == len(trace.All("mark", "session", "closed"))+len(trace.All("mark", "session", "leaked")) {
			return trace
		}
		select {
		case <-limit:
			t.Fatalf("the session is not let go:\n%s", trace)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// want fails the test where a step ended otherwise.
func (r played) want(t *testing.T, steps map[string]string) {
	t.Helper()
	for step, want := range steps {
		if got := r.steps[step]; got != want {
			t.Errorf("%s answered %s, want %s\n%s", step, got, want, r.trace)
		}
	}
}

// wantReleased fails the test unless each writer that was held was released in the way how.
func (r played) wantReleased(t *testing.T, how string) {
	t.Helper()
	for _, w := range []string{"exchange", "sql", "ntds", "system", "unknown"} {
		holds := r.trace.WriterHolds(w)
		if len(holds) != 1 || holds[0].How != how {
			t.Errorf("writer %s was held %v, want once, until %s", w, holds, how)
		}
	}
}

// shared is one prefix for all tests of the fakes; TestMain closes it.
func shared(t *testing.T) fakes {
	t.Helper()
	lab.Need(t, lab.Wine, lab.Mingw)
	sharedPrefix.Lock()
	defer sharedPrefix.Unlock()
	if sharedPrefix.p == nil {
		p, err := wine.Open(t.Context(), wine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		sharedPrefix.p = p
		if out := run(t, p, "selfprovider.exe", "install"); !strings.Contains(out, "0x00000000") {
			t.Fatal(out)
		}
	}
	return fakes{sharedPrefix.p}
}

// goldenCycle is what the provider, volumes and one writer see of a backup without faults.
var goldenCycle = []string{
	"provider.CoCreateInstance", "provider.OnLoad", "provider.SetContext", "provider.IsVolumeSupported", "provider.BeginPrepareSnapshot",
	"writer.prepare_backup(sql)", "writer.prepare_snapshot(sql)", "provider.EndPrepareSnapshots", "writer.freeze(sql)",
	"provider.PreCommitSnapshots", "volume.flush", "volume.hold", "provider.CommitSnapshots", "provider.PostCommitSnapshots",
	"writer.thaw(sql)", "writer.backup_complete(sql)", "provider.OnUnload",
}

func TestGoodCycle(t *testing.T) { checkGoodCycle(t, "") }

// In one process the provider still is a local server of its own, but nobody stands between.
func TestGoodCycleInProcess(t *testing.T) { checkGoodCycle(t, "coordinator = in_process") }

func checkGoodCycle(t *testing.T, config string) {
	t.Helper()
	f := shared(t)
	r := f.play(t, config, "", untilPrepared+" status do status succeeded complete status")
	r.want(t, map[string]string{"metadata": finished, "prepare": finished, "do": finished, "complete": finished, "status": finished, "succeeded": "0x00000000"})
	got := slices.DeleteFunc(r.trace.Calls("provider", "volume", "writer"), func(call string) bool {
		return strings.HasPrefix(call, "writer.") && (!strings.HasSuffix(call, "(sql)") || strings.HasPrefix(call, "writer.identify"))
	})
	if d := cmp.Diff(goldenCycle, got); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	r.wantReleased(t, "thaw")
	if got := r.writers[exchangeWriter]; got != "1 0x00000000" {
		t.Errorf("Exchange ends with %s, want stable", got)
	}
	if len(r.trace.All("mark", "session", "ended")) != 1 || len(r.trace.All("mark", "session", "leaked")) != 0 {
		t.Errorf("the session was not ended properly:\n%s", r.trace)
	}
}

// Each call at a wrong time is refused, and does no harm to the right ones.
func TestOrder(t *testing.T) {
	f := shared(t)
	r := f.play(t, "", "", "state")
	r.want(t, map[string]string{"state": badState})
	for early, steps := range map[string]string{
		"prepare": "init state context metadata prepare", "do": "init state context metadata components set volume do",
		"set": "init metadata set", "components": "init state metadata components freemetadata set freemetadata", "complete": untilPrepared + " complete",
		"init": "init init", "context": "init context context", "metadata": "init metadata metadata", "volume": "init state metadata volume",
		"succeeded": untilPrepared + " succeeded", "freemetadata": "init state metadata freemetadata freemetadata", "abort": "init abort abort",
	} {
		r := f.play(t, "", "", steps)
		want := badState
		if early == "components" { // it only counts what it added
			want = "0x00000000"
		}
		r.want(t, map[string]string{early: want})
	}
}

// At the limit the writes go on, VSS says so and logs it, and the writers are let go, although Commit is still inside.
func TestHoldLimit(t *testing.T) {
	f := shared(t)
	r := f.play(t, "hold_limit_ms = 300", "hold_ms = 900", untilPrepared+" do"+afterTheFailure)
	r.want(t, map[string]string{"do": holdTimeout, "abort": "0x00000000"})
	holds := r.trace.WriteHolds()
	if len(holds) != 1 || holds[0].How != "limit" || holds[0].Length() < 300*time.Millisecond {
		t.Errorf("writes were held %v, want 300 ms, until limit", holds)
	}
	r.wantReleased(t, "abort")
	calls := r.trace.Calls("provider")
	if !slices.Contains(calls, "provider.AbortSnapshots") || slices.Contains(calls, "provider.PostCommitSnapshots") {
		t.Errorf("provider saw %v, want AbortSnapshots and no PostCommitSnapshots", calls)
	}
	f.wantEvent(t, "'volsnap'", ">8<")
	early := f.play(t, "hold_limit_ms = 200; abort_during_commit = 1", "hold_ms = 600000", untilPrepared+" do abort")
	early.want(t, map[string]string{"do": holdTimeout})
}

func (f fakes) wantEvent(t *testing.T, words ...string) {
	t.Helper()
	events, err := f.p.Events()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(events, func(e string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e, w) })
	}) {
		t.Errorf("no event has %q:\n%s", words, strings.Join(events, "\n"))
	}
}

func TestHoldUnderLimit(t *testing.T) {
	f := shared(t)
	r := f.play(t, "sql_events = 1", "hold_ms = 400", untilPrepared+" do status succeeded complete status")
	r.want(t, map[string]string{"do": finished})
	holds := r.trace.WriteHolds()
	if len(holds) != 1 || holds[0].How != "commit" || holds[0].Length() < 400*time.Millisecond {
		t.Errorf("writes were held %v, want 400 ms, until commit", holds)
	}
	exchange := r.trace.WriterHolds("exchange")
	if len(exchange) != 1 || exchange[0].From > holds[0].From || exchange[0].To < holds[0].To {
		t.Errorf("Exchange was held %v, want it around %v", exchange, holds)
	}
	f.wantEvent(t, "MSSQLSERVER", ">3197<")
	f.wantEvent(t, "MSSQLSERVER", ">3198<")
}

// A writer's own limit shows in its status only; the set is finished.
func TestWriterLimit(t *testing.T) {
	f := shared(t)
	r := f.play(t, "writer.exchange.limit_ms = 300", "pre_commit_ms = 900", untilPrepared+" do status"+afterTheFailure)
	r.want(t, map[string]string{"do": finished})
	if got := r.writers[exchangeWriter]; got != "9 "+writerTimeout {
		t.Errorf("Exchange is %s, want 9 %s", got, writerTimeout)
	}
	if got := r.writers["NTDS"]; got != "5 0x00000000" {
		t.Errorf("NTDS is %s, want 5", got)
	}
	holds := r.trace.WriterHolds("exchange")
	if len(holds) != 1 || holds[0].How != "limit" {
		t.Errorf("Exchange was held %v, want once, until limit", holds)
	}
}

func TestVetoed(t *testing.T) {
	f := shared(t)
	r := f.play(t, "", "answer = "+veto, untilPrepared+" do"+afterTheFailure)
	r.want(t, map[string]string{"do": veto, "abort": "0x00000000"})
	r.wantReleased(t, "abort")
	r = f.play(t, "veto_as = "+unexpected, "answer = "+veto, untilPrepared+" do"+afterTheFailure)
	r.want(t, map[string]string{"do": unexpected})
}

func TestUnlistedAnswer(t *testing.T) {
	f := shared(t)
	r := f.play(t, "", "answer = 0x80004005", untilPrepared+" do abort")
	r.want(t, map[string]string{"do": unexpected})
	r = f.play(t, "provider_error = BeginPrepareSnapshot:0x80070005", "", untilPrepared+" abort")
	r.want(t, map[string]string{"volume": unexpected})
}

func TestSetInProgress(t *testing.T) {
	f := shared(t)
	config := "in_progress = 2"
	for _, want := range []string{inProgress, inProgress, "0x00000000"} {
		r := f.play(t, config, "", "init state context metadata set abort")
		r.want(t, map[string]string{"set": want, "abort": "0x00000000"})
	}
}

// A second requestor is refused while the first one's set is being made, and served after it.
func TestTwoAtOnce(t *testing.T) {
	f := shared(t)
	f.prepare(t, "", "")
	first := f.p.Command(t.Context(), "selfrequestor.exe", "init", "state", "metadata", "set", "sleep:3000", "abort")
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	seen, block := "", make([]byte, 256)
	for !strings.Contains(seen, "set 0x00000000") {
		n, err := out.Read(block)
		if err != nil {
			t.Fatalf("%v after %q", err, seen)
		}
		seen += string(block[:n])
	}
	if got := run(t, f.p, "selfrequestor.exe", "init", "state", "metadata", "set", "abort"); !strings.Contains(got, "set "+inProgress) {
		t.Errorf("the second was told %q, want %s", got, inProgress)
	}
	if out, err := f.p.Run(t.Context(), "selfprovider.exe", "uninstall"); err == nil || !strings.Contains(out, "0x80042307") {
		t.Errorf("a provider is unregistered while a set is made: %s", out)
	}
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	f.play(t, "", "", "init state metadata set abort").want(t, map[string]string{"set": "0x00000000"})
}

func TestClientEdition(t *testing.T) {
	f := shared(t)
	r := f.play(t, "edition = client", "", "init context clientcontext")
	r.want(t, map[string]string{"context": badContext, "clientcontext": "0x00000000"})
}

func TestFlushTooLong(t *testing.T) {
	f := shared(t)
	r := f.play(t, "flush_timeout = 1", "", untilPrepared+" do abort")
	r.want(t, map[string]string{"do": flushTimeout})
	f.wantEvent(t, "'volsnap'", ">9<")
	if holds := r.trace.WriteHolds(); len(holds) != 0 {
		t.Errorf("writes were held %v, want never", holds)
	}
}

func TestCancelWork(t *testing.T) {
	f := shared(t)
	r := f.play(t, "writer.sql.delay.freeze = hang", "", untilPrepared+" cancel:200 abort")
	r.want(t, map[string]string{"cancel:200": cancelled, "abort": "0x00000000"})
	if !slices.Contains(r.trace.Calls("provider"), "provider.AbortSnapshots") {
		t.Errorf("the provider was never told:\n%s", r.trace)
	}
}

func TestAbortPrepared(t *testing.T) {
	f := shared(t)
	r := f.play(t, "", "", untilPrepared+" abort status")
	r.want(t, map[string]string{"abort": "0x00000000", "status": badState})
	if slices.Contains(r.trace.Calls("provider"), "provider.AbortSnapshots") {
		t.Error("AbortSnapshots came before EndPrepareSnapshots")
	}
	if len(r.trace.All("mark", "session", "ended")) != 1 {
		t.Errorf("AbortBackup did not end the session:\n%s", r.trace)
	}
}

func TestProviderKilled(t *testing.T) {
	f := shared(t)
	r := f.play(t, "", "exit = 1", untilPrepared+" do"+afterTheFailure)
	r.want(t, map[string]string{"do": unexpected, "abort": "0x00000000"})
	r.wantReleased(t, "abort")
	for method, want := range map[string]uint32{"CommitSnapshots": callFailed, "AbortSnapshots": serverGone} {
		if got := r.trace.All("end", "provider", method); len(got) != 1 || got[0].HR != want {
			t.Errorf("%s of the dead provider: %v, want 0x%08x", method, got, want)
		}
	}
}

func TestServiceKilled(t *testing.T) {
	f := shared(t)
	f.prepare(t, "exit = commit:100", "hold_ms = 1000")
	out := run(t, f.p, "selfrequestor.exe", strings.Fields(untilPrepared+" do abort")...)
	if !strings.Contains(out, "do 0x800706be") || !strings.Contains(out, "abort 0x800706ba") {
		t.Errorf("with its service dead the requestor was told\n%s", out)
	}
	trace, err := f.p.Trace()
	if err != nil {
		t.Fatal(err)
	}
	if holds := trace.WriteHolds(); len(holds) != 1 || holds[0].How != "exit" {
		t.Errorf("the trace of a killed service has holds %v, want one that went with it", holds)
	}
	if err := f.p.ForgetTrace(); err != nil { // its session is never closed there
		t.Fatal(err)
	}
	f.play(t, "", "", untilPrepared+" do status complete status").want(t, map[string]string{"do": finished})
}

// A server that was killed while nobody used it is in the way of the next one, until COM is made to forget it.
func TestIdleServerKilled(t *testing.T) {
	f := shared(t)
	f.prepare(t, "", "")
	for range 2 {
		server := f.p.Command(t.Context(), "selfprovider.exe", "run")
		if _, err := server.StdinPipe(); err != nil { // it serves until that ends
			t.Fatal(err)
		}
		out, err := server.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil { // it says that it serves
			t.Fatal(err)
		}
		f.play(t, "", "", untilPrepared+" do status complete status").want(t, map[string]string{"do": finished})
		if err := server.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Wait(); err == nil {
			t.Error("the server came to an end by itself")
		}
		if err := f.p.ForgetDeadServers(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// When the requestor dies its provider is told on another thread, and its session stays open in the writers.
func TestRequestorKilled(t *testing.T) {
	f := shared(t)
	f.prepare(t, "kill_requestor = commit:100", "hold_ms = 600000")
	if out, err := f.p.Run(t.Context(), "selfrequestor.exe", strings.Fields(untilPrepared+" do")...); err == nil {
		t.Errorf("the requestor was not killed: %s", out)
	}
	trace := f.read(t)
	if len(trace.All("mark", "session", "leaked")) != 1 {
		t.Errorf("the session of a dead requestor is not open:\n%s", trace)
	}
	played{trace: trace}.wantReleased(t, "abort")
}

// Sessions that were not ended pile up; with more than 64 VSS complains.
func TestLeakedSessions(t *testing.T) {
	f := shared(t)
	r := f.play(t, "leaked_sessions = 70", "", untilPrepared+" do complete")
	f.wantEvent(t, "'VSS'", ">12289<", "0x80042409", "Active(7")
	if len(r.trace.All("mark", "session", "leaked")) != 1 {
		t.Errorf("BackupComplete without a look at the writers ended the session:\n%s", r.trace)
	}
}

// Another product that names no provider gets one that says that it supports the volume, else the system's.
func TestAnotherProduct(t *testing.T) {
	f := shared(t)
	for supports, want := range map[string]string{"supports = 0": systemProvider, "supports = 1": selfProvider} {
		f.prepare(t, "", supports)
		run(t, f.p, "otherbackup.exe")
		got := f.read(t).All("mark", "coordinator", "volume")
		if len(got) != 1 || got[0].Fields["provider"] != want {
			t.Errorf("with %s the other product got %v, want %s", supports, got, want)
		}
	}
}

func TestWriterFaults(t *testing.T) {
	f := shared(t)
	r := f.play(t, "writer.sql.fail = 9:0x800423f3; writer.ntds.failed_before = 7:0x800423f4; writer.system.vanish = 1; writer.unknown.present = 0",
		"", untilPrepared+" do status complete status")
	r.want(t, map[string]string{"do": finished})
	want := map[string]string{exchangeWriter: "1 0x00000000", "SqlServerWriter": "9 0x800423f3", "NTDS": "7 0x800423f4"}
	if d := cmp.Diff(want, r.writers); d != "" {
		t.Errorf("writers (-want +got):\n%s", d)
	}
}

func TestBadConfig(t *testing.T) {
	f := shared(t)
	r := f.play(t, "hold_limit = 300", "", "init")
	r.want(t, map[string]string{"init": "0x80070057"})
}

// Only a full backup that was called a success lets a writer cut its logs.
func TestTruncation(t *testing.T) {
	f := shared(t)
	good := f.play(t, "", "", "init full context metadata components set volume prepare do succeeded complete status")
	if got := len(good.trace.All("mark", "writer", "truncates")); got != 5 {
		t.Errorf("%d components are truncated, want 5", got)
	}
	for _, steps := range []string{"init full context metadata components set volume prepare do failed complete status", untilPrepared + " do succeeded complete status"} {
		if got := f.play(t, "", "", steps).trace.All("mark", "writer", "truncates"); len(got) != 0 {
			t.Errorf("%s: %v", steps, got)
		}
	}
}

// A service that answers nobody leaves the requestor inside its call; it is ended with the prefix.
func TestServiceHangs(t *testing.T) {
	own := fakes{open(t, wine.Options{})}
	run(t, own.p, "selfprovider.exe", "install")
	if err := own.p.Configure("freeze_service = freeze"); err != nil {
		t.Fatal(err)
	}
	cmd := own.p.Command(t.Context(), "selfrequestor.exe", strings.Fields(untilPrepared+" do")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for frozen := false; !frozen; {
		trace, err := own.p.Trace()
		if err != nil {
			t.Fatal(err)
		}
		frozen = len(trace.All("mark", "coordinator", "freeze")) > 0
	}
	select {
	case err := <-ended:
		t.Errorf("the requestor came back: %v", err)
	case <-time.After(time.Second):
	}
	if err := own.p.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}
