package admission

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

const (
	ms    = time.Millisecond
	limit = 17 * time.Second
)

// windows makes n samples; the snapshot of number i takes snapshot(i).
func windows(n int, snapshot func(i int) time.Duration) []Sample {
	var all []Sample
	for i := range n {
		at := time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC)
		all = append(all, Sample{At: at, Freeze: 100 * ms, Snapshot: snapshot(i), Thaw: 20 * ms})
	}
	return all
}

func always(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

func TestPredict(t *testing.T) {
	rising := func(i int) time.Duration { return time.Duration(i+1) * 100 * ms }
	for name, c := range map[string]struct {
		samples []Sample
		want    Prediction
	}{
		"nothing known": {nil, Prediction{0, 5 * time.Second, 0, 4 * time.Second, 8 * time.Second, time.Second}},
		"one":           {windows(1, always(800*ms)), Prediction{1, 125 * ms, 800 * ms, time.Second, time.Second, 25 * ms}},
		"19, the last with few": {
			windows(19, rising), Prediction{19, 125 * ms, time.Second, 2375 * ms, 2375 * ms, 25 * ms},
		},
		"20, nearest rank": {windows(20, rising), Prediction{20, 100 * ms, time.Second, 1900 * ms, 2 * time.Second, 20 * ms}},
		"the 50 last of 60": {
			windows(60, rising), Prediction{50, 100 * ms, 3500 * ms, 5800 * ms, 6 * time.Second, 20 * ms},
		},
		"parts that were not reached do not count": {
			append(windows(1, always(time.Second)), Sample{Freeze: 200 * ms}),
			Prediction{2, 250 * ms, time.Second, 1250 * ms, 1250 * ms, 25 * ms},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Predict(c.samples)); diff != "" {
				t.Errorf("Predict (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	slowAtNoon := windows(10, always(15*time.Second))
	for i := range slowAtNoon {
		slowAtNoon[i].At = slowAtNoon[i].At.Add(12 * time.Hour)
	}
	for name, c := range map[string]struct {
		samples []Sample
		busy    string
		word    Word
		code    string
		says    string
	}{
		"unknown VM":             {word: Admit, says: "14.000 s of at most 17.000 s, from no window of this VM yet"},
		"short windows":          {samples: windows(5, always(time.Second)), word: Admit, says: "5 windows"},
		"just fits":              {samples: windows(20, always(16880*ms)), word: Admit, says: "17.000 s"},
		"just does not":          {samples: windows(20, always(16881*ms)), word: Refuse, code: "SF4010", says: "snapshot 16.881 s"},
		"one late task":          {samples: windows(1, always(25*time.Second)), word: Refuse, code: "SF4010", says: "31.250 s"},
		"slow, a better hour":    {samples: append(windows(3, always(time.Second)), slowAtNoon...), word: Delay, code: "SF4010", says: "between 00:00 and 01:00 UTC"},
		"another task on the VM": {busy: "task-7 (createSnapshot) runs", word: Delay, code: "SF4012", says: "task-7"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(c.samples, limit, c.busy)
			if d.Word != c.word || d.Code != c.code || !strings.Contains(d.Reason, c.says) || d.Mode != freezewindow.ModeFS {
				t.Errorf("Decide = %+v, want %s %s with %q", d, c.word, c.code, c.says)
			}
		})
	}
}

func TestNeed(t *testing.T) {
	for snapshot, want := range map[time.Duration]time.Duration{100 * ms: freezewindow.MinNeed, 2 * time.Second: 2 * time.Second} {
		if got := Decide(windows(3, always(snapshot)), limit, "").Need; got != want {
			t.Errorf("Need with snapshots of %v = %v, want %v", snapshot, got, want)
		}
	}
}

func TestRoad(t *testing.T) {
	if why := Road(500 * ms); why != "" {
		t.Errorf("Road(500 ms) = %q, want no reason", why)
	}
	if why := Road(501 * ms); !strings.Contains(why, "0.501 s") {
		t.Errorf("Road(501 ms) = %q, want the number", why)
	}
}

func TestMode(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	letGo := func(s []Sample, i int) []Sample { s[i].HoldTimeout = true; return s }
	for name, c := range map[string]struct {
		current freezewindow.Mode
		samples []Sample
		now     time.Time
		want    freezewindow.Mode
	}{
		"the first run":                      {want: freezewindow.ModeIO},
		"short snapshots":                    {samples: windows(20, always(6500*ms)), want: freezewindow.ModeIO},
		"long snapshots":                     {samples: windows(20, always(6501*ms)), want: freezewindow.ModeWriter},
		"Windows let go in the last window":  {samples: letGo(windows(3, always(ms)), 2), want: freezewindow.ModeWriter},
		"Windows let go in the one before":   {samples: letGo(windows(3, always(ms)), 1), want: freezewindow.ModeIO},
		"stays writer between the two marks": {current: freezewindow.ModeWriter, samples: windows(20, always(5501*ms)), want: freezewindow.ModeWriter},
		"comes back":                         {current: freezewindow.ModeWriter, samples: windows(20, always(5500*ms)), want: freezewindow.ModeIO},
		"not with too few windows":           {current: freezewindow.ModeWriter, samples: windows(19, always(ms)), want: freezewindow.ModeWriter},
		"not in a restless week":             {current: freezewindow.ModeWriter, samples: letGo(windows(20, always(ms)), 0), want: freezewindow.ModeWriter},
		"after a calm week":                  {current: freezewindow.ModeWriter, samples: letGo(windows(20, always(ms)), 0), now: now.AddDate(0, 0, 7), want: freezewindow.ModeIO},
	} {
		t.Run(name, func(t *testing.T) {
			if c.now.IsZero() {
				c.now = now
			}
			if got := Mode(c.current, c.samples, c.now); got != c.want {
				t.Errorf("Mode = %s, want %s", got, c.want)
			}
		})
	}
}

func TestDecideVSS(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	in := func(m freezewindow.Mode, s []Sample) []Sample { s[len(s)-1].Mode = m; return s }
	for name, c := range map[string]struct {
		policy  Policy
		samples []Sample
		busy    string
		word    Word
		mode    freezewindow.Mode
		says    string
	}{
		"the first run begins with io":            {policy: Auto, word: Admit, mode: freezewindow.ModeIO},
		"short snapshots":                         {policy: Auto, samples: windows(20, always(2*time.Second)), word: Admit, mode: freezewindow.ModeIO},
		"io does not fit, writer does":            {policy: Auto, samples: append(windows(19, always(time.Second)), windows(1, always(9*time.Second))...), word: Admit, mode: freezewindow.ModeWriter},
		"io does not fit, and only io is allowed": {policy: IOOnly, samples: windows(20, always(9*time.Second)), word: Refuse, mode: freezewindow.ModeIO, says: "than the 7.500 s that writes are held"},
		"only writer is allowed":                  {policy: WriterOnly, word: Admit, mode: freezewindow.ModeWriter},
		"a VM that is in writer stays there":      {policy: Auto, samples: in(freezewindow.ModeWriter, windows(3, always(time.Second))), word: Admit, mode: freezewindow.ModeWriter},
		"nothing fits":                            {policy: Auto, samples: windows(20, always(19*time.Second)), word: Refuse, mode: freezewindow.ModeWriter, says: "17.000 s"},
		"busy":                                    {policy: Auto, busy: "task-7", word: Delay, mode: freezewindow.ModeWriter, says: "task-7"},
	} {
		t.Run(name, func(t *testing.T) {
			d := DecideVSS(c.samples, Limits{Hold: limit, IO: 7500 * ms}, c.policy, c.busy, now)
			if d.Word != c.word || d.Mode != c.mode || !strings.Contains(d.Reason, c.says) {
				t.Errorf("DecideVSS = %+v, want %s %s with %q", d, c.word, c.mode, c.says)
			}
		})
	}
}
