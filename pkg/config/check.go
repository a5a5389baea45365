package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// checker looks for what no schema can say.
type checker struct {
	config   *Config
	src      *source
	problems []Problem
}

// told says whether something is wrong with a value or with what it stands in, which was told already.
func (k *checker) told(p pointer) bool {
	for n := range len(p) + 1 {
		if k.src.broken[p[:n].key()] {
			return true
		}
	}
	return false
}

// stands says whether a value is written anywhere.
func (s *source) stands(p pointer) bool {
	_, ok := s.at[p.key()]
	return ok
}

func (k *checker) refuse(code string, p pointer, message, hint string) {
	at := k.src.where(p, k.config.file)
	if i, err := strconv.Atoi(p.at(1)); err == nil && p[0] == "jobs" { // counted as its file does
		p = append(pointer{"jobs"}.index(i-k.src.firstJob[at.file]), p[2:]...)
	}
	k.problems = append(k.problems, at.problem(code, p, message, hint))
}

func (k *checker) warn(code string, p pointer, message, hint string) {
	k.refuse(code, p, message, hint)
	k.problems[len(k.problems)-1].Severity = Warning
}

func (k *checker) check() {
	k.checkVCenters()
	k.checkGuests()
	k.checkLimits()
	k.checkStore()
	k.checkListen()
	k.checkJobs()
	k.checkLattice()
}

// unique refuses a name that is taken, and says where. Names that differ in their case only would be taken for each other.
func (k *checker) unique(p pointer, name, what string, seen map[string]pointer) {
	folded := strings.ToLower(name)
	if name == "" || k.told(p) {
		return
	}
	if first, taken := seen[folded]; taken {
		at := k.src.where(first, k.config.file)
		k.refuse(codeReference, p, fmt.Sprintf("%s is the name of another %s, in %s:%d", word(name), what, at.file, at.line), "names differ in more than their case")
		return
	}
	seen[folded] = p
}

func (k *checker) checkVCenters() {
	names, hosts := map[string]pointer{}, map[string]pointer{}
	for i, v := range k.config.VCenters {
		at := pointer{"vcenters"}.index(i)
		if k.told(at) {
			continue
		}
		k.unique(at.child("name"), v.Name, "vCenter", names)
		if !k.told(at.child("url")) {
			k.checkURL(at.child("url"), v.URL, hosts)
		}
		set := 0
		for _, yes := range []bool{v.CA != "", v.Thumbprint != "", v.Insecure} {
			if yes {
				set++
			}
		}
		if set > 1 {
			k.refuse(codeConflict, at, "ca, thumbprint and insecure exclude each other", "keep one")
		}
		if v.Insecure {
			k.warn(codeRisk, at.child("insecure"), "any certificate is trusted, so that anybody between here and there can read the account's password", "use ca or thumbprint")
		}
		switch host := v.HostRoad != nil || k.told(at.child("host_road")); {
		case v.SnapshotRoad == RoadHost && !host:
			k.refuse(codeConflict, at.child("snapshot_road"), "the road host needs an account on the hosts", "add host_road with username and password")
		case v.SnapshotRoad == RoadAuto && !host:
			k.warn(codeRisk, at.child("snapshot_road"), "auto has only the road vcenter to choose from", "add host_road with username and password")
		}
	}
}

// checkURL never repeats the address: what is wrong with it may be a password in it.
func (k *checker) checkURL(p pointer, address string, hosts map[string]pointer) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		k.refuse(codeValue, p, "is not an address such as https://vcenter.example/sdk", "")
		return
	case u.User != nil || strings.Contains(u.Path, "@"):
		k.refuse(codeInline, p, "has an account in it", "put the account under username and password, and here only the address")
		return
	case u.RawQuery != "" || u.Fragment != "":
		k.refuse(codeValue, p, "has more after its path", "end it with /sdk")
		return
	}
	host := strings.ToLower(strings.TrimSuffix(u.Host, ":443"))
	if first, taken := hosts[host]; taken {
		at := k.src.where(first, k.config.file)
		k.refuse(codeReference, p, fmt.Sprintf("is the address of another vCenter, in %s:%d", at.file, at.line), "a vCenter stands here once")
		return
	}
	hosts[host] = p
}

func (k *checker) checkGuests() {
	g, at := k.config.Guests, pointer{"guests"}
	if k.told(at) {
		return
	}
	k.checkGuest(at.child("defaults"), g.Defaults)
	k.checkDialling(at, g)
	account := g.Defaults.Username != "" || g.Defaults.Road == roadPersistent || k.told(at.child("defaults")) || k.told(at.child("defaults").child("username"))
	for i, r := range g.Rules {
		p := at.child("rules").index(i)
		if k.told(p) {
			account = true
			continue
		}
		account = account || r.Username != "" || r.Road == roadPersistent
		k.checkGuest(p, r.Guest)
		k.checkSelection(p.child("match"), r.Match)
		if a, err := netip.ParseAddr(r.Address); r.Address != "" && !k.told(p.child("address")) &&
			(err != nil || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast()) {
			k.refuse(codeValue, p.child("address"), word(r.Address)+" is no IP address at which a guest can be reached", "write one such as 192.0.2.7")
		}
	}
	if !account && len(k.config.Jobs) > 0 {
		k.warn(codeRisk, at, "no account of any guest is given, so that no guest can be frozen", "add username and password under guests.defaults or a rule")
	}
}

