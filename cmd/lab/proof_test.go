package main

import (
	"strings"
	"testing"
)

func ptr[T any](v T) *T { return &v }

// sound is a proof that holds, with the report it stands on.
func sound() (*proof, *report) {
	r := &report{}
	r.Window.HeldAtMostSeconds = ptr(1.2)
	r.Snapshot.Removed = true
	return &proof{
		GuestKind: "linux", Level: "filesystem", LabHoldAtLeastSeconds: 1, LabHoldAtMostSeconds: 1.1, LabLongestStallSeconds: 1.1,
		sides:   sides{E2fsckClean: ptr(true), JournalRecoveryNeeded: ptr(false), RecordsAcknowledged: 10, RecordsFound: 10},
		Control: sides{E2fsckClean: ptr(false), JournalRecoveryNeeded: ptr(true), RecordsAcknowledged: 5},
	}, r
}

func TestProofJudge(t *testing.T) {
	p, r := sound()
	if p.judge(r); len(p.Against) != 0 {
		t.Fatalf("a sound proof has against it: %v", p.Against)
	}
	flaws := map[string]func(*proof, *report){
		"e2fsck is not content":    func(p *proof, _ *report) { p.E2fsckClean = ptr(false) },
		"journal recovered":        func(p *proof, _ *report) { p.JournalRecoveryNeeded = nil },
		"could not tell":           func(p *proof, _ *report) { p.Control.JournalRecoveryNeeded = ptr(false) },
		"9 records of 10":          func(p *proof, _ *report) { p.RecordsFound = 9 },
		"0 records of 0":           func(p *proof, _ *report) { p.RecordsAcknowledged, p.RecordsFound = 0, 0 },
		"torn":                     func(p *proof, _ *report) { p.RecordsTorn = 1 },
		"were written while":       func(p *proof, _ *report) { p.RecordsWrittenMeanwhile = 1 },
		"stood still for 20.1 s":   func(p *proof, _ *report) { p.LabLongestStallSeconds = 20.1 },
		"had to release":           func(p *proof, _ *report) { p.LabRescues = 1 },
		"below the 1.000 s":        func(_ *proof, r *report) { r.Window.HeldAtMostSeconds = ptr(0.9) },
		"bound of the hold is mis": func(_ *proof, r *report) { r.Window.HeldAtMostSeconds = nil },
		"not removed":              func(p *proof, _ *report) { p.SnapshotsLeft = []string{"left"} },
		"was not removed":          func(_ *proof, r *report) { r.Snapshot.Removed = false },
		`level is "crash"`:         func(p *proof, _ *report) { p.Level = "crash" },
		"left with 9":              func(p *proof, _ *report) { p.StillframeExitStatus = 9 },
	}
	for want, spoil := range flaws {
		p, r := sound()
		spoil(p, r)
		if p.judge(r); len(p.Against) != 1 || !strings.Contains(p.Against[0], want) {
			t.Errorf("against a spoilt proof = %q, want one with %q", p.Against, want)
		}
	}
	p, r = sound()
	p.GuestKind, p.E2fsckClean, p.JournalRecoveryNeeded, p.Control = "scripted", nil, nil, sides{}
	if p.judge(r); len(p.Against) != 0 {
		t.Errorf("a sound proof of a scripted guest has against it: %v", p.Against)
	}
}

func TestBar(t *testing.T) {
	cases := map[string]struct {
		start, length float64
		want          string
	}{
		"nothing":        {5, 0, ""},
		"a moment":       {0, 0.001, "#"},
		"four seconds":   {2, 4, "     ##########"},
		"up to the end":  {0, 20, strings.Repeat("#", bandColumns)},
		"past the limit": {18, 5, strings.Repeat(" ", 45) + "####>"},
		"far past it":    {30, 5, strings.Repeat(" ", 49) + ">"},
		"before GO":      {-1, 0.5, " before the band: nothing is held yet"},
		"across GO":      {-1, 3, "#####"},
	}
	for name, c := range cases {
		got := bar(c.start, c.length, "#")
		if len(got) != bandColumns || strings.TrimRight(got, " ") != c.want {
			t.Errorf("%s: bar = %q of %d columns, want %q", name, got, len(got), c.want)
		}
	}
}
