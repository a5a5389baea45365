package wine_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab/wine"
)

func TestGoProgramAndService(t *testing.T) {
	p := open(t, wine.Options{})
	installGuest(t, p)
	if out := run(t, p, guest); !strings.HasPrefix(out, "hello from ") {
		t.Errorf("a Go program says %q, want hello", out)
	}
	run(t, p, "sc", "create", "labguest", "binPath=", guest+" service")
	run(t, p, "sc", "start", "labguest")
	running, err := wine.Processes(dirOf(p))
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(running, "\n"); !strings.Contains(all, guest+" service") {
		t.Errorf("the service is not among the running:\n%s", all)
	}
	run(t, p, "sc", "stop", "labguest")
	run(t, p, "sc", "delete", "labguest")
}

func dirOf(p *wine.Prefix) string { return filepath.Dir(p.Path(`C:\`)) }

// Two Windows know nothing of each other, and the end of one is not the other's.
func TestTwoPrefixes(t *testing.T) {
	one, other := open(t, wine.Options{Drives: []string{"D"}}), open(t, wine.Options{})
	run(t, one, "reg", "add", `HKLM\Software\Lab`, "/v", "whose", "/d", "one")
	if out, err := other.Run(t.Context(), "reg", "query", `HKLM\Software\Lab`); err == nil {
		t.Errorf("the other's registry has the first one's key: %s", out)
	}
	if err := one.Write(`D:\one.txt`, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if out := run(t, one, "cmd", "/c", "type", `D:\one.txt`); out != "one" {
		t.Errorf("drive D: has %q, want one", out)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := wine.Processes(dirOf(one)); err != nil || len(left) > 0 {
		t.Errorf("left by the first: %v, %v", left, err)
	}
	if _, err := os.Stat(dirOf(one)); !os.IsNotExist(err) {
		t.Errorf("the first one's folder: %v, want it gone", err)
	}
	run(t, other, "reg", "add", `HKLM\Software\Lab`, "/v", "whose", "/d", "other")
}

// TestABI compares what mingw-w64's headers say with what is known of VSS from its documents.
func TestABI(t *testing.T) {
	p := open(t, wine.Options{})
	var abi struct {
		Pointer    int
		Interfaces map[string]struct {
			Origin, IID string
			Slots       map[string]int
		}
		Structs map[string]struct {
			Size    int
			Offsets map[string]int
		}
		Enums map[string]int
	}
	if err := json.Unmarshal([]byte(run(t, p, "abi.exe")), &abi); err != nil {
		t.Fatal(err)
	}
	if abi.Pointer != 8 {
		t.Errorf("pointers have %d bytes, want 8", abi.Pointer)
	}
	slots := map[string]map[string]int{
		"IVssBackupComponents":          {"InitializeForBackup": 5, "AddComponent": 13, "BackupComplete": 27, "DoSnapshotSet": 38, "DisableWriterClasses": 45},
		"IVssBackupComponentsEx3":       {"GetWriterStatusEx": 60, "GetSessionId": 63},
		"IVssAsync":                     {"Cancel": 3, "Wait": 4, "QueryStatus": 5},
		"IVssSoftwareSnapshotProvider":  {"SetContext": 3, "BeginPrepareSnapshot": 7, "QueryRevertStatus": 12},
		"IVssProviderCreateSnapshotSet": {"EndPrepareSnapshots": 3, "AbortSnapshots": 9},
		"IClassFactory":                 {"CreateInstance": 3, "LockServer": 4},
	}
	for name, methods := range slots {
		for method, want := range methods {
			if got, ok := abi.Interfaces[name].Slots[method]; !ok || got != want {
				t.Errorf("%s.%s is in slot %d (%v), want %d", name, method, got, ok, want)
			}
		}
	}
	if got := abi.Interfaces["IVssAdmin"].IID; got != "77ed5996-2f63-11d3-8a39-00c04f72d8e3" {
		t.Errorf("IVssAdmin is %s", got)
	}
	for name, want := range map[string]int{"VSS_COMPONENTINFO": 72, "VSS_SNAPSHOT_PROP": 128, "VSS_OBJECT_PROP": 136, "VSS_PROVIDER_PROP": 72} {
		if got := abi.Structs[name].Size; got != want {
			t.Errorf("%s has %d bytes, want %d", name, got, want)
		}
	}
	if got := abi.Enums["VSS_WS_FAILED_AT_BACKUPSHUTDOWN"]; got != 15 {
		t.Errorf("the last writer state is %d, want 15", got)
	}
}

func TestEventLog(t *testing.T) {
	p := open(t, wine.Options{})
	installGuest(t, p)
	event := func(channel, provider, id string) string {
		return "<Event><System><Provider Name='" + provider + "'/><EventID>" + id + "</EventID><Channel>" + channel + "</Channel></System></Event>"
	}
	mine := []string{event("Application", "VSS", "12289"), event("System", "volsnap", "8"), event("Application", "ESE", "2001"), event("Application", "MSSQLSERVER", "3197")}
	if err := p.AddEvents(mine...); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{mine[0], mine[2], mine[3]}, "\n") + "\n"
	if got := run(t, p, guest, "events", "Application"); got != want {
		t.Errorf("the Application log has\n%swant\n%s", got, want)
	}
}
