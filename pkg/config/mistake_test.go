package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMistakes holds each kind of mistake to its words and its place. Line 8 is the first after base.
func TestMistakes(t *testing.T) {
	job := "jobs:\n  - name: j\n    select: {names: [\"*\"]}\n"
	for _, tc := range []struct{ name, text, want string }{
		{"nothing wrong", base, ""},
		{"runs forgotten at once", base + "store: {keep_runs: 23h59m}\n", "c.yaml:8:20: store.keep_runs: 23h59m0s is less than 24h0m0s; runs are remembered for a day at least (SF1204)\n"},
		{"unknown key", base + "windw: {hold: 10s}\n", "c.yaml:8:1: windw: there is no such key; did you mean window? (SF1203)\n"},
		{"unknown key far from any", base + "zzzzzzzz: 1\n", "c.yaml:8:1: zzzzzzzz: there is no such key (SF1203)\n"},
		{"neighbours swapped", base + "window: {hodl: 10s}\n", "c.yaml:8:10: window.hodl: there is no such key; did you mean hold? (SF1203)\n"},
		{"missing", "vcenters:\n  - name: main\n    url: https://v/sdk\n    username: u\n", "c.yaml:2:5: vcenters[0].password: is missing; Where the account's password is (SF1205)\n"},
		{"all missing", "{}\n", "c.yaml:1:1: vcenters: is missing; The vCenters, or single ESXi hosts, whose VMs are taken (SF1205)\n"},
		{"no mapping", "- a\n", "c.yaml:1:1: wants keys below it, got a list (SF1204)\n"},
		{"a word", "stillframe\n", "c.yaml:1:1: wants keys below it, got a text (SF1204)\n"},
		{"number without unit", base + "window:\n  hold: 20\n", "c.yaml:9:9: window.hold: wants a text, got a number; write a duration with its unit, such as 500ms, 20s, 10m or 1h30m (SF1204)\n"},
		{"list wanted", base + "jobs:\n  - name: j\n    select: {names: db-*}\n", "c.yaml:10:21: jobs[0].select.names: wants a list, got a text; write it as a list: [it] (SF1204)\n"},
		{"truth wanted", base + "metrics: {per_vm: no}\n", "c.yaml:8:19: metrics.per_vm: wants true or false, got a text (SF1204)\n"},
		{"fraction", base + "limits: {guest_logons: 1.5}\n", "c.yaml:8:24: limits.guest_logons: wants a whole number, got a number (SF1204)\n"},
		{"too small", base + "limits: {guest_logons: 0}\n", "c.yaml:8:24: limits.guest_logons: 0 is less than 1 (SF1204)\n"},
		{"none of", base + "log: {level: wran}\n", "c.yaml:8:14: log.level: \"wran\" is none of debug, info, warn, error; did you mean warn? (SF1204)\n"},
		{"no value", base + "window:\nlog: {level: info}\n", "c.yaml:8:8: window: has no value; give one, or leave the key out (SF1204)\n"},
		{"empty list", "vcenters: []\n", "c.yaml:1:11: vcenters: is empty (SF1204)\n"},
		{"empty text", base + "listen: {address: \"\"}\n", "c.yaml:8:19: listen.address: is empty (SF1204)\n"},
		{"relative path", base + "listen: {socket: api.sock}\n", "c.yaml:8:18: listen.socket: \"api.sock\" is not a path from the root, such as /etc/stillframe/ca.pem (SF1204)\n"},
		{
			"octal, hexadecimal, with _", base + "limits:\n  guest_logons: 010\n  host: {arm: 0x10, window: 1_0}\n",
			"c.yaml:9:17: limits.guest_logons: is a number that YAML reads in its own way (octal, hexadecimal, or with _); put it into quotes if it is a name, or write it in plain digits (SF1204)\n" +
				"c.yaml:10:15: limits.host.arm: is a number that YAML reads in its own way (octal, hexadecimal, or with _); put it into quotes if it is a name, or write it in plain digits (SF1204)\n" +
				"c.yaml:10:29: limits.host.window: is a number that YAML reads in its own way (octal, hexadecimal, or with _); put it into quotes if it is a name, or write it in plain digits (SF1204)\n",
		},
		{"twice", base + "log: {level: info}\nmetrics: {per_vm: true}\nlog: {level: warn}\n", "c.yaml:10:1: log: is there twice, first in line 8; keep one of them (SF1202)\n"},
		{
			"vCenter twice", base + "  rules: []\nvcenters: []\n",
			"c.yaml:9:1: vcenters: is there twice, first in line 1; keep one of them (SF1202)\n",
		},
		{"word twice", base + "jobs:\n  - name: j\n    select: {names: [a, b, a]}\n", "c.yaml:10:28: jobs[0].select.names[2]: is there twice (SF1204)\n"},
		{"empty selection", base + "jobs:\n  - name: j\n    select: {}\n", "c.yaml:10:13: jobs[0].select: is empty (SF1204)\n"},
		{
			"name twice", base + "jobs:\n  - {name: j, select: {names: [a]}}\n  - {name: J, select: {names: [a]}}\n",
			"c.yaml:10:12: jobs[1].name: \"J\" is the name of another job, in c.yaml:9; names differ in more than their case (SF1209)\n",
		},
		{
			"vCenter with the same address", base[:strings.Index(base, "guests")] + "  - {name: b, url: \"https://VCENTER.example:443/sdk\", username: u, password: \"env:P\"}\n",
			"c.yaml:6:20: vcenters[1].url: is the address of another vCenter, in c.yaml:3; a vCenter stands here once (SF1209)\n",
		},
		{"moref", base + "jobs:\n  - name: j\n    select: {vms: [a, vm-42]}\n", "c.yaml:10:23: jobs[0].select.vms[1]: \"vm-42\" is a moref, which vCenter gives to another VM one day; write its instance UUID, path or name (SF1204)\n"},
		{"attribute without name", base + "jobs:\n  - name: j\n    select: {names: [a], exclude: {custom_attributes: [\"=x\"]}}\n", "c.yaml:10:56: jobs[0].select.exclude.custom_attributes[0]: \"=x\" names no attribute; write name=value, or the name alone (SF1204)\n"},
		{"vCenter alone", base + "jobs:\n  - name: j\n    select: {vcenters: [main]}\n", "c.yaml:10:13: jobs[0].select: has no rule beside vcenters, and so takes no VM; for all VMs write names: [\"*\"] (SF1205)\n"},
		{"vCenter of a rule", base + "  rules:\n    - match: {vcenters: [man], names: [x]}\n", "c.yaml:9:26: guests.rules[0].match.vcenters[0]: no vCenter of this file is called \"man\"; did you mean main? (SF1209)\n"},
		{"where agents dial", base + "  dial_to: db01\n", "c.yaml:8:12: guests.dial_to: \"db01\" is no address and port at which guests reach the daemon; write one such as 192.0.2.1:6466 (SF1204)\n"},
		{"reverse without it", base + "  rules:\n    - {match: {names: [a]}, channel: reverse}\n", "c.yaml:7:3: guests.dial_to: is missing: agents are to dial the daemon; say at which address and port guests reach it (SF1205)\n"},
		{"trust without https", base + "  rules:\n    - {match: {names: [a]}, winrm_thumbprint: ab}\n", "c.yaml:9:7: guests.rules[0]: winrm_ca and winrm_thumbprint are for https only; add winrm_https: true, or leave them out (SF1204)\n"},
		{"address of a guest", base + "  rules:\n    - {match: {names: [a]}, address: db01}\n", "c.yaml:9:38: guests.rules[0].address: \"db01\" is no IP address at which a guest can be reached; write one such as 192.0.2.7 (SF1204)\n"},
		{"account without password", base + "  rules:\n    - {match: {names: [a]}, username: u}\n", "c.yaml:9:7: guests.rules[0].password: is missing beside username; say where the password is (SF1205)\n"},
		{"no account", base[:strings.Index(base, "guests")] + job, "c.yaml:1:1: warning: guests: no account of any guest is given, so that no guest can be frozen; add username and password under guests.defaults or a rule (SF1211)\n"},
		{"two trusts", strings.Replace(base, "    username: stillframe\n", "    username: stillframe\n    ca: /ca.pem\n    thumbprint: "+strings.Repeat("0a:", 19)+"0a\n", 1), "c.yaml:2:5: vcenters[0]: ca, thumbprint and insecure exclude each other; keep one (SF1210)\n"},
		{"road without account", strings.Replace(base, "guests", "    snapshot_road: host\nguests", 1), "c.yaml:6:20: vcenters[0].snapshot_road: the road host needs an account on the hosts; add host_road with username and password (SF1210)\n"},
		{"road without choice", strings.Replace(base, "guests", "    snapshot_road: auto\nguests", 1), "c.yaml:6:20: warning: vcenters[0].snapshot_road: auto has only the road vcenter to choose from; add host_road with username and password (SF1211)\n"},
		{"any certificate", strings.Replace(base, "guests", "    insecure: true\nguests", 1), "c.yaml:6:15: warning: vcenters[0].insecure: any certificate is trusted, so that anybody between here and there can read the account's password; use ca or thumbprint (SF1211)\n"},
		{"plain http", strings.Replace(base, "https", "http", 1), "c.yaml:3:10: vcenters[0].url: is not an address such as https://vcenter.example/sdk (SF1204)\n"},
		{"query", strings.Replace(base, "/sdk", "/sdk?a=b", 1), "c.yaml:3:10: vcenters[0].url: has more after its path; end it with /sdk (SF1204)\n"},
		{"more frozen than ready", base + "limits: {host: {arm: 2}}\n", "c.yaml:8:22: limits.host.arm: limits.host.arm 2 is less than limits.host.window 4: a guest is made ready before it is frozen; raise arm, or lower window (SF1210)\n"},
		{"postgres without dsn", base + "store: {kind: postgres}\n", "c.yaml:8:8: store.dsn: is missing beside kind: postgres; say where the connection string is, such as cred:stillframe-dsn (SF1205)\n"},
		{"sqlite with dsn", base + "store: {dsn: \"cred:dsn\"}\n", "c.yaml:8:14: store.dsn: is for kind: postgres only; take it out, or set kind: postgres (SF1210)\n"},
		{
			"open listener", base + "listen: {address: \"0.0.0.0:6464\"}\n",
			"c.yaml:8:19: listen.address: is not on loopback, and has no tls; add tls with cert and key, or listen on 127.0.0.1 (SF1210)\n",
		},
		{"no port", base + "listen: {address: \"127.0.0.1\"}\n", "c.yaml:8:19: listen.address: \"127.0.0.1\" is not host:port; write one such as 0.0.0.0:6464 (SF1204)\n"},
		{"loopback", base + "listen: {address: \"[::1]:6464\"}\n", ""},
		{"certificate for nobody", base + "listen: {tls: {cert: /c.pem, key: \"cred:k\"}}\n", "c.yaml:8:9: listen.address: is missing beside tls; write host:port (SF1205)\n"},
		{"zone", base + job + "    schedule: {cron: \"0 3 * * *\", zone: Mars/Olympus}\n", "c.yaml:11:41: jobs[0].schedule.zone: \"Mars/Olympus\": "},
		{
			"zone and cron", base + job + "    schedule: {cron: \"0 3 * *\", zone: Europe/Berln}\n",
			"c.yaml:11:22: jobs[0].schedule.cron: \"0 3 * *\": has 4 fields instead of 5; ",
		},
		{"cron that never comes", base + job + "    schedule: {cron: \"0 3 30 2 *\"}\n", "c.yaml:11:22: jobs[0].schedule.cron: \"0 3 30 2 *\": never fires"},
		{"month", base + job + "    schedule: {monthly: fifth friday at 02:30}\n", "c.yaml:11:25: jobs[0].schedule.monthly: \"fifth friday at 02:30\": "},
		{"two times", base + job + "    schedule: {cron: \"0 3 * * *\", monthly: last day at 02:30}\n", "c.yaml:11:44: jobs[0].schedule.monthly: stands beside cron; keep one of them; two times make two jobs (SF1210)\n"},
		{"no time", base + job + "    schedule: {jitter: 1m}\n", "c.yaml:11:15: jobs[0].schedule.cron: is missing; write cron: \"30 2 * * *\", or monthly; without schedule the job runs by hand only (SF1205)\n"},
		{"window without length", base + job + "    windows: [{start: \"02:00\", end: \"02:00\"}]\n", "c.yaml:11:37: jobs[0].windows[0].end: \"02:00\": is the start; write 00:00 to 24:00 for whole days (SF1922)\n"},
		{"whole days", base + job + "    windows: [{start: \"00:00\", end: \"24:00\", weekdays: [mon-fri, sunday]}]\n", ""},
		{"days", base + job + "    windows: [{start: \"00:00\", end: \"24:00\", weekdays: [mon-fri, son]}]\n", "c.yaml:11:56: jobs[0].windows[0].weekdays: \"son\": is neither a day of the week nor a range of days; write days such as \"mon\", \"saturday\" or \"mon-fri\" (SF1922)\n"},
		{"catch-up", base + job + "    schedule: {cron: \"0 3 * * *\", max_catchup: 1000h}\n", "c.yaml:11:48: jobs[0].schedule.max_catchup: \"1000h0m0s\": is not between"},
		{"time of day", base + job + "    windows: [{start: \"2:00\", end: \"24:30\"}]\n", "c.yaml:11:23: jobs[0].windows[0].start: \"2:00\" is not a time of day, such as \"02:30\" (SF1204)\nc.yaml:11:36: jobs[0].windows[0].end: \"24:30\" is not a time of day, such as \"02:30\" (SF1204)\n"},
		{"zone of a window", base + job + "    windows: [{start: \"02:00\", end: \"03:00\", zone: Local}]\n", "c.yaml:11:52: jobs[0].windows[0].zone: \"Local\": "},
		{
			"writer twice", base + job + "    writers:\n      required: [76FE1AC4-15F7-4BCD-987E-8E1ACB462FB7]\n      excluded: [\"{76fe1ac4-15f7-4bcd-987e-8e1acb462fb7}\"]\n",
			"c.yaml:13:18: jobs[0].writers.excluded[0]: the writer 76fe1ac4-15f7-4bcd-987e-8e1acb462fb7 is named twice, first in jobs[0].writers.required[0]; keep one (SF1210)\n",
		},
		{"command missing", base + job + "    mover: {kind: exec}\n", "c.yaml:11:12: jobs[0].mover.command: is missing beside kind: exec; write the program by its full path, then its arguments, as a list (SF1205)\n"},
		{"command unused", base + job + "    mover: {command: [/bin/true]}\n", "c.yaml:11:22: jobs[0].mover.command: would never run, because kind is none; set kind: exec, or take command out (SF1210)\n"},
		{"command without path", base + job + "    mover: {kind: exec, command: [rsync, -a]}\n", "c.yaml:11:35: jobs[0].mover.command[0]: \"rsync\" is not the full path of a program; write one such as /usr/local/bin/mover; there is no shell and no PATH (SF1204)\n"},
		{"kept long", base + job + "    mover: {keep_snapshot: 100h}\n", "c.yaml:11:28: warning: jobs[0].mover.keep_snapshot: snapshots are kept for 100h0m0s: they grow, and slow their VM down; keep them for a day at most (SF1211)\n"},
		{"level out of reach", base + "window: {mode: writer}\n" + job + "    level: application\n", "c.yaml:12:12: warning: jobs[0].level: no Windows guest reaches application while window.mode is writer; set window.mode to auto or io, or accept application-writer (SF1211)\n"},
		{"gate", base + job + "    postpone: [cpu]\n", "c.yaml:11:16: jobs[0].postpone[0]: \"cpu\" is none of guest_uptime, cpu_ready, host_load, datastore_latency, stun, vcenter_host (SF1204)\n"},
		{"a refused name is not searched for", strings.Replace(base, "name: main", "name: -main-", 1) + "jobs:\n  - {name: j, select: {vcenters: [other], names: [x]}}\n", "c.yaml:2:11: vcenters[0].name: \"-main-\" is not a name: letters, digits, dots, dashes and underscores, 63 at most, a letter or digit first (SF1204)\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, got := load(t, tc.text)
			whole := strings.HasSuffix(tc.want, "\n") || tc.want == ""
			if whole && got != tc.want || !strings.HasPrefix(got, tc.want) {
				t.Errorf("load says\n%s\n%s", got, cmp.Diff(tc.want, got))
			}
			if refused := strings.Contains(got, "c.yaml") && !strings.Contains(got, "warning: "); (c == nil) != refused {
				t.Errorf("the configuration is %v", c)
			}
		})
	}
}

