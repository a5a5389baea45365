package main

import (
	"errors"
	"os"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// ruled demands the rules of the guest's firewall.
func (w *windows) ruled(when string, want ...string) {
	w.t.Helper()
	got, err := w.FirewallRules()
	if err != nil {
		w.t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("the firewall's rules %s (-want +got):\n%s", when, diff)
	}
}

// rule is the one of the service name for port.
func rule(name, port, from string) string {
	return strings.Join([]string{
		"name=" + name, "dir=in", "action=allow", "enable=yes", "profile=any", "protocol=TCP", "localport=" + port, "remoteip=" + from, "program=" + guestExe,
	}, "\t")
}

const foreignRule = "name=Other\tdir=in\taction=allow\tprogram=" + `C:\other.exe`

func (w *windows) firewall(own identityOf) {
	path := w.Path(`C:\lab\firewall`)
	if err := os.WriteFile(path, []byte(foreignRule+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Error(err)
		}
	}()
	port := func(p *process) string { return p.address[strings.LastIndex(p.address, ":")+1:] }
	detach := func(allow ...string) *process {
		w.t.Helper()
		return w.processOf(w.agent(exitOK, runArgs(own, append([]string{"--port", "0", "--detach"}, allow...)...)...))
	}
	end := func(p *process) {
		w.t.Helper()
		s, _ := w.greeted(p, own)
		s.ask(&protocol.Abort{Reason: "test"}, protocol.WordAbort, protocol.WordAbort)
		w.gone(p.readyFile)
		w.awaitNoService("Stillframe-d1")
	}

	p := detach()
	w.ruled("of an agent that was told of nobody", foreignRule)
	end(p)
	p = detach("--allow", "127.0.0.1", "--allow", "fd00::1")
	w.ruled("while the agent serves", foreignRule, rule("Stillframe-d1", port(p), "127.0.0.1,fd00::1"))
	end(p)
	w.ruled("when the agent has left", foreignRule)

	killed := strings.Join([]string{foreignRule, rule("Stillframe-d1", "1", "10.0.0.1"), rule("Stillframe-d2", "2", "10.0.0.1"), ""}, "\n")
	if err := os.WriteFile(path, []byte(killed), 0o600); err != nil {
		w.t.Fatal(err)
	}
	p = detach("--allow", "127.0.0.1")
	w.ruled("in place of one that a killed agent left", foreignRule, rule("Stillframe-d2", "2", "10.0.0.1"), rule("Stillframe-d1", port(p), "127.0.0.1"))
	w.agent(exitOK, "thaw")
	w.ruled("after thaw", foreignRule)
	w.awaitNoService("Stillframe-d1")

	const lost = "0123456789abcdef0123456789abcdef"
	if out, err := w.Run(w.t.Context(), "netsh", "advfirewall", "firewall", "add", "rule", "name=Stillframe-"+lost, "dir=in", "action=allow",
		"protocol=TCP", "localport=6465", `program=C:\Windows\Stillframe\`+lost+`\stillframe-agent.exe`); err != nil {
		w.t.Fatalf("netsh: %v\n%s", err, out)
	}
	p = detach("--allow", "127.0.0.1")
	w.ruled("of an agent, without the one of a program that is gone", foreignRule, rule("Stillframe-d1", port(p), "127.0.0.1"))
	end(p)

	old := "name=Stillframe-old\tdir=in\taction=allow\tprogram=" + `C:\old.exe`
	if err := os.WriteFile(path, []byte(foreignRule+"\n"+old+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if out, err := w.Run(w.t.Context(), "sc", "create", "Stillframe-old", "binPath=", `C:\old.exe service`, "start=", "demand"); err != nil {
		w.t.Fatalf("sc create: %v\n%s", err, out)
	}
	line := w.agent(exitOK, "install", "--peer", own.fingerprint.String(), "--port", "0", "--allow", "127.0.0.1")
	w.ruled("of an installed agent, without those of one that is gone", foreignRule,
		rule("Stillframe-persistent", readyOnWindows.FindStringSubmatch(line)[2], "127.0.0.1"))
	w.agent(exitOK, "uninstall")
	w.ruled("after uninstall", foreignRule)

	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil { // nothing can be written there
		w.t.Fatal(err)
	}
	p = detach("--allow", "127.0.0.1")
	end(p)
}
