package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDiff says what differs in effect, whatever the files look like.
func TestDiff(t *testing.T) {
	jobs := "jobs:\n  - {name: a, select: {names: [x]}}\n  - {name: b, select: {names: [x]}}\n"
	for _, tc := range []struct{ name, before, after, want string }{
		{"nothing", base + jobs, "# other\n" + base + jobs, ""},
		{"the default written out", base, base + "window: {hold: 20s}\n", ""},
		{"other order", base + jobs, base + "jobs:\n  - {name: b, select: {names: [x]}}\n  - {name: a, select: {names: [x]}}\n", ""},
		{"value", base, base + "window: {hold: 15s}\n", "~ window.hold: 20s -> 15s\n"},
		{"list", base + jobs, base + strings.Replace(jobs, "[x]", "[x, y]", 1), "~ jobs[a].select.names: [\"x\"] -> [\"x\",\"y\"]\n"},
		{"added below", base + jobs, base + strings.Replace(jobs, "[x]}", "[x], tags: [y]}", 1), "+ jobs[a].select.tags: [\"y\"]\n"},
		{"job gone", base + jobs, base, "- jobs[a]\n- jobs[b]\n"},
		{"job renamed", base + jobs, base + strings.Replace(jobs, "name: a", "name: c", 1), "- jobs[a]\n+ jobs[c]\n"},
		{"restart of one limit", base, base + "limits: {vcenter: {runs: 40, window: 9}}\n", "~ limits.vcenter.runs: 20 -> 40 (needs a restart)\n~ limits.vcenter.window: 8 -> 9\n"},
		{"restart", base, base + "store: {state_dir: /srv}\nlog: {level: warn, format: json}\n", "~ log.format: auto -> json (needs a restart)\n~ log.level: info -> warn\n~ store.state_dir: /var/lib/stillframe -> /srv (needs a restart)\n"},
		{"reference", base, strings.Replace(base, "cred:vcenter-main", "store:vc", 1), "~ vcenters[main].password: cred:vcenter-main -> store:vc\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b strings.Builder
			for _, c := range Diff(loaded(t, tc.before), loaded(t, tc.after)) {
				b.WriteString(c.String() + "\n")
			}
			if d := cmp.Diff(tc.want, b.String()); d != "" {
				t.Errorf("it differs (-want +got):\n%s", d)
			}
			back := Diff(loaded(t, tc.after), loaded(t, tc.before))
			if want := strings.Count(tc.want, "\n"); len(back) != want {
				t.Errorf("the way back has %d changes, want %d", len(back), want)
			}
		})
	}
}
