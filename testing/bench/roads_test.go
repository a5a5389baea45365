package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// entries are visits that differ by how long their start took, beside 100 ms of push and 10 ms of HELLO.
func entries(starts ...time.Duration) []visit {
	var all []visit
	for _, s := range starts {
		all = append(all, visit{push: 100 * time.Millisecond, start: s, hello: 10 * time.Millisecond})
	}
	return all
}

// TestRoadBars misses each bar once.
func TestRoadBars(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name                            string
		service, guestops, kept, stayed []visit
		rtts                            []time.Duration
		want                            string
	}{
		{"all met", entries(1390*ms, 900*ms, 9000*ms), entries(1391*ms, 1391*ms, 9000*ms), entries(1190 * ms), entries(90 * ms), []time.Duration{0, farthest}, ""},
		{"slow service", entries(1391*ms, 1391*ms, 900*ms), entries(9000 * ms), entries(900 * ms), entries(90 * ms), []time.Duration{farthest}, "its road adminshare+svcctl"},
		{"slow kept agent", entries(900 * ms), entries(1000 * ms), entries(1191 * ms), entries(90 * ms), []time.Duration{farthest}, "its road cached"},
		{"slow installed agent", entries(900 * ms), entries(1000 * ms), entries(900 * ms), entries(91 * ms), []time.Duration{farthest}, "its road persistent"},
		{"guest operations as fast", entries(900 * ms), entries(900 * ms), entries(900 * ms), entries(90 * ms), []time.Duration{farthest}, "1.00 times"},
		{"guest operations as fast beside vCenter", entries(900 * ms), entries(900 * ms), entries(900 * ms), entries(90 * ms), []time.Duration{0}, "nothing was measured at 50 ms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newRoadFigures(len(tc.service))
			for _, rtt := range tc.rtts {
				f.take(rtt, map[string][]visit{
					"adminshare+svcctl": tc.service, "adminshare+winrm": entries(ms), "guestops": tc.guestops, "cached": tc.kept, "persistent": tc.stayed,
				})
			}
			err := f.missed()
			if (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("missed = %v, want only %q", err, tc.want)
			}
		})
	}
}

// TestRoadTimes wants the median of the sums: each run's own push, start and HELLO belong together.
func TestRoadTimes(t *testing.T) {
	got := timesOf([]visit{
		{push: time.Millisecond, start: 9 * time.Millisecond, cleanup: 3 * time.Millisecond},
		{push: 9 * time.Millisecond, start: time.Millisecond, overhead: 2 * time.Millisecond},
		{push: 4 * time.Millisecond, start: 4 * time.Millisecond, freeze: 5 * time.Millisecond},
	})
	want := roadTimes{
		PushMS: spread{4, 9}, StartMS: spread{4, 9}, EntryMS: spread{10, 10}, CleanupMS: spread{0, 3}, OverheadMS: spread{0, 2}, FreezeMS: spread{0, 5},
	}
	if got != want {
		t.Errorf("times = %+v, want %+v", got, want)
	}
}

// TestRoadsShown wants all roads in one row and the ratio, on paper and in the file.
func TestRoadsShown(t *testing.T) {
	f := newRoadFigures(1)
	f.take(farthest, map[string][]visit{
		"adminshare+svcctl": entries(890 * time.Millisecond), "adminshare+winrm": entries(1390 * time.Millisecond),
		"guestops": entries(2390 * time.Millisecond), "cached": entries(390 * time.Millisecond), "persistent": entries(0),
	})
	var shown bytes.Buffer
	if err := showRoads(&shown, f); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "roads.json")
	if err := writeJSON(path, f); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var read roadFigures
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if got := read.RoundTrips[0].Ratios["guestops"]; got != 2.5 {
		t.Errorf("the ratio of guest operations = %v, want 2.5", got)
	}
	words := strings.Join(strings.Fields(shown.String()), " ")
	for _, want := range []string{
		"together 1000.0 (1000.0) 1500.0 (1500.0) 2500.0 (2500.0) 500.0 (500.0) 110.0 (110.0) ",
		"1.00 times 1.50 times 2.50 times 0.50 times 0.11 times ",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("shown are\n%s\nwithout %q", shown.String(), want)
		}
	}
}

// TestRoadsLeftOut wants a machine without Samba or Wine to be told of, and no figures of an earlier run to stay.
func TestRoadsLeftOut(t *testing.T) {
	lacking := func(context.Context) error { return errors.New("no smbd here") }
	for _, tc := range []struct {
		part, shown, wrong string
	}{
		{"all", "left out: ", ""},
		{"roads", "", "no smbd here"},
	} {
		t.Run(tc.part, func(t *testing.T) {
			o := options{out: t.TempDir(), part: tc.part, roads: 1}
			path := filepath.Join(o.out, "roads.json")
			if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			var shown bytes.Buffer
			missed, err := roadsOf(t.Context(), o, lacking, &shown)
			if missed != nil || (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
				t.Errorf("roadsOf = %v, %v, want %q", missed, err, tc.wrong)
			}
			if !strings.Contains(shown.String(), tc.shown) || tc.shown == "" && shown.Len() > 0 {
				t.Errorf("shown is %q, want %q", shown.String(), tc.shown)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the figures of an earlier run: %v", err)
			}
		})
	}
}
