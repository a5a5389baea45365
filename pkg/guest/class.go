package guest

import (
	"slices"
	"strings"
)

// Class says what follows from an error on the way into a guest.
type Class string

// The classes.
const (
	// ClassOther leads to the next way.
	ClassOther Class = "other"
	// ClassAuth stops every way: another try would cost one more logon.
	ClassAuth Class = "auth"
	// ClassRights and ClassUnsupported lead to the next way, and are remembered for a day.
	ClassRights      Class = "rights"
	ClassUnsupported Class = "unsupported"
	// ClassUnreachable, ClassTimeout and ClassProtocol lead to the next way.
	ClassUnreachable Class = "unreachable"
	ClassTimeout     Class = "timeout"
	ClassProtocol    Class = "protocol"
	// ClassIntegrity ends the whole deployment: somebody may have changed what is there.
	ClassIntegrity Class = "integrity"
	// ClassGuest is what the agent itself says of the guest: it says the same on every way.
	ClassGuest Class = "guest"
	// ClassBusy is worth another try of the same way, a little later.
	ClassBusy Class = "busy"
)

// Final says whether no other way may be tried after an error of the class.
func (c Class) Final() bool { return c == ClassAuth || c == ClassIntegrity || c == ClassGuest }

// Classes lists them.
func Classes() []Class {
	return []Class{
		ClassOther, ClassAuth, ClassRights, ClassUnsupported, ClassUnreachable, ClassTimeout, ClassProtocol, ClassIntegrity, ClassGuest, ClassBusy,
	}
}

// classes are the codes of each class; all others are ClassOther.
var classes = map[Class][]string{
	ClassAuth:        {"SF1104", "SF3001", "SF3002", "SF3003", "SF3004", "SF3005"},
	ClassRights:      {"SF3101", "SF3102", "SF3103", "SF3104", "SF3105", "SF3604"},
	ClassUnsupported: {"SF3007", "SF3301", "SF3302", "SF3303", "SF3405", "SF3504", "SF3505"},
	ClassUnreachable: {"SF3201", "SF3202", "SF3203", "SF3501", "SF3601", "SF3612", "SF3701"},
	ClassTimeout:     {"SF3204", "SF3703"},
	ClassProtocol:    {"SF3304", "SF3312", "SF3503", "SF3706", "SF3901"},
	ClassIntegrity:   {"SF3702", "SF3704", "SF3801"},
	ClassBusy:        {"SF3305", "SF3307", "SF3404", "SF3502", "SF3603"},
}

// CodesOf lists the codes that are always of a class.
func CodesOf(c Class) []string { return slices.Clone(classes[c]) }

// ClassOf gives the class of a code; that of no code is empty.
func ClassOf(code string) Class {
	if code == "" {
		return ""
	}
	for class, codes := range classes {
		if slices.Contains(codes, code) {
			return class
		}
	}
	if strings.HasPrefix(code, "SF4") || code == "SF3705" {
		return ClassGuest
	}
	return ClassOther
}