const (
	// roadPersistent is the road that needs no account, channelReverse the channel that needs an address of ours.
	roadPersistent = "persistent"
	channelReverse = "reverse"
)

// checkDialling holds the addresses of agents that dial to what the channels ask for.
func (k *checker) checkDialling(at pointer, g Guests) {
	to := at.child("dial_to")
	if a, err := netip.ParseAddrPort(g.DialTo); g.DialTo != "" && !k.told(to) && (err != nil || a.Addr().IsUnspecified() || a.Port() == 0) {
		k.refuse(codeValue, to, word(g.DialTo)+" is no address and port at which guests reach the daemon", "write one such as 192.0.2.1:6466")
	}
	channels := []string{g.Defaults.Channel}
	for _, r := range g.Rules {
		channels = append(channels, r.Channel)
	}
	if g.DialTo == "" && !k.told(to) && slices.Contains(channels, channelReverse) {
		k.refuse(codeMissing, to, "is missing: agents are to dial the daemon", "say at which address and port guests reach it")
	}
}

func (k *checker) checkGuest(p pointer, g Guest) {
	if !g.WinRMHTTPS && (g.WinRMCA != "" || g.WinRMThumbprint != "") && !k.told(p) {
		k.refuse(codeValue, p, "winrm_ca and winrm_thumbprint are for https only", "add winrm_https: true, or leave them out")
	}
	name, password := p.child("username"), p.child("password")
	switch {
	case k.told(p) || k.told(name) || k.told(password):
	case g.Username != "" && g.Password == "":
		k.refuse(codeMissing, password, "is missing beside username", "say where the password is")
	case g.Password != "" && g.Username == "":
		k.refuse(codeMissing, name, "is missing beside password", "name the account")
	}
}

func (k *checker) checkLimits() {
	l, at := k.config.Limits, pointer{"limits"}
	for _, x := range []struct {
		of          string
		arm, window int
	}{
		{"vcenter", l.VCenter.Arm, l.VCenter.Window}, {"host", l.Host.Arm, l.Host.Window}, {"datastore", l.Datastore.Arm, l.Datastore.Window},
	} {
		arm, window := at.child(x.of).child("arm"), at.child(x.of).child("window")
		if x.arm < x.window && !k.told(arm) && !k.told(window) {
			p := arm
			if !k.src.stands(arm) {
				p = window
			}
			k.refuse(codeConflict, p, fmt.Sprintf("%s %d is less than %s %d: a guest is made ready before it is frozen", arm.dotted(), x.arm, window.dotted(), x.window), "raise arm, or lower window")
		}
	}
}

// leastKept is how long a run is remembered at least: what a schedule missed and what a person asks for in the morning is of
// the last day.
const leastKept = 24 * time.Hour

func (k *checker) checkStore() {
	s, dsn := k.config.Store, pointer{"store", "dsn"}
	if keep := (pointer{"store", "keep_runs"}); s.KeepRuns.Duration < leastKept && !k.told(keep) {
		k.refuse(codeValue, keep, fmt.Sprintf("%v is less than %v", s.KeepRuns, Duration{leastKept}), "runs are remembered for a day at least")
	}
	switch {
	case k.told(dsn) || k.told(pointer{"store", "kind"}):
	case s.Kind == "postgres" && s.DSN == "":
		k.refuse(codeMissing, dsn, "is missing beside kind: postgres", "say where the connection string is, such as cred:stillframe-dsn")
	case s.Kind == "sqlite" && s.DSN != "":
		k.refuse(codeConflict, dsn, "is for kind: postgres only", "take it out, or set kind: postgres")
	}
}

func (k *checker) checkListen() {
	l, at := k.config.Listen, pointer{"listen"}
	address, tls := at.child("address"), at.child("tls")
	if k.told(address) || k.told(tls) {
		return
	}
	if l.Address == "" {
		if l.TLS != nil {
			k.refuse(codeMissing, address, "is missing beside tls", "write host:port")
		}
		return
	}
	host, port, err := net.SplitHostPort(l.Address)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 {
		k.refuse(codeValue, address, word(l.Address)+" is not host:port", "write one such as 0.0.0.0:6464")
		return
	}
	ip, err := netip.ParseAddr(host)
	if local := err == nil && ip.IsLoopback() || host == "localhost"; local {
		return
	}
	if l.TLS == nil {
		k.refuse(codeConflict, address, "is not on loopback, and has no tls", "add tls with cert and key, or listen on 127.0.0.1")
	}
}

