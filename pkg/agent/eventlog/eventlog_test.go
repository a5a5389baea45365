package eventlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func golden(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parsed(t *testing.T, name string) Event {
	t.Helper()
	e, err := Parse(golden(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestParse(t *testing.T) {
	want := Event{
		Channel: "System", Provider: "volsnap", ID: 8, Record: 9, At: time.Date(2026, 3, 1, 2, 0, 12, 5e8, time.UTC),
		Data: []string{`\Device\HarddiskVolumeShadowCopy1`, "C: & <D:>", "", "&unknown;"},
	}
	if diff := cmp.Diff(want, parsed(t, "volsnap.xml")); diff != "" {
		t.Error(diff)
	}
	e := parsed(t, "12289.xml")
	if got, want := e.String(), "Application/VSS/12289 hr 0x80042409"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	for _, bad := range []string{
		"", "<Event>", "text", strings.Replace(golden(t, "volsnap.xml"), ">8<", ">eight<", 1),
		strings.Replace(golden(t, "volsnap.xml"), "2026-03-01T02", "yesterday", 1), strings.Repeat(" ", maxXML+1),
	} {
		if e, err := Parse(bad); err == nil {
			t.Errorf("Parse(%.40q) = %v", bad, e)
		}
	}
}

func TestLeaksByResultNotByText(t *testing.T) {
	e := parsed(t, "12289.xml")
	want := []Leak{{
		Known: true, Limit: 64, Completed: 8, Active: 64, Aborted: 0, Failed: 2, OldOperation: 1014,
		NewSet: "1ff4bafb-1cad-4364-8592-221443e14ef6", OldSet: "4d80892c-e1ff-4c94-842d-f0acb266c0ec",
		WriterClass: "b2014c9e-8711-4c5c-a5a9-3cf384484757",
	}}
	if diff := cmp.Diff(want, Leaks([]Event{e})); diff != "" {
		t.Error(diff)
	}
	other := e
	other.HR = 0x80070001 // a floppy drive: same id, same words
	elsewhere := e
	elsewhere.Provider = "ESE"
	if got := Leaks([]Event{other, elsewhere}); len(got) != 0 {
		t.Errorf("Leaks = %v, want none", got)
	}
	e.Data = []string{"0x80042409", "Active sessions: many"}
	if got := Leaks([]Event{e}); len(got) != 1 || got[0].Known {
		t.Errorf("Leaks without counters = %+v, want one that is not known", got)
	}
}

func TestWanted(t *testing.T) {
	for text, want := range map[string]bool{
		"Application/VSS/12289": true, "Application/VSS/8224": false, "System/VSS/12289": false, "Application/vss/8194": true,
		"Application/ESENT/2001": true, "Application/MSExchangeRepl/2025": true, "Application/MSSQL$PROD/3197": true,
		"Application/MSSQLSERVER/17137": false, "System/volsnap/8": true, "System/volsnap/36": false,
		"System/Microsoft-Windows-Ntfs/57": true, "System/Service Control Manager/7036": true, "System/Kernel-General/16": false,
	} {
		fields := strings.Split(text, "/")
		e := Event{Channel: fields[0], Provider: fields[1]}
		if _, err := fmt.Sscan(fields[2], &e.ID); err != nil {
			t.Fatal(err)
		}
		if got := wanted(e); got != want {
			t.Errorf("wanted(%s) = %v, want %v", text, got, want)
		}
	}
}

func TestWitness(t *testing.T) {
	begin := time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	sql := func(id int, database string, after time.Duration) Event {
		return Event{Channel: "Application", Provider: "MSSQLSERVER", ID: id, At: begin.Add(after), Data: []string{database}}
	}
	got := Witness([]Event{
		sql(sqlResumed, "stray", 0),
		sql(sqlFrozen, "sales", time.Second), sql(sqlFrozen, "model", time.Second), sql(sqlFrozen, "stuck", time.Second),
		sql(sqlResumed, "model", 2*time.Second), sql(sqlResumed, "sales", 2500*time.Millisecond),
		parsed(t, "volsnap.xml"),
		{Channel: "System", Provider: "volsnap", ID: volsnapFlush},
	})
	want := map[string]string{
		"volsnap_8": "1", "volsnap_9": "1", "sql_held_us/MSSQLSERVER/model": "1000000",
		"sql_held_us/MSSQLSERVER/sales": "1500000", "sql_held_us/MSSQLSERVER/stuck": "frozen",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestWitnessOfThisFreeze: what was logged of an earlier freeze says nothing about this one.
func TestWitnessOfThisFreeze(t *testing.T) {
	earlier := parsed(t, "volsnap.xml")
	now := earlier.At.Add(4 * time.Second)
	if got := Witness(Since([]Event{earlier}, now, 3*time.Second)); len(got) != 0 {
		t.Errorf("an event from before the freeze is a witness of it: %v", got)
	}
	if got := Witness(Since([]Event{earlier}, now, 4*time.Second)); len(got) != 1 {
		t.Errorf("an event of the freeze is no witness: %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(golden(f, "12289.xml"))
	f.Add(golden(f, "volsnap.xml"))
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		if e.Channel == "" || e.ID <= 0 || len(e.Data) > maxData {
			t.Errorf("Parse = %+v", e)
		}
		Leaks([]Event{e})
		Witness([]Event{e})
	})
}

func TestRows(t *testing.T) {
	e := parsed(t, "12289.xml")
	e.Data = []string{"a\r\n b", strings.Repeat("ä", maxText)}
	rows := Rows([]Event{e}, e.At.Add(time.Second))
	if len(rows) != 1 || rows[0].HR != "80042409" || rows[0].AgeUS != 1e6 || len(rows[0].Text) > maxText || !strings.HasPrefix(rows[0].Text, "a b ä") {
		t.Errorf("Rows = %+v", rows)
	}
}
