package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

func TestSelfTestReport(t *testing.T) {
	var s selfTest
	for _, c := range []struct {
		status int
		err    error
		want   int
	}{{7, nil, 0}, {7, errors.New("two\nlines"), 7}, {1, errors.New("later"), 7}} {
		s.run("c", c.status, func() (string, error) { return "fine", c.err })
		if s.Status != c.want {
			t.Errorf("status = %d, want %d", s.Status, c.want)
		}
	}
	for i := range s.Checks {
		s.Checks[i].Seconds = 0
	}
	var out bytes.Buffer
	if err := s.print(&out, false); err != nil {
		t.Fatal(err)
	}
	if want := "ok   c: fine (0.000 s)\nFAIL c: two lines (0.000 s)\nFAIL c: later (0.000 s)\n"; out.String() != want {
		t.Errorf("print = %q, want %q", &out, want)
	}
}

func TestFit(t *testing.T) {
	const filtered = `the token of LAB\svc (RID 500: false) is not elevated, its integrity is medium: it is no administrator's, or UAC filters it (KB1680)`
	if _, err := fitToken(token{User: `LAB\svc`, Integrity: "medium"}); err == nil || err.Error() != filtered {
		t.Errorf("fitToken of a filtered token = %v", err)
	}
	if got, err := fitToken(token{User: `LAB\svc`, Elevated: true, Integrity: "high"}); err != nil || got != `LAB\svc, integrity high` {
		t.Errorf("fitToken of an administrator's token = %q, %v", got, err)
	}
	if _, err := fitServices([]serviceState{{"VSS", "manual", "stopped"}, {"swprv", "disabled", "stopped"}}); err == nil {
		t.Error("a disabled service is fit")
	}
	if got, err := fitVolumes([]protocol.Volume{{Why: "FAT"}, {Supported: true}}); err != nil || got != "1 of 2 volumes can be frozen" {
		t.Errorf("fitVolumes = %q, %v", got, err)
	}
	if _, err := fitVolumes([]protocol.Volume{{Why: "FAT"}}); err == nil {
		t.Error("no volume is fit")
	}
}
