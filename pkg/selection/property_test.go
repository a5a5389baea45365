package selection

import (
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/inventory"
)

const seeds = 60

// random builds an estate and a selector whose rules hit, miss and collide.
type random struct{ *rand.Rand }

func (r random) word() string { return string([]byte{"abAB"[r.IntN(4)], "01"[r.IntN(2)]}) }

func (r random) some(n int, make func() string) []string {
	var all []string
	for range r.IntN(n + 1) {
		all = append(all, make())
	}
	return all
}

func (r random) estate() inventory.Estate {
	e := inventory.Estate{
		TagsRead: true, Attributes: []string{"a0", "b1"}, Folders: []string{"/D/vm"}, Clusters: []string{"/D/host/C0", "/E/host/C0", "/D/host/C1"},
		Pools: []string{"/D/host/C0/Resources"},
	}
	for range 6 {
		e.Folders = append(e.Folders, e.Folders[r.IntN(len(e.Folders))]+"/"+r.word())
		e.Pools = append(e.Pools, e.Pools[r.IntN(len(e.Pools))]+"/"+r.word())
		e.Tags = append(e.Tags, inventory.Tag{Category: r.word(), Name: r.word()})
	}
	slices.Sort(e.Folders)
	e.Folders = slices.Compact(e.Folders)
	for i := range 30 {
		m := vm(e.Folders[r.IntN(len(e.Folders))]+"/"+r.word()+r.word(), func(m *inventory.Member) {
			m.Moref, m.InstanceUUID = fmt.Sprintf("vm-%d", i), fmt.Sprintf("uuid-%d", i)
			m.Cluster, m.Pool, m.Template = e.Clusters[r.IntN(3)], e.Pools[r.IntN(len(e.Pools))], r.IntN(10) == 0
			m.Tags = []inventory.Tag{e.Tags[r.IntN(len(e.Tags))]}
			m.Attributes = map[string]string{e.Attributes[r.IntN(2)]: r.word()}
		})
		e.Members = append(e.Members, m)
	}
	return e
}

func (r random) rules(e inventory.Estate) Rules {
	of := func(paths []string) func() string {
		return func() string {
			p := paths[r.IntN(len(paths))]
			return []string{p, path.Base(p), strings.ToUpper(p), p + "x"}[r.IntN(4)]
		}
	}
	return Rules{
		Folders: r.some(2, of(e.Folders)), ResourcePools: r.some(1, of(e.Pools)), Clusters: r.some(1, of(e.Clusters)),
		Tags:             r.some(2, func() string { return []string{e.Tags[r.IntN(6)].String(), e.Tags[r.IntN(6)].Name, "none"}[r.IntN(3)] }),
		CustomAttributes: r.some(1, func() string { return []string{"a0", "b1=" + r.word(), "A0=a*", "c"}[r.IntN(4)] }),
		Names:            r.some(2, func() string { return []string{r.word() + "*", "*" + r.word(), "????", "zz*"}[r.IntN(4)] }),
		VMs: r.some(2, func() string {
			m := e.Members[r.IntN(30)]
			return []string{m.Name, m.Path, m.InstanceUUID, "nobody"}[r.IntN(4)]
		}),
	}
}

func uuids(choices []Choice) []string {
	all := []string{}
	for _, c := range choices {
		all = append(all, c.VM.InstanceUUID)
	}
	slices.Sort(all)
	return all
}

// alone says whether a rule alone matches the VM.
func alone(e inventory.Estate, r Rule, exclusion bool, uuid string) bool {
	w := newWorld(e)
	match := w.compileAll([]Rule{r}, exclusion)[0].match
	return slices.ContainsFunc(w.members, func(m member) bool { return m.uuid == uuid && match(m) })
}

// shuffled shuffles the texts of each kind.
func (r random) shuffled(rules Rules) Rules {
	for _, texts := range [][]string{rules.Folders, rules.Clusters, rules.ResourcePools, rules.Tags, rules.CustomAttributes, rules.Names, rules.VMs} {
		r.Shuffle(len(texts), func(i, j int) { texts[i], texts[j] = texts[j], texts[i] })
	}
	return rules
}

func without(all, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(drop, s) })
}

func TestProperties(t *testing.T) {
	for seed := range uint64(seeds) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		e := r.estate()
		s := Selector{Rules: r.rules(e), Exclude: r.rules(e)}
		got := Select(e, s, nil)
		taken := uuids(got.Taken)
		reasons(t, seed, e, s, got)

		// Each rule that does nothing is told exactly once, and no other.
		told := map[string]int{}
		for _, p := range got.Problems {
			told[fmt.Sprint(p.Exclusion, p.Rule)]++
		}
		for exclusion, rules := range map[bool][]Rule{false: s.List(), true: s.Exclude.List()} {
			for _, rule := range rules {
				hits := slices.ContainsFunc(e.Members, func(m inventory.Member) bool { return alone(e, rule, exclusion, m.InstanceUUID) })
				if n := told[fmt.Sprint(exclusion, rule)]; !hits && n == 0 || hits && !exclusion && n > 0 {
					t.Errorf("seed %d: rule %s (exclusion %v) hits %v, told %d times", seed, rule, exclusion, hits, n)
				}
			}
		}

		// The order of VMs and rules changes nothing.
		mixed := e
		mixed.Members = slices.Clone(e.Members)
		r.Shuffle(len(mixed.Members), func(i, j int) {
			mixed.Members[i], mixed.Members[j] = mixed.Members[j], mixed.Members[i]
		})
		again := Select(mixed, Selector{Rules: r.shuffled(s.Rules), Exclude: r.shuffled(s.Exclude)}, nil)
		if diff := cmp.Diff(taken, uuids(again.Taken)); diff != "" {
			t.Errorf("seed %d: another order takes others:\n%s", seed, diff)
		}

		// Another rule never loses a VM; another exclusion never wins one.
		more := s
		more.Names = append(slices.Clone(s.Names), "a*")
		if lost := without(taken, uuids(Select(e, more, nil).Taken)); len(lost) > 0 {
			t.Errorf("seed %d: one more rule loses %q", seed, lost)
		}
		less := s
		less.Exclude.Names = append(slices.Clone(s.Exclude.Names), "a*")
		if won := without(uuids(Select(e, less, nil).Taken), taken); len(won) > 0 {
			t.Errorf("seed %d: one more exclusion wins %q", seed, won)
		}
		since(t, seed, r, e, s, got)
		if t.Failed() {
			t.Logf("seed %d: %+v", seed, s)
			return
		}
	}
}

