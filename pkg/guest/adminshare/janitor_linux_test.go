package adminshare

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/lab/smb"
	"github.com/stillframe/stillframe/pkg/lab/svcctl"
)

// TestSweep takes away what lies in the guest for more than a day, and nothing that is anybody's.
func TestSweep(t *testing.T) {
	server, drive := serve(t, smb.Options{Kind: smb.Encrypted, OwnPipes: true})
	services := &svcctl.Table{}
	manager, err := svcctl.Start(svcctl.Options{Services: services}, server.Pipes())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := manager.Close(); err != nil {
			t.Error(err)
		}
	}()
	name := func(digit string) string { return strings.Repeat(digit, 32) }
	ages := map[string]time.Duration{
		name("0"):       0,                   // ours, of this run
		name("1"):       25 * time.Hour,      // left, with a service that has stopped
		name("2"):       23 * time.Hour,      // another orchestrator's
		name("3"):       25 * time.Hour,      // a long run's: its service runs
		name("4"):       25 * time.Hour,      // the persistent agent's, which is not running
		name("5"):       25 * time.Hour,      // left, without a service
		name("6"):       13 * 24 * time.Hour, // kept
		name("7"):       15 * 24 * time.Hour, // kept, and not used any more
		"persistent":    25 * time.Hour,
		"somebody-else": 25 * time.Hour,
	}
	for folder, age := range ages {
		dir := filepath.Join(drive, home, folder)
		at := time.Now().Add(-age)
		err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "stillframe-agent.exe"), nil, 0o600))
		if folder == name("6") || folder == name("7") {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, guest.KeptFile), nil, 0o600))
		}
		if err := errors.Join(err, os.Chtimes(dir, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	exe := func(digit string) string {
		return `"` + windows + home + `\` + name(digit) + `\stillframe-agent.exe" service -service`
	}
	err = errors.Join(
		services.Create("Stillframe-"+name("1"), "", exe("1")), services.Create("Stillframe-"+name("3"), "", exe("3")), services.Start("Stillframe-"+name("3")),
		services.Create("Stillframe-persistent", "", exe("4")), services.Create("Spooler", "", `C:\Windows\System32\spoolsv.exe`),
	)
	if err != nil {
		t.Fatal(err)
	}
	o := at(server, "Administrator")
	o.Start = guest.StartSCM
	a := New(o)
	defer a.drop(t.Context())
	gone, err := a.sweep(t.Context(), name("0"))
	slices.Sort(gone)
	if err != nil || !slices.Equal(gone, []string{name("1"), name("5"), name("7")}) {
		t.Errorf("sweep = %v, %v, want what is a leftover", gone, err)
	}
	var left []string
	entries, err := os.ReadDir(filepath.Join(drive, home))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{name("0"), name("2"), name("3"), name("4"), name("6"), "persistent", "somebody-else"}, left); diff != "" {
		t.Errorf("left in the guest (-want +got):\n%s", diff)
	}
	for service, there := range map[string]bool{"Stillframe-" + name("1"): false, "Stillframe-" + name("3"): true, "Stillframe-persistent": true, "Spooler": true} {
		if _, err := services.Query(service); (err == nil) != there {
			t.Errorf("the service %s is there: %t, want %t", service, err == nil, there)
		}
	}
	if gone, err := a.sweep(t.Context(), name("9")); err != nil || gone != nil {
		t.Errorf("sweep without a folder of our own = %v, %v, want nothing", gone, err)
	}
}
