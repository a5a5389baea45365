package selection

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// member is a VM with what rules compare in lower case.
type member struct {
	*inventory.Member
	name, uuid string
	path       address
}

// address is an inventory path as rules compare it: in lower case, as vCenter writes it and as people read it.
type address struct{ low, shown string }

func newAddress(path string) address {
	low := strings.ToLower(path)
	return address{low, display(low)}
}

// query is what a rule says of a path: the whole of it, or its end.
type query struct {
	path  string // with one slash in front
	whole bool
}

func newQuery(text string) query {
	return query{"/" + strings.Trim(text, "/"), strings.HasPrefix(text, "/")}
}

func (q query) fits(path string) bool {
	return path == q.path || !q.whole && strings.HasSuffix(path, q.path)
}

// fits is for a query in lower case.
func (a address) fits(q query) bool { return q.fits(a.low) || q.fits(a.shown) }

// matcher says whether one rule matches a VM.
type matcher func(member) bool

func never(member) bool { return false }

// world is the estate, ready to be asked.
type world struct {
	inventory.Estate
	members []member
	byUUID  map[string][]member
}

func newWorld(e inventory.Estate) *world {
	w := &world{Estate: e, members: make([]member, len(e.Members)), byUUID: make(map[string][]member, len(e.Members))}
	for i := range e.Members {
		m := &e.Members[i]
		w.members[i] = member{m, strings.ToLower(m.Name), strings.ToLower(m.InstanceUUID), newAddress(m.Path)}
		w.byUUID[w.members[i].uuid] = append(w.byUUID[w.members[i].uuid], w.members[i])
	}
	return w
}

// compile turns a rule into its matcher. What cannot be told apart matches nothing, or, for an exclusion, everything that
// it may mean: in doubt no VM is touched.
func (w *world) compile(r Rule, exclusion bool) (matcher, *Problem) {
	if strings.Trim(r.Text, " /") == "" {
		return never, &Problem{Rule: r, Exclusion: exclusion, What: Unknown, Text: "the rule is empty"}
	}
	switch r.Kind {
	case VM:
		return w.vm(r, exclusion)
	case Name:
		pattern := []rune(strings.ToLower(r.Text))
		return func(m member) bool { return glob(pattern, m.name) }, nil
	case Tag:
		return w.tag(r, exclusion)
	case CustomAttribute:
		return w.attribute(r, exclusion)
	case Folder:
		return w.place(r, exclusion, w.Folders, func(m member) string { return m.Folder })
	case ResourcePool:
		return w.place(r, exclusion, w.Pools, func(m member) string { return m.Pool })
	case Cluster:
		return w.place(r, exclusion, w.Clusters, func(m member) string { return m.Cluster })
	}
	panic(fmt.Sprintf("no kind of rule: %q", r.Kind))
}

// place matches VMs that lie in a folder, pool or cluster, or below it.
func (w *world) place(r Rule, exclusion bool, paths []string, of func(member) string) (matcher, *Problem) {
	found, problem := resolve(r, exclusion, paths)
	return func(m member) bool {
		return slices.ContainsFunc(found, func(path string) bool { return inside(of(m), path) })
	}, problem
}

// inside says whether path is top or lies below it.
func inside(path, top string) bool { return path == top || strings.HasPrefix(path, top+"/") }