// reasons checks that every VM is where its own reason says.
func reasons(t *testing.T, seed uint64, e inventory.Estate, s Selector, got Result) {
	t.Helper()
	seen := map[string]bool{}
	for _, c := range slices.Concat(got.Taken, got.LeftOut) {
		id := c.VM.InstanceUUID
		if seen[id] {
			t.Errorf("seed %d: %s is there twice", seed, id)
		}
		seen[id] = true
		if !alone(e, c.By, false, id) {
			t.Errorf("seed %d: %s is taken by %s, which does not match it", seed, id, c.By)
		}
		out := slices.ContainsFunc(s.Exclude.List(), func(r Rule) bool { return alone(e, r, true, id) })
		if taken := c.Why == ""; taken == (out || c.VM.Template) {
			t.Errorf("seed %d: %s: taken %v, excluded %v, template %v", seed, id, taken, out, c.VM.Template)
		}
		if c.Not != (Rule{}) && !alone(e, c.Not, true, id) {
			t.Errorf("seed %d: %s is left out by %s, which does not match it", seed, id, c.Not)
		}
	}
	for _, m := range e.Members {
		if !seen[m.InstanceUUID] && slices.ContainsFunc(s.List(), func(r Rule) bool { return alone(e, r, false, m.InstanceUUID) }) {
			t.Errorf("seed %d: %s matches a rule and is nowhere", seed, m.InstanceUUID)
		}
	}
	if (got.Err() == nil) != (len(got.Taken) > 0) {
		t.Errorf("seed %d: %d taken, Err = %v", seed, len(got.Taken), got.Err())
	}
}

// since checks that what is new and what is lost is the difference to what was known.
func since(t *testing.T, seed uint64, r random, e inventory.Estate, s Selector, got Result) {
	t.Helper()
	known := got.Known()
	if again := Select(e, s, known); len(again.Lost) > 0 || slices.ContainsFunc(again.Taken, func(c Choice) bool { return c.New }) {
		t.Errorf("seed %d: the second time something is new or lost: %+v", seed, again.Lost)
	}
	changed := e
	changed.Members = slices.Clone(e.Members)
	gone := r.IntN(len(changed.Members))
	id := changed.Members[gone].InstanceUUID
	changed.Members[gone].InstanceUUID = "uuid-new"
	after := Select(changed, s, known)
	_, was := known[id]
	lost := slices.ContainsFunc(after.Lost, func(l Loss) bool { return l.InstanceUUID == id })
	fresh := slices.ContainsFunc(after.Taken, func(c Choice) bool { return c.New && c.VM.InstanceUUID == "uuid-new" })
	is := slices.Contains(uuids(after.Taken), "uuid-new")
	if was != lost || is != fresh {
		t.Errorf("seed %d: %s known %v lost %v, its successor taken %v new %v", seed, id, was, lost, is, fresh)
	}
}

// FuzzGlob holds glob to a regular expression.
func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"*", ""}, {"a*b", "aXbXb"}, {"?", "ü"}, {"**a", "ba"}, {"a.c", "abc"}, {"", "a"}, {"*?*", ""}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		expression := `(?s)^` + strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(string([]rune(pattern)))) + `$`
		want, err := regexp.MatchString(expression, string([]rune(text)))
		if err != nil {
			return // longer than regular expressions may be
		}
		if got := glob([]rune(pattern), text); got != want {
			t.Errorf("glob(%q, %q) = %v, want %v", pattern, text, got, want)
		}
	})
}

// BenchmarkSelect is one job of 40 on an estate of 20,000 VMs.
func BenchmarkSelect(b *testing.B) {
	e := inventory.Estate{TagsRead: true}
	for i := range 40 {
		e.Folders = append(e.Folders, fmt.Sprintf("/DC0/vm/team-%02d", i))
	}
	for i := range 20_000 {
		e.Members = append(e.Members, vm(fmt.Sprintf("%s/vm-%05d", e.Folders[i%40], i), nil))
	}
	s := Selector{
		Rules:   Rules{Folders: []string{"team-07"}, Names: []string{"vm-0000?"}},
		Exclude: Rules{Names: []string{"*-tmp"}, VMs: []string{"vm-00007"}},
	}
	known := Select(e, s, nil).Known()
	b.ReportAllocs()
	for b.Loop() {
		if r := Select(e, s, known); len(r.Taken) < 500 {
			b.Fatal(len(r.Taken))
		}
	}
}
