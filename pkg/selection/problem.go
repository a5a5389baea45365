package selection

import "strings"

// What is what is wrong with a rule.
type What string

// The problems of rules.
const (
	// Unknown is a rule that names a thing which vCenter does not have.
	Unknown What = "unknown"
	// Ambiguous is a rule that fits several things. It takes none of them; as an exclusion it keeps all of them out.
	Ambiguous What = "ambiguous"
	// Empty is a rule that matches no VM, although what it names exists.
	Empty What = "empty"
)

// Problem is a rule that does not do what somebody meant it to do.
type Problem struct {
	Rule Rule
	// Exclusion is true for a rule of Selector.Exclude.
	Exclusion bool
	What      What
	// Near are the names that resemble an unknown one, the nearest first; of an ambiguous one all that it may mean.
	Near []string
	// Text says it in words.
	Text string
}

// Error names the rule and what is wrong with it.
func (p Problem) Error() string {
	where := ""
	if p.Exclusion {
		where = "exclude "
	}
	return where + p.Rule.String() + ": " + p.Text
}

// Code is SF1602 for an unknown, SF1603 for an ambiguous, SF1604 for an empty rule.
func (p Problem) Code() string {
	switch p.What {
	case Unknown:
		return "SF1602"
	case Ambiguous:
		return "SF1603"
	case Empty:
	}
	return "SF1604"
}

func unknown(r Rule, exclusion bool, near []string) *Problem {
	p := &Problem{Rule: r, Exclusion: exclusion, What: Unknown, Near: near, Text: "vCenter has nothing of this name"}
	if len(near) > 0 {
		p.Text += "; near: " + list(near)
	}
	return p
}

// maxListed bounds the names in one message.
const maxListed = 5

func list(names []string) string {
	if len(names) > maxListed {
		return strings.Join(names[:maxListed], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}
