package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

func samples(calls []string, overheads ...time.Duration) []sample {
	var all []sample
	for _, o := range overheads {
		all = append(all, sample{overhead: o, between: o / 2, calls: calls})
	}
	return all
}

// TestBars misses each bar once: a bench that cannot fail proves nothing.
func TestBars(t *testing.T) {
	const ms = time.Millisecond
	two := []string{"CreateSnapshotEx_Task", "CreateFilter", polled, polled}
	for _, tc := range []struct {
		name               string
		ours, zero, script []sample
		want               string
	}{
		{"all met", samples(two, 75*ms, 75*ms, 300*ms), samples(two, 25*ms), samples(nil, 1500*ms), ""},
		{"overhead", samples(two, 76*ms, 76*ms, 60*ms), samples(two, 25*ms), samples(nil, 9000*ms), "the overhead at 50 ms"},
		{"overhead without a round trip", samples(two, 60*ms), samples(two, 26*ms), samples(nil, 9000*ms), "the overhead at 0 ms"},
		{"calls", samples(append(two, "CreateFilter"), 60*ms), samples(two, 25*ms), samples(nil, 9000*ms), "3 calls"},
		{"ratio", samples(two, 60*ms), samples(two, 25*ms), samples(nil, 1199*ms), "times ours"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := windowFigures{RTTMS: 50}
			f.take(50*ms, tc.ours, tc.script)
			f.take(0, tc.zero, tc.script)
			err := f.missed()
			if (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("missed = %v, want only %q", err, tc.want)
			}
		})
	}
	if err := (&agentFigures{Bytes: map[string]int64{"a": sizeBarBytes}, PeakMB: 30}).missed(); err != nil {
		t.Errorf("missed = %v at the bars", err)
	}
	if (&agentFigures{Bytes: map[string]int64{"a": sizeBarBytes + 1}}).missed() == nil || (&agentFigures{PeakMB: 30.1}).missed() == nil {
		t.Error("an agent beyond its bars is not missed")
	}
}

func TestMedian(t *testing.T) {
	if got := median(samples(nil, 4, 1000*time.Millisecond, 2*time.Millisecond)); got != 2 {
		t.Errorf("median of three = %v, want 2", got)
	}
	if got := median(samples(nil, 4*time.Millisecond, 0, time.Second, 2*time.Millisecond)); got != 3 {
		t.Errorf("median of four = %v, want 3", got)
	}
}

func TestBegun(t *testing.T) {
	at := time.Unix(1000, 0)
	var calls []vcenter.Call
	for i, method := range []string{"before", "first", "last", "after"} {
		calls = append(calls, vcenter.Call{Method: method, Start: at.Add(time.Duration(i) * time.Second)})
	}
	if got := begun(calls, at, at.Add(2*time.Second)); !slices.Equal(got, []string{"first", "last"}) {
		t.Errorf("begun = %v, want first and last", got)
	}
}

func TestStamp(t *testing.T) {
	if got, err := stamp([]byte("1000.000000007\n")); err != nil || !got.Equal(time.Unix(1000, 7)) {
		t.Errorf("stamp = %v, %v", got, err)
	}
	for _, bad := range []string{"", "1000", "1000.5\n", "x.000000000"} {
		if _, err := stamp([]byte(bad)); err == nil {
			t.Errorf("stamp(%q) is no error", bad)
		}
	}
}