func (k *checker) checkJobs() {
	names := map[string]pointer{}
	for i, j := range k.config.Jobs {
		at := pointer{"jobs"}.index(i)
		if k.told(at) {
			continue
		}
		k.unique(at.child("name"), j.Name, "job", names)
		k.checkSelection(at.child("select"), j.Select.Selection)
		if x := j.Select.Exclude; x != nil {
			k.checkRules(at.child("select").child("exclude"), *x)
		}
		k.checkSchedule(at.child("schedule"), j.Schedule)
		k.checkWindows(at.child("windows"), j.Windows)
		k.checkWriters(at.child("writers"), j.Writers)
		k.checkMover(at.child("mover"), j.Mover)
		if j.Level == freezewindow.Application && k.config.Window.Mode == "writer" {
			k.warn(codeRisk, at.child("level"), "no Windows guest reaches application while window.mode is writer", "set window.mode to auto or io, or accept application-writer")
		}
	}
}

// checkSelection looks at rules and at the names of vCenters.
func (k *checker) checkSelection(at pointer, s Selection) {
	k.checkRules(at, s.Rules)
	if s.empty() && len(s.VCenters) > 0 && !k.toldBelow(at) {
		k.refuse(codeMissing, at, "has no rule beside vcenters, and so takes no VM", `for all VMs write names: ["*"]`)
	}
	known := make([]string, 0, len(k.config.VCenters))
	for i, v := range k.config.VCenters {
		p := pointer{"vcenters"}.index(i)
		if k.told(p.child("name")) { // perhaps this is the one that is meant
			return
		}
		known = append(known, v.Name)
	}
	if k.told(pointer{"vcenters"}) || k.told(at.child("vcenters")) {
		return
	}
	for i, name := range s.VCenters {
		p := at.child("vcenters").index(i)
		if !slices.Contains(known, name) && !k.told(p) {
			k.refuse(codeReference, p, "no vCenter of this file is called "+word(name), suggest(name, known))
		}
	}
}

// moref is how vCenter calls a VM for itself.
var moref = regexp.MustCompile(`^vm-[0-9]+$`)

// checkRules refuses what can match nothing, or something else one day.
func (k *checker) checkRules(at pointer, r Rules) {
	for i, vm := range r.VMs {
		if moref.MatchString(vm) {
			k.refuse(codeValue, at.child("vms").index(i), word(vm)+" is a moref, which vCenter gives to another VM one day", "write its instance UUID, path or name")
		}
	}
	for i, a := range r.CustomAttributes {
		if p := at.child("custom_attributes").index(i); strings.HasPrefix(a, "=") && !k.told(p) {
			k.refuse(codeValue, p, word(a)+" names no attribute", "write name=value, or the name alone")
		}
	}
}

// toldBelow says whether something is wrong with a value or with what lies in it.
func (k *checker) toldBelow(p pointer) bool {
	if k.told(p) {
		return true
	}
	for key := range k.src.broken {
		if strings.HasPrefix(key, p.key()+"\x00") {
			return true
		}
	}
	return false
}

func (k *checker) checkWriters(at pointer, w Writers) {
	seen := map[ClassID]pointer{}
	for _, list := range []struct {
		name string
		ids  []ClassID
	}{{"required", w.Required}, {"tolerated", w.Tolerated}, {"excluded", w.Excluded}} {
		for i, id := range list.ids {
			p := at.child(list.name).index(i)
			if id == "" || k.told(p) {
				continue
			}
			if first, twice := seen[id]; twice {
				k.refuse(codeConflict, p, fmt.Sprintf("the writer %s is named twice, first in %s", id, first.dotted()), "keep one")
				continue
			}
			seen[id] = p
		}
	}
}

// longKept is from when on a kept snapshot is worth a word: it slows the VM down and fills its datastore.
const longKept = 24 * time.Hour

func (k *checker) checkMover(at pointer, m Mover) {
	command := at.child("command")
	if k.told(at) || k.told(at.child("kind")) || k.told(command) {
		return
	}
	switch {
	case m.Kind == "exec" && len(m.Command) == 0:
		k.refuse(codeMissing, command, "is missing beside kind: exec", "write the program by its full path, then its arguments, as a list")
	case m.Kind == "none" && len(m.Command) > 0:
		k.refuse(codeConflict, command, "would never run, because kind is none", "set kind: exec, or take command out")
	case m.Kind == "exec" && !filepath.IsAbs(m.Command[0]):
		k.refuse(codeValue, command.index(0), word(m.Command[0])+" is not the full path of a program", "write one such as /usr/local/bin/mover; there is no shell and no PATH")
	}
	if m.KeepSnapshot.Duration > longKept && !k.told(at.child("keep_snapshot")) {
		k.warn(codeRisk, at.child("keep_snapshot"), fmt.Sprintf("snapshots are kept for %v: they grow, and slow their VM down", m.KeepSnapshot), "keep them for a day at most")
	}
}