// TestFiles is about several files: each is named, and a mistake in one does not hide those of another.
func TestFiles(t *testing.T) {
	dir := write(t, map[string]string{
		"c.yaml":                base + "jobs:\n  - {name: a, select: {names: [x]}}\nlgo: 1\n",
		"conf.d/10-more.yaml":   "jobs:\n  - {name: b, select: {names: [x]}, prority: 1}\n  - {name: A, select: {names: [x]}, schedule: {cron: \"0 0 31 4 *\"}}\n",
		"conf.d/20-broken.yaml": "jobs: [\n",
		"conf.d/30-else.yaml":   "window: {hold: 10s}\n",
		"conf.d/40.yml":         "jobs: []\n",
		"conf.d/.hidden.yaml":   "jobs: [\n",
		"conf.d/README":         "these are ours",
	})
	c, problems := Load(filepath.Join(dir, "c.yaml"))
	got := lines(dir, problems)
	for _, want := range []string{
		"c.yaml:10:1: lgo: there is no such key; did you mean log? (SF1203)\n",
		"conf.d/10-more.yaml:2:37: jobs[0].prority: there is no such key; did you mean priority? (SF1203)\n",
		"conf.d/10-more.yaml:3:12: jobs[1].name: \"A\" is the name of another job, in " + dir + "/c.yaml:9",
		"conf.d/10-more.yaml:3:54: jobs[1].schedule.cron: \"0 0 31 4 *\": never fires",
		"conf.d/20-broken.yaml:1:", "the file is no YAML",
		"conf.d/30-else.yaml:1:1: window: there is no such key (SF1203)\n",
		"conf.d/30-else.yaml:1:1: jobs: is missing",
		"conf.d/40.yml: warning: is not read, because its name does not end with .yaml (SF1211)\n",
	} {
		if !strings.Contains(strings.ReplaceAll(got, dir+"/", ""), strings.ReplaceAll(want, dir+"/", "")) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if c != nil || strings.Contains(got, "hidden") || strings.Contains(got, "README") {
		t.Errorf("problems:\n%s", got)
	}
}

// TestSecretsAreNotRepeated puts a password wherever one could land by mistake, and looks for it in all that is said.
func TestSecretsAreNotRepeated(t *testing.T) {
	const canary = "CANARY-7d1f"
	for name, text := range map[string]string{
		"plain":             strings.Replace(base, "cred:vcenter-main", canary, 1),
		"quoted":            strings.Replace(base, "cred:vcenter-main", `"`+canary+`"`, 1),
		"as a wrong kind":   strings.Replace(base, "cred:vcenter-main", "["+canary+"]", 1),
		"as a mapping":      strings.Replace(base, "cred:vcenter-main", "{a: "+canary+"}", 1),
		"in the address":    strings.Replace(base, "https://", "https://u:"+canary+"@", 1),
		"in a bad address":  strings.Replace(base, "https://", "https://u:"+canary+"%zz@", 1),
		"in the path":       strings.Replace(base, "/sdk", "/sdk/"+canary+"@x", 1),
		"after a tag":       strings.Replace(base, "cred:vcenter-main", "!secret "+canary, 1),
		"after a tab":       strings.Replace(base, "    password: cred", "\tpassword: "+canary+" cred", 1),
		"an alias":          strings.Replace(base, "cred:vcenter-main", "*"+canary, 1),
		"unclosed":          strings.Replace(base, "cred:vcenter-main", `"`+canary, 1),
		"with a colon":      strings.Replace(base, "cred:vcenter-main", canary+": x", 1),
		"with a bracket":    strings.Replace(base, "cred:vcenter-main", "["+canary, 1),
		"with a percent":    strings.Replace(base, "cred:vcenter-main", "%"+canary, 1),
		"with an at":        strings.Replace(base, "cred:vcenter-main", "@"+canary, 1),
		"with a backtick":   strings.Replace(base, "cred:vcenter-main", "`"+canary, 1),
		"under another key": strings.Replace(base, "password", "pasword", 1) + "log: {passphrase: " + canary + "}\n",
		"a connection":      base + "store: {kind: postgres, dsn: \"postgres://u:" + canary + "@h/d\"}\n",
		"a key":             base + "listen: {address: \"0.0.0.0:1\", tls: {cert: /c, key: " + canary + "}}\n",
		"a block":           strings.Replace(base, "cred:vcenter-main", "|\n      "+canary, 1),
		"unknown reference": strings.Replace(base, "cred:vcenter-main", "vault:"+canary, 1),
	} {
		t.Run(name, func(t *testing.T) {
			c, got := load(t, text)
			if c != nil || got == "" {
				t.Fatalf("it was taken over")
			}
			if strings.Contains(got, canary) {
				t.Errorf("it is repeated: %s", got)
			}
		})
	}
}
