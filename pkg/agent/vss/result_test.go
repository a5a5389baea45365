package vss

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

func TestErrorsHaveCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code string
		text string
	}{
		{withCode(fmt.Errorf("start: %w", vsscode.VSS_E_SNAPSHOT_SET_IN_PROGRESS), codeNotReached), "SF4008", "80042316"},
		{withCode(fmt.Errorf("add: %w", vsscode.HRESULT(0x8badf00d)), codeNotReached), codeNotReached, "8badf00d"},
		{withCode(vsscode.RPC_S_SERVER_UNAVAILABLE, codeNotReached), codeDisconnected, "800706ba"},
		{withCode(coded(codeNotReady, "no"), codeNotReached), codeNotReady, "no"},
		{withCode(errors.New("no"), codeNotReached), codeNotReached, "no"},
		{withCode(notStarted(vsscode.VSS_E_UNEXPECTED_PROVIDER_ERROR, nil), codeNotReached), codeNotStarted, "COM did not start"},
		{withCode(notStarted(vsscode.VSS_E_UNEXPECTED_PROVIDER_ERROR, []string{volumeC}), codeNotReached), "SF4105", "8004230f"},
		{withCode(notStarted(vsscode.VSS_E_VOLUME_NOT_SUPPORTED, nil), codeNotReached), codeNoVolume, "8004230c"},
		{setEnded(vsscode.VSS_E_FLUSH_WRITES_TIMEOUT, provider.System), "SF4004", "80042313"},
		{setEnded(vsscode.VSS_E_HOLD_WRITES_TIMEOUT, provider.System), "SF4003", "80042314"},
		{setEnded(vsscode.VSS_E_PROVIDER_VETO, provider.Vetoed), "SF4007", "80042306"},
		{setEnded(vsscode.VSS_E_PROVIDER_VETO, provider.Deadman), codeDeadman, "80042306"},
		{setEnded(vsscode.VSS_S_ASYNC_CANCELLED, provider.Vetoed), codeNotReached, "0004230b"},
	} {
		if codeOf(c.err) != c.code || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%v has code %s, want %s and %s", c.err, codeOf(c.err), c.code, c.text)
		}
	}
	if withCode(nil, codeNotReached) != nil {
		t.Error("no error has a code")
	}
}

func TestFinished(t *testing.T) {
	volumes := []string{volumeC, volumeD}
	good := provider.Facts{Served: []string{volumeD, strings.ToUpper(volumeC)}, Committed: 2}
	for _, c := range []struct {
		name   string
		result vsscode.HRESULT
		phase  provider.Phase
		spoil  func(*provider.Facts)
		want   bool
	}{
		{"all well", vsscode.VSS_S_ASYNC_FINISHED, provider.Thawed, nil, true},
		{"cancelled", vsscode.VSS_S_ASYNC_CANCELLED, provider.Thawed, nil, false},
		{"hold limit", vsscode.VSS_E_HOLD_WRITES_TIMEOUT, provider.Thawed, nil, false},
		{"dead-man", vsscode.VSS_S_ASYNC_FINISHED, provider.Deadman, nil, false},
		{"never held", vsscode.VSS_S_ASYNC_FINISHED, provider.Waiting, nil, false},
		{"aborted", vsscode.VSS_S_ASYNC_FINISHED, provider.Thawed, func(f *provider.Facts) { f.Aborted = true }, false},
		{"no PostCommit", vsscode.VSS_S_ASYNC_FINISHED, provider.Thawed, func(f *provider.Facts) { f.Committed = -1 }, false},
		{"one volume less", vsscode.VSS_S_ASYNC_FINISHED, provider.Thawed, func(f *provider.Facts) { f.Committed = 1 }, false},
		{"served by another", vsscode.VSS_S_ASYNC_FINISHED, provider.Thawed, func(f *provider.Facts) { f.Served = f.Served[:1] }, false},
		{"one served twice", vsscode.VSS_S_ASYNC_FINISHED, provider.Thawed, func(f *provider.Facts) { f.Served = []string{volumeC, volumeC} }, false},
	} {
		f := good
		if c.spoil != nil {
			c.spoil(&f)
		}
		if got := finished(c.result, c.phase, f, volumes); got != c.want {
			t.Errorf("%s: finished = %t", c.name, got)
		}
	}
}

