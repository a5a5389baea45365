package main

import (
	"errors"
	"os"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/lab"
)

const installedExe = `C:\Program Files\Stillframe\stillframe-agent.exe`

// packaged has Wine's own Windows Installer install the package, update it and remove it again.
func (w *windows) packaged(own identityOf) {
	lab.Need(w.t, lab.Msitools)
	if out, err := w.Run(w.t.Context(), "reg", "add", `HKCU\Software\Wine\AppDefaults\msiexec.exe`, "/v", "Version", "/d", "win10", "/f"); err != nil {
		w.t.Fatalf("reg add: %v\n%s", err, out) // Wine says that it is Windows 7 otherwise, which the package refuses
	}
	install := func(version string, more ...string) {
		w.t.Helper()
		msi := makeMSI(w.t, w.Path(guestExe), version)
		if err := w.Install(msi, `C:\agent.msi`); err != nil {
			w.t.Fatal(err)
		}
		w.msiexec(append([]string{"/i", `C:\agent.msi`, "PEER=" + own.fingerprint.String(), "PORT=0"}, more...)...)
	}
	ready := func() *process {
		w.t.Helper()
		return w.processOf(w.await(persistentReady))
	}
	install("1.2.3", "ALLOW=127.0.0.1,10.0.0.5")
	p := ready()
	s, answer := w.greeted(p, own)
	if !answer.Persistent {
		w.t.Errorf("HELLO = %+v, want a persistent agent", answer)
	}
	rules, err := w.FirewallRules()
	if err != nil || len(rules) != 1 || !strings.Contains(rules[0], "\tremoteip=127.0.0.1,10.0.0.5\tprogram="+installedExe) {
		w.t.Errorf("the firewall has %q, %v, want one rule for both addresses", rules, err)
	}
	s.ask(&protocol.Abort{Reason: "test"}, protocol.WordAbort, protocol.WordAbort)

	// Windows has the old package removed so when it installs a newer one; Wine forgets to say that it is for an upgrade.
	w.msiexec("/x", `C:\agent.msi`, "UPGRADINGPRODUCTCODE={00000000-0000-0000-0000-000000000001}")
	for path, there := range map[string]bool{persistentReady: false, `C:\windows\Stillframe\persistent\identity`: true} {
		if _, err := os.Stat(w.Path(path)); (err == nil) != there {
			w.t.Errorf("in an update %s: %v, want it there: %t", path, err, there)
		}
	}
	install("1.2.4")
	if again := ready(); again.fingerprint != p.fingerprint {
		w.t.Error("an update changes the identity of the agent")
	}
	w.msiexec("/x", `C:\agent.msi`)
	for _, gone := range []string{installedExe, `C:\windows\Stillframe\persistent`} {
		if _, err := os.Stat(w.Path(gone)); !errors.Is(err, os.ErrNotExist) {
			w.t.Errorf("%s is left: %v", gone, err)
		}
	}
	if err := errors.Join(os.Remove(w.Path(`C:\agent.msi`))); err != nil {
		w.t.Error(err)
	}
}

// msiexec runs Windows Installer without a question.
func (w *windows) msiexec(args ...string) {
	w.t.Helper()
	cmd := w.Command(w.t.Context(), "msiexec", append(args, "/qn", "/l*v", `C:\msi.log`)...)
	cmd.Env = append(cmd.Env, w.command().Env...)
	if err := cmd.Run(); err != nil {
		text, readErr := os.ReadFile(w.Path(`C:\msi.log`))
		w.t.Fatalf("msiexec %q: %v, %v\n%s", args, err, readErr, strings.ReplaceAll(string(text), "\x00", ""))
	}
}