// resolve finds the paths that a rule means.
func resolve(r Rule, exclusion bool, paths []string) ([]string, *Problem) {
	low, exact := newQuery(strings.ToLower(r.Text)), newQuery(r.Text)
	var found []string
	for _, path := range paths {
		if !slices.Contains(found, path) && newAddress(path).fits(low) {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		last := r.Text[strings.LastIndex(strings.TrimRight(r.Text, "/"), "/")+1:]
		names := make([]string, len(paths))
		for i, path := range paths {
			names[i] = base(path)
		}
		return nil, unknown(r, exclusion, inventory.Near(strings.Trim(last, "/"), names))
	}
	found = sameCase(found, exact.fits)
	return narrow(r, exclusion, found)
}

// sameCase drops what differs from the rule in case, if something does not.
func sameCase[T any](found []T, same func(T) bool) []T {
	if i := slices.IndexFunc(found, same); len(found) > 1 && i >= 0 {
		return slices.DeleteFunc(slices.Clone(found), func(t T) bool { return !same(t) })
	}
	return found
}

// narrow has a rule that means several things match none of them, or all of them for an exclusion.
func narrow(r Rule, exclusion bool, found []string) ([]string, *Problem) {
	if len(found) < 2 {
		return found, nil
	}
	slices.Sort(found)
	p := &Problem{Rule: r, Exclusion: exclusion, What: Ambiguous, Near: found}
	p.Text = fmt.Sprintf("it means any of %d: %s", len(found), list(found))
	if exclusion {
		return found, p
	}
	return nil, p
}

func base(path string) string { return display(path[strings.LastIndex(path, "/")+1:]) }

// display undoes the escaping (%2f, %5c, %25) of an inventory name.
func display(name string) string {
	if plain, err := url.PathUnescape(name); err == nil {
		return plain
	}
	return name
}

// vm matches one VM.
func (w *world) vm(r Rule, exclusion bool) (matcher, *Problem) {
	text := strings.ToLower(r.Text)
	low, exact := newQuery(text), newQuery(r.Text)
	found := w.byUUID[text]
	for _, m := range w.members {
		if len(w.byUUID[text]) == 0 && (m.name == text || m.path.fits(low)) {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		names := make([]string, len(w.members))
		for i, m := range w.members {
			names[i] = m.Name
		}
		return never, unknown(r, exclusion, inventory.Near(base(r.Text), names))
	}
	found = sameCase(found, func(m member) bool { return m.Name == r.Text || exact.fits(m.Path) })
	paths := make([]string, len(found))
	for i, m := range found {
		paths[i] = m.Path
	}
	left, problem := narrow(r, exclusion, paths)
	if len(left) == 0 {
		return never, problem
	}
	return func(m member) bool {
		return slices.ContainsFunc(found, func(f member) bool { return f.Member == m.Member })
	}, problem
}

// tag matches VMs that have a tag.
func (w *world) tag(r Rule, exclusion bool) (matcher, *Problem) {
	is := func(t inventory.Tag, text string, change func(string) string) bool {
		name, category := change(t.Name), change(t.Category)
		return text == name || text == category+"/"+name || text == category+":"+name
	}
	low := strings.ToLower(r.Text)
	var found []inventory.Tag
	var names []string
	for _, t := range w.Tags {
		if is(t, low, strings.ToLower) {
			found = append(found, t)
		}
		names = append(names, t.Name, t.String())
	}
	if len(found) == 0 {
		return never, unknown(r, exclusion, inventory.Near(r.Text, names))
	}
	found = sameCase(found, func(t inventory.Tag) bool { return is(t, r.Text, strings.Clone) })
	texts := make([]string, len(found))
	for i, t := range found {
		texts[i] = t.String()
	}
	left, problem := narrow(r, exclusion, texts)
	if len(left) == 0 {
		return never, problem
	}
	return func(m member) bool {
		return slices.ContainsFunc(m.Tags, func(t inventory.Tag) bool { return slices.Contains(found, t) })
	}, problem
}

// attribute matches VMs by a custom attribute. Attributes whose names differ only in case are taken together.
func (w *world) attribute(r Rule, exclusion bool) (matcher, *Problem) {
	name, value, valued := strings.Cut(r.Text, "=")
	name = strings.TrimSpace(name)
	pattern := []rune(strings.ToLower(strings.TrimSpace(value)))
	var found []string
	for _, a := range w.Attributes {
		if strings.EqualFold(a, name) {
			found = append(found, a)
		}
	}
	if len(found) == 0 {
		return never, unknown(r, exclusion, inventory.Near(name, w.Attributes))
	}
	found = sameCase(found, func(a string) bool { return a == name })
	return func(m member) bool {
		return slices.ContainsFunc(found, func(a string) bool {
			has := m.Attributes[a]
			return has != "" && (!valued || glob(pattern, strings.ToLower(has)))
		})
	}, nil
}
