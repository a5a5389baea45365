package vss

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

var (
	exchange = com.MustGUID(vsscode.Exchange)
	sql      = com.MustGUID(vsscode.SQLServer)
	other    = com.MustGUID("11111111-2222-4333-8444-555555555555")
	instance = com.MustGUID("99999999-2222-4333-8444-555555555555")
)

const (
	volumeC = `\\?\Volume{0000000c-0000-0000-0000-000000000000}\`
	volumeD = `\\?\Volume{0000000d-0000-0000-0000-000000000000}\`
)

// codeOf is the catalogue's code of an error, "" for none.
func codeOf(err error) string {
	var c *agent.CodedError
	if errors.As(err, &c) {
		return c.Code
	}
	return ""
}

func TestRoles(t *testing.T) {
	job := policy{protocol.WriterPolicy{
		Required: []string{"somebody's writer"}, Tolerated: []string{"SqlServerWriter"}, Excluded: []string{"{76FE1AC4-15F7-4BCD-987E-8E1ACB462FB7}"},
	}}
	for _, c := range []struct {
		name  string
		p     policy
		class com.GUID
		named string
		want  role
	}{
		{"required by default", policy{}, exchange, "Microsoft Exchange Writer", required},
		{"tolerated by default", policy{}, other, "Somebody's Writer", tolerated},
		{"required by name", job, other, "Somebody's Writer", required},
		{"a default that is tolerated", job, sql, "SqlServerWriter", tolerated},
		{"excluded by class", job, exchange, "Microsoft Exchange Writer", excluded},
	} {
		if got := c.p.role(c.class, c.named); got != c.want {
			t.Errorf("%s: role %d, want %d", c.name, got, c.want)
		}
	}
}

func TestExcludedClasses(t *testing.T) {
	got, err := policy{protocol.WriterPolicy{Excluded: []string{"sqlserverwriter", other.Braced()}}}.classes()
	if d := cmp.Diff([]com.GUID{sql, other}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := (policy{protocol.WriterPolicy{Excluded: []string{"Nobody's Writer"}}}).classes(); codeOf(err) != codeNotReady {
		t.Errorf("an unknown name is excluded: %v", err)
	}
}

func TestMissing(t *testing.T) {
	p := policy{protocol.WriterPolicy{Required: []string{"SqlServerWriter", "Oracle VSS Writer"}}}
	got := p.missing([]writer{{class: sql, name: "SqlServerWriter"}})
	if d := cmp.Diff([]string{"Oracle VSS Writer"}, got); d != "" {
		t.Error(d)
	}
}

// locateByLetter stands for GetVolumePathName.
func locateByLetter(folder string) string {
	switch strings.ToUpper(folder[:2]) {
	case `C:`, `%S`:
		return volumeC
	case `D:`:
		return strings.ToUpper(volumeD)
	}
	return ""
}

func TestChoose(t *testing.T) {
	file := func(path, name string, selectable bool, folders ...string) component {
		return component{kind: vsscode.Database, path: path, name: name, selectable: selectable, folders: folders}
	}
	for _, c := range []struct {
		name       string
		class      com.GUID
		components []component
		set        []string
		added      []bool
		code       string
	}{
		{"selectable", sql, []component{file("LAB", "orders", true, `C:\SQL`)}, []string{volumeC}, []bool{true}, ""},
		{"comes along", exchange, []component{file("", "DB01", true, `C:\DB`), file("DB01", "Logs", false, `C:\Logs`)}, []string{volumeC}, []bool{true, false}, ""},
		{"comes along from elsewhere", exchange, []component{file("", "DB01", true, `C:\DB`), file("DB01", "Logs", false, `D:\Logs`)}, []string{volumeC}, nil, codeIncomplete},
		{"comes along, both volumes", exchange, []component{file("", "DB01", true, `C:\DB`), file("db01", "Logs", false, `D:\Logs`)}, []string{volumeC, volumeD}, []bool{true, false}, ""},
		{"not selectable, alone", other, []component{file("", "System Files", false, `%SystemRoot%`)}, []string{volumeC}, []bool{true}, ""},
		{"like a child by name only", other, []component{file("", "DB", true, `C:\1`), file("DB2", "x", false, `C:\2`)}, []string{volumeC}, []bool{true, true}, ""},
		{"required elsewhere", sql, []component{file("LAB", "orders", true, `D:\SQL`)}, []string{volumeC}, nil, codeIncomplete},
		{"required on no volume", sql, []component{file("LAB", "orders", true, `\\server\share`)}, []string{volumeC}, nil, codeIncomplete},
		{"tolerated elsewhere", other, []component{file("", "Things", true, `D:\`)}, []string{volumeC}, []bool{false}, ""},
		{"without files", other, []component{file("", "Nothing", true)}, []string{volumeC}, []bool{true}, ""},
	} {
		writers := []writer{{class: c.class, name: "W", components: c.components}}
		err := choose(writers, policy{}, c.set, locateByLetter)
		if codeOf(err) != c.code {
			t.Errorf("%s: %v, want %q", c.name, err, c.code)
		}
		for i, want := range c.added {
			if got := writers[0].components[i].added; got != want {
				t.Errorf("%s: component %d added %t, want %t", c.name, i, got, want)
			}
		}
	}
	writers := []writer{{class: exchange, name: "E", components: []component{file("", "DB", true, `E:\`)}}}
	if err := choose(writers, policy{protocol.WriterPolicy{Excluded: []string{"E"}}}, []string{volumeC}, locateByLetter); err != nil || writers[0].components[0].added {
		t.Errorf("an excluded writer: %v", err)
	}
}

func TestTable(t *testing.T) {
	writers := []writer{
		{class: sql, instance: instance, name: "SqlServerWriter", components: []component{
			{kind: vsscode.Database, name: "orders", selectable: true, added: true, volumes: []string{volumeC}}, {kind: vsscode.FileGroup, path: "orders", name: "log"},
		}},
		{class: other, instance: instance, name: "Somebody's Writer", components: []component{{name: "things", added: true}}},
		{class: exchange, name: "excluded"},
	}
	p := policy{protocol.WriterPolicy{Excluded: []string{"excluded"}}}
	all := []status{{class: sql, instance: instance, state: vsscode.WaitingForBackupComplete, application: 0x8badf00d, message: "but"}}
	want := []protocol.Writer{
		{
			Name: "SqlServerWriter", ClassID: sql.String(), InstanceID: instance.String(), State: 5, FailureHR: "00000000", AppHR: "8badf00d", AppMsg: "but", Required: true,
			Components: []protocol.Component{
				{Type: 1, Name: "orders", Selectable: true, OK: true, Volumes: []string{volumeC}}, {Type: 2, Path: "orders", Name: "log", OK: true},
			},
		},
		{
			Name: "Somebody's Writer", ClassID: other.String(), InstanceID: instance.String(), FailureHR: "80042319", AppHR: "00000000",
			Components: []protocol.Component{{Name: "things"}},
		},
	}
	if d := cmp.Diff(want, table(writers, all, p)); d != "" {
		t.Error(d)
	}
}

func TestReady(t *testing.T) {
	writers := []writer{{class: sql, instance: instance, name: "SqlServerWriter"}, {class: other, instance: instance, name: "Somebody's Writer"}}
	of := func(sqlState, otherState vsscode.WriterState, hr vsscode.HRESULT) []status {
		return []status{{class: sql, instance: instance, state: sqlState, failure: hr}, {class: other, instance: instance, state: otherState}}
	}
	for _, c := range []struct {
		name string
		all  []status
		code string
		lost bool
	}{
		{"well", of(vsscode.Stable, vsscode.Stable, 0), "", false},
		{"tolerated one failed", of(vsscode.Stable, vsscode.FailedAtFreeze, 0), "", false},
		{"required one failed", of(vsscode.FailedAtPrepareBackup, vsscode.Stable, vsscode.VSS_E_WRITERERROR_NONRETRYABLE), codeNotReady, false},
		{"required one silent", nil, codeNotReady, false},
		{"required one lost", of(vsscode.Stable, vsscode.Stable, vsscode.VSS_E_WRITER_STATUS_NOT_AVAILABLE), codeNotReady, true},
	} {
		err := ready(writers, c.all, policy{})
		if codeOf(err) != c.code || lost(writers, c.all, policy{}) != c.lost {
			t.Errorf("%s: %v, lost %t", c.name, err, lost(writers, c.all, policy{}))
		}
		if c.name == "required one failed" {
			for _, part := range []string{"SqlServerWriter", "failed at prepare backup", "800423f4"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name %s", err, part)
				}
			}
		}
	}
}
