package selection

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Choice is one VM that a rule matched.
type Choice struct {
	VM inventory.Member
	// By is the rule that takes it.
	By Rule
	// Why says why it is left out all the same; empty when it is taken. Not is the exclusion that says so, if one does.
	Why string
	Not Rule
	// New is true when it is taken and was not known before.
	New bool
}

// Excluded says whether an exclusion keeps it out.
func (c Choice) Excluded() bool { return c.Not != Rule{} }

// Loss is a VM that was known and is not taken any more.
type Loss struct {
	InstanceUUID string
	// Path is where it is now, or where it was when vCenter does not have it any more.
	Path string
	Why  string
}

// Result is what a selector makes of an estate.
type Result struct {
	// Taken are the VMs of the job, LeftOut those that a rule takes but something keeps out; both are sorted by path.
	Taken, LeftOut []Choice
	// Lost are known VMs that are not taken, sorted by path.
	Lost []Loss
	// Problems are rules that do not do what somebody meant them to do, in the order of the selector, exclusions last.
	Problems []Problem
}

// Select applies a selector. known are the VMs that it took before, the path of each by its instance UUID; nil says that
// it was never applied, so that nothing is new. The estate must have its tags when the selector needs them.
func Select(e inventory.Estate, s Selector, known map[string]string) Result {
	if s.NeedsTags() && !e.TagsRead {
		panic("the selector has tags, the estate was read without")
	}
	known = lower(known)
	w := newWorld(e)
	takes, excludes := w.compileAll(s.List(), false), w.compileAll(s.Exclude.List(), true)
	var r Result
	for _, m := range w.members {
		by, taken := first(takes, m)
		not, excluded := first(excludes, m)
		if !taken {
			continue
		}
		c := Choice{VM: *m.Member, By: by}
		switch _, before := known[m.uuid]; {
		case m.Template:
			c.Why = "it is a template"
		case excluded:
			c.Why, c.Not = "excluded by "+not.String(), not
		case m.uuid == "":
			c.Why = "vCenter does not tell its instance UUID, without which it cannot be followed"
		default:
			c.New = known != nil && !before
			r.Taken = append(r.Taken, c)
			continue
		}
		r.LeftOut = append(r.LeftOut, c)
	}
	byPath := func(a, b Choice) int { return strings.Compare(a.VM.Path+a.VM.Moref, b.VM.Path+b.VM.Moref) }
	slices.SortFunc(r.Taken, byPath)
	slices.SortFunc(r.LeftOut, byPath)
	r.lose(w, known)
	for _, c := range slices.Concat(takes, excludes) {
		if p := c.verdict(); p != nil {
			r.Problems = append(r.Problems, *p)
		}
	}
	return r
}

// lower is known with its UUIDs in lower case; nil stays nil.
func lower(known map[string]string) map[string]string {
	if known == nil {
		return nil
	}
	low := make(map[string]string, len(known))
	for uuid, path := range known {
		low[strings.ToLower(uuid)] = path
	}
	return low
}

// compiled is a rule at work.
type compiled struct {
	rule      Rule
	exclusion bool
	match     matcher
	problem   *Problem
	hits      int
}

func (w *world) compileAll(rules []Rule, exclusion bool) []*compiled {
	all := make([]*compiled, len(rules))
	for i, r := range rules {
		match, problem := w.compile(r, exclusion)
		all[i] = &compiled{rule: r, exclusion: exclusion, match: match, problem: problem}
	}
	return all
}

// first gives the first rule that matches, and has every rule count what it matches.
func first(rules []*compiled, m member) (by Rule, ok bool) {
	for _, c := range rules {
		if !c.match(m) {
			continue
		}
		c.hits++
		if !ok {
			by, ok = c.rule, true
		}
	}
	return by, ok
}

// verdict is what is wrong with a rule that has met every VM.
func (c *compiled) verdict() *Problem {
	if c.problem != nil || c.hits > 0 {
		return c.problem
	}
	return &Problem{Rule: c.rule, Exclusion: c.exclusion, What: Empty, Text: "it matches no VM"}
}

// lose lists the known VMs that are not taken.
func (r *Result) lose(w *world, known map[string]string) {
	taken := map[string]bool{}
	for _, c := range r.Taken {
		taken[strings.ToLower(c.VM.InstanceUUID)] = true
	}
	out := map[string]string{}
	for _, c := range r.LeftOut {
		out[strings.ToLower(c.VM.InstanceUUID)] = c.Why
	}
	here := map[string]string{}
	for _, m := range w.members {
		here[m.uuid] = m.Path
	}
	for _, uuid := range slices.Sorted(maps.Keys(known)) {
		if taken[uuid] {
			continue
		}
		l := Loss{InstanceUUID: uuid, Path: known[uuid], Why: "vCenter does not have it any more"}
		if path, ok := here[uuid]; ok {
			l.Path, l.Why = path, "no rule takes it any more"
		}
		if why, ok := out[uuid]; ok {
			l.Why = why
		}
		r.Lost = append(r.Lost, l)
	}
	slices.SortStableFunc(r.Lost, func(a, b Loss) int { return strings.Compare(a.Path, b.Path) })
}

// Known is what to hand to the next Select.
func (r Result) Known() map[string]string {
	known := make(map[string]string, len(r.Taken))
	for _, c := range r.Taken {
		known[strings.ToLower(c.VM.InstanceUUID)] = c.VM.Path
	}
	return known
}

// Err is a *NothingError when no VM is taken, which is never a success.
func (r Result) Err() error {
	if len(r.Taken) > 0 {
		return nil
	}
	return &NothingError{LeftOut: len(r.LeftOut), Problems: r.Problems}
}

// NothingError says that a selector takes no VM.
type NothingError struct {
	// LeftOut is how many VMs its rules match that something keeps out.
	LeftOut  int
	Problems []Problem
}

// Error names the problems.
func (e *NothingError) Error() string {
	text := "the selector takes no VM"
	if e.LeftOut > 0 {
		text += fmt.Sprintf(" (%d match its rules and are left out)", e.LeftOut)
	}
	for i, p := range e.Problems {
		if i == 3 {
			return text + fmt.Sprintf("; and %d more problems", len(e.Problems)-i)
		}
		text += "; " + p.Error()
	}
	return text
}

// Code is SF1601.
func (*NothingError) Code() string { return "SF1601" }