func TestExpired(t *testing.T) {
	for phase, want := range map[provider.Phase]agent.ExpiredBy{
		provider.Thawed: "", provider.Vetoed: "", provider.Deadman: agent.ByDeadman, provider.IODeadman: agent.ByIODeadman, provider.System: agent.BySystem,
	} {
		if got := expired(phase); got != want {
			t.Errorf("phase %d expired by %q, want %q", phase, got, want)
		}
	}
}

func TestSucceeded(t *testing.T) {
	well, ill := status{state: vsscode.WaitingForBackupComplete}, status{state: vsscode.FailedAtFreeze, failure: vsscode.VSS_E_WRITERERROR_TIMEOUT}
	for _, c := range []struct {
		name string
		c    agent.Completion
		kind vsscode.BackupType
		s    status
		want bool
	}{
		{"all", agent.Completion{OK: "all"}, vsscode.Copy, well, true},
		{"none", agent.Completion{OK: "none"}, vsscode.Copy, well, false},
		{"nothing said", agent.Completion{}, vsscode.Copy, well, false},
		{"in the list", agent.Completion{OK: "list", Components: []string{`LAB\orders`}}, vsscode.Copy, well, true},
		{"not in the list", agent.Completion{OK: "list", Components: []string{"orders"}}, vsscode.Copy, well, false},
		{"writer failed", agent.Completion{OK: "all"}, vsscode.Copy, ill, false},
		{"full that may cut logs", agent.Completion{OK: "all", Truncate: true}, vsscode.Full, well, true},
		{"full that may not", agent.Completion{OK: "all"}, vsscode.Full, well, false},
		{"full, writer failed", agent.Completion{OK: "all", Truncate: true}, vsscode.Full, ill, false},
	} {
		if got := succeeded(c.c, c.kind, `LAB\orders`, c.s); got != c.want {
			t.Errorf("%s: succeeded = %t", c.name, got)
		}
	}
}

func TestWords(t *testing.T) {
	for word, want := range map[string]vsscode.BackupType{"": vsscode.Copy, "copy": vsscode.Copy, "full": vsscode.Full} {
		if got, err := typeOf(word); got != want || err != nil {
			t.Errorf("type %q is %d, %v", word, got, err)
		}
	}
	for word, want := range map[string]provider.Mode{"io": provider.IO, "writer": provider.Writer} {
		if got, err := modeOf(word); got != want || err != nil {
			t.Errorf("mode %q is %d, %v", word, got, err)
		}
	}
	if _, err := typeOf("log"); codeOf(err) != codeRequestorBug {
		t.Error(err)
	}
	if _, err := modeOf("fs"); codeOf(err) != codeRequestorBug {
		t.Error(err)
	}
}

// slow is a volume whose flush takes its time.
type slow struct {
	takes  time.Duration
	err    error
	closed *int
}

func (s slow) Flush() error {
	time.Sleep(s.takes)
	return s.err
}

func (s slow) Close() error {
	*s.closed++
	return nil
}

func TestFlush(t *testing.T) {
	for _, c := range []struct {
		name  string
		takes []time.Duration
		stop  time.Duration
		want  string
		took  time.Duration
	}{
		{"quick", []time.Duration{time.Second, 2 * time.Second}, 0, "full", 2 * time.Second},
		{"one late", []time.Duration{time.Second, time.Minute}, 0, "partial", flushLimit},
		{"all late", []time.Duration{time.Minute, time.Minute}, 0, "none", flushLimit},
		{"stopped", []time.Duration{time.Minute}, time.Second, "none", time.Second},
		{"one fails", []time.Duration{time.Second, 0}, 0, "partial", time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				closed := 0
				var caches caches
				for i, takes := range c.takes {
					s := slow{takes: takes, closed: &closed}
					if c.name == "one fails" && i == 1 {
						s.err = errors.New("write-protected")
					}
					caches.volumes = append(caches.volumes, s)
				}
				stop := make(chan struct{})
				if c.stop > 0 {
					time.AfterFunc(c.stop, func() { close(stop) })
				}
				begun := time.Now()
				if got := caches.flush(stop); got != c.want || time.Since(begun) != c.took {
					t.Errorf("flush = %s after %v, want %s after %v", got, time.Since(begun), c.want, c.took)
				}
				if err := caches.close(); err != nil || closed != len(c.takes) {
					t.Errorf("%d closed, %v", closed, err)
				}
			})
		})
	}
}

