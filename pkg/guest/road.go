package guest

import (
	"fmt"
	"slices"
	"time"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// Road is how the agent gets into the guest.
type Road string

// The roads.
const (
	// RoadPersistent is an agent that was installed once.
	RoadPersistent Road = "persistent"
	RoadAdminShare Road = "adminshare"
	RoadGuestOps   Road = "guestops"
)

// Start is what runs the agent that is there.
type Start string

// The starts.
const (
	StartPersistent Start = "persistent" // it runs already
	StartSCM        Start = "svcctl"     // the guest's service control manager, over the share's session
	StartWinRM      Start = "winrm"
	StartGuestOps   Start = "guestops"
)

// Way is one way into a guest: a road, and what starts the agent at its end.
type Way struct {
	Road  Road  `json:"road"`
	Start Start `json:"start"`
}

func (w Way) String() string {
	if string(w.Road) == string(w.Start) {
		return string(w.Road)
	}
	return fmt.Sprintf("%s+%s", w.Road, w.Start)
}

// The ways, in the order in which they are tried.
var (
	WayPersistent = Way{RoadPersistent, StartPersistent}
	WaySCM        = Way{RoadAdminShare, StartSCM}
	WayWinRM      = Way{RoadAdminShare, StartWinRM}
	WayGuestOps   = Way{RoadGuestOps, StartGuestOps}
)

// RoadPolicy says which roads may be taken.
type RoadPolicy string

// The policies. A road that is named is the only one.
const (
	PolicyAuto       RoadPolicy = "auto"
	PolicyPersistent RoadPolicy = "persistent"
	PolicyAdminShare RoadPolicy = "adminshare"
	PolicyGuestOps   RoadPolicy = "guestops"
	// PolicySCM and PolicyWinRM are the admin share with one start only.
	PolicySCM   RoadPolicy = "adminshare+svcctl"
	PolicyWinRM RoadPolicy = "adminshare+winrm"
)

// RoadPolicies lists them.
func RoadPolicies() []string {
	var all []string
	for _, p := range []RoadPolicy{PolicyAuto, PolicyPersistent, PolicyAdminShare, PolicySCM, PolicyWinRM, PolicyGuestOps} {
		all = append(all, string(p))
	}
	return all
}

// Allows says whether the policy lets a way be taken.
func (p RoadPolicy) Allows(w Way) bool {
	return p == PolicyAuto || p == "" || string(p) == string(w.Road) || string(p) == w.String()
}

// Known is what is remembered of the ways into one guest, from run to run.
type Known struct {
	// Good is the way that went well last; the zero value is none.
	Good Way `json:"good"`
	// Library is the SMB library that fitted.
	Library string `json:"library"`
	// Kept is the deployment whose program stayed in the guest; empty for none.
	Kept string `json:"kept"`
	// Denied are ways on which the account had no right.
	Denied []Denial `json:"denied"`
}

// Denial is a way on which an account had no right.
type Denial struct {
	Way Way `json:"way"`
	// Account is its name; another account is tried.
	Account string    `json:"account"`
	Code    string    `json:"code"`
	Text    string    `json:"text"`
	At      time.Time `json:"at"`
}

// deniedFor is how long a way without the right is left out.
const deniedFor = 24 * time.Hour

// denied finds what speaks against a way. A clock that was set back makes no denial last longer.
func (k Known) denied(w Way, account string, now time.Time) (Denial, bool) {
	i := slices.IndexFunc(k.Denied, func(d Denial) bool {
		age := now.Sub(d.At)
		return d.Way == w && d.Account == account && age >= 0 && age < deniedFor
	})
	if i < 0 {
		return Denial{}, false
	}
	return k.Denied[i], true
}

// Learn gives what is to be remembered after attempts at a guest with an account. Whatever went well is not denied any more.
func (k Known) Learn(attempts []Attempt, account string, now time.Time) Known {
	for _, a := range attempts {
		if a.Skipped {
			continue
		}
		well := a.OK && a.Stage == StageHello
		refused := ClassOf(a.Code) == ClassRights || ClassOf(a.Code) == ClassUnsupported
		if well {
			k.Good = a.Way
		}
		if !well && !refused {
			continue
		}
		k.Denied = slices.DeleteFunc(slices.Clone(k.Denied), func(d Denial) bool { return d.Way == a.Way && d.Account == account })
		if refused {
			k.Denied = append(k.Denied, Denial{a.Way, account, a.Code, a.Text, now})
		}
	}
	return k
}

// Choice is one way, with what speaks against it.
type Choice struct {
	Way Way
	// Code and Text are why it is not tried; empty when it is.
	Code, Text string
}

// Situation is what the choice of ways is made from.
type Situation struct {
	Policy  RoadPolicy
	System  inventory.System
	Account string
	// Enrolled is true when the guest has a persistent agent of ours.
	Enrolled bool
	Known    Known
	// Unreachable are the ways whose ports did not answer a moment ago, or whose service vCenter says is not there.
	Unreachable map[Way]bool
	Now         time.Time
}

// Choose puts the ways into the order in which they are tried: a persistent agent, the way that went well last, then the
// others; a way whose port is silent comes last, and is tried when nothing else is left. A way without the right is named and
// left out, unless it is the only one.
func (s Situation) Choose() []Choice {
	ways := []Way{WayPersistent, s.Known.Good, WaySCM, WayWinRM, WayGuestOps}
	var open, closed []Choice
	var skipped []Choice
	seen := map[Way]bool{{}: true}
	for _, w := range ways {
		if seen[w] || !s.Policy.Allows(w) || w == WayPersistent && !s.Enrolled || w.Road == RoadAdminShare && s.System != inventory.Windows {
			continue
		}
		seen[w] = true
		d, denied := s.Known.denied(w, s.Account, s.Now)
		switch {
		case denied:
			skipped = append(skipped, Choice{w, d.Code, fmt.Sprintf("not tried: it was refused to %s less than a day ago: %s", s.Account, d.Text)})
		case s.Unreachable[w]:
			closed = append(closed, Choice{Way: w})
		default:
			open = append(open, Choice{Way: w})
		}
	}
	if len(open)+len(closed) == 0 { // nothing else is left
		for i := range skipped {
			skipped[i].Code, skipped[i].Text = "", ""
		}
	}
	return slices.Concat(skipped, open, closed)
}