func TestVolumes(t *testing.T) {
	for _, c := range []struct {
		kind uint32
		fs   string
		err  error
		want string
	}{
		{3, "NTFS", nil, ""},
		{3, "ReFS", nil, ""},
		{3, "FAT32", nil, "its file system is FAT32, not NTFS or ReFS"},
		{2, "NTFS", nil, "not a fixed disk"},
		{3, "", errors.New("locked"), "not readable: locked"},
	} {
		if got := freezable(c.kind, c.fs, c.err); got != c.want {
			t.Errorf("freezable(%d, %s, %v) = %q, want %q", c.kind, c.fs, c.err, got, c.want)
		}
	}
	all := []protocol.Volume{
		{ID: volumeC, Mounts: []string{`C:\`}, Supported: true},
		{ID: volumeD, Mounts: []string{`D:\`, `C:\mnt\`}, Supported: true},
		{ID: `\\?\Volume{e}\`, Mounts: []string{`E:\`}, Why: "not a fixed disk"},
	}
	for _, c := range []struct {
		asked, want []string
		code        string
	}{
		{nil, []string{volumeC, volumeD}, ""},
		{[]string{`c:`}, []string{volumeC}, ""},
		{[]string{`C:\mnt`, volumeD}, []string{volumeD}, ""},
		{[]string{`E:\`}, nil, codeNoVolume},
		{[]string{`F:\`}, nil, "SF4201"},
	} {
		got, err := chooseVolumes(all, c.asked)
		var ids []string
		for _, v := range got {
			ids = append(ids, v.ID)
		}
		if d := cmp.Diff(c.want, ids); d != "" || codeOf(err) != c.code {
			t.Errorf("chooseVolumes(%q): %s %v", c.asked, d, err)
		}
	}
	if _, err := chooseVolumes(all[2:], nil); codeOf(err) != codeNoVolume {
		t.Errorf("no volume at all: %v", err)
	}
	var many []protocol.Volume
	for i := range 65 {
		many = append(many, protocol.Volume{ID: fmt.Sprint(i), Supported: true})
	}
	if _, err := chooseVolumes(many, nil); codeOf(err) != codeTooMany {
		t.Errorf("65 volumes: %v", err)
	}
}

func TestParse(t *testing.T) {
	if d := cmp.Diff([]string{`C:\`, `D:\x\`}, splitStrings([]uint16{'C', ':', '\\', 0, 'D', ':', '\\', 'x', '\\', 0, 0})); d != "" {
		t.Error(d)
	}
	if got := splitStrings([]uint16{0}); len(got) != 0 {
		t.Errorf("an empty list has %q", got)
	}
	b := make([]byte, 8+48)
	b[0], b[8], b[16], b[32], b[41] = 2, 1, 5, 3, 1
	if d := cmp.Diff([]extent{{1, 5}, {3, 256}}, parseExtents(b), cmp.AllowUnexported(extent{})); d != "" {
		t.Error(d)
	}
	if got := parseExtents(b[:40]); len(got) != 1 {
		t.Errorf("cut short: %v", got)
	}
	if got := parseExtents(nil); got != nil {
		t.Errorf("nothing: %v", got)
	}
	d := append(make([]byte, 40), " 6000c29 \x00rest"...)
	d[24] = 40
	if got := parseSerial(d); got != "6000c29" {
		t.Errorf("serial %q", got)
	}
	d[24] = 0
	if got := parseSerial(d) + parseSerial(nil) + parseSerial(d[:20]); got != "" {
		t.Errorf("no serial is %q", got)
	}
}
