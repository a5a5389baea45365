package main

import (
	"errors"

	"github.com/stillframe/stillframe/pkg/backup"
)

// Exit statuses; the table is in docs/cli.md.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDegraded    = 3
	exitNoMatch     = 4
	exitUnreachable = 5
	exitAuth        = 6
	exitPreflight   = 7
	exitConfig      = 8
	exitBudget      = 9
	exitLocked      = 11
	exitWrongKey    = 12
	exitRecovery    = 13
	exitInterrupted = 130
)

// exitByCode are the codes whose failure has an exit status of its own; all others are exitFailed.
var exitByCode = map[string]int{
	"SF1001": exitUsage, "SF1002": exitUsage, "SF1003": exitUsage,
	"SF1501": exitConfig, "SF1502": exitNoMatch, "SF1503": exitAuth, "SF1504": exitConfig, "SF1505": exitWrongKey, "SF1509": exitLocked,
	"SF1200": exitConfig, "SF1907": exitLocked, "SF1920": exitConfig, "SF1921": exitConfig, "SF1922": exitConfig, "SF1923": exitConfig,
	"SF1711": exitUnreachable, "SF1713": exitAuth, "SF1714": exitAuth, "SF1715": exitUsage, "SF1716": exitUsage, "SF1717": exitNoMatch, "SF1718": exitLocked,
	"SF2009": exitNoMatch, "SF2010": exitNoMatch,
	"SF1101": exitPreflight, "SF1102": exitPreflight, "SF1103": exitLocked, "SF1104": exitAuth, "SF1105": exitPreflight, "SF2304": exitRecovery,
	"SF4010": exitPreflight, "SF4012": exitPreflight, "SF4013": exitPreflight,
	"SF2001": exitAuth, "SF2003": exitAuth, "SF2011": exitAuth, "SF2101": exitAuth, "SF3001": exitAuth, "SF3104": exitAuth, "SF3604": exitAuth,
	"SF2111": exitPreflight, "SF2112": exitPreflight, "SF2113": exitPreflight, "SF2114": exitPreflight, "SF2115": exitPreflight,
	"SF2118": exitPreflight, "SF2119": exitPreflight, "SF2120": exitPreflight, "SF2121": exitPreflight, "SF2122": exitPreflight,
	"SF2124": exitPreflight, "SF2208": exitPreflight, "SF2131": exitPreflight, "SF2132": exitPreflight, "SF2133": exitPreflight, "SF2134": exitPreflight, "SF2135": exitPreflight,
	"SF3002": exitAuth, "SF3003": exitAuth, "SF3004": exitAuth, "SF3005": exitAuth, "SF3101": exitAuth, "SF3102": exitAuth, "SF3103": exitAuth,
	"SF3105": exitAuth, "SF3503": exitAuth, "SF3702": exitAuth, "SF3706": exitAuth,
	"SF3006": exitPreflight, "SF3007": exitPreflight, "SF3020": exitPreflight, "SF3201": exitPreflight, "SF3202": exitPreflight, "SF3203": exitPreflight,
	"SF3301": exitPreflight, "SF3302": exitPreflight, "SF3303": exitPreflight, "SF3405": exitPreflight, "SF3501": exitPreflight, "SF3504": exitPreflight,
	"SF3505": exitPreflight,
	"SF2701": exitPreflight, "SF2702": exitPreflight, "SF3601": exitPreflight,
	"SF3602": exitPreflight, "SF3609": exitPreflight, "SF4011": exitPreflight, "SF4910": exitPreflight,
}

// exitOf gives the exit status of an error.
func exitOf(err error) int {
	if errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	if status, ok := exitByCode[codeOf(err)]; ok {
		return status
	}
	return exitFailed
}

// exitOfRun gives the exit status of a run: what is left behind first, then what happened to the guest, then the
// outcome.
func exitOfRun(r backup.Result, err error) int {
	switch {
	case len(r.Leftovers) > 0:
		return exitRecovery
	case r.Window.SelfReleased || r.OverBudget():
		return exitBudget
	case r.Outcome == backup.Aborted:
		return exitInterrupted
	case err != nil:
		return exitOf(err)
	case r.Outcome == backup.OK:
		return exitOK
	case r.Outcome == backup.Degraded:
		return exitDegraded
	}
	return exitFailed
}

func codeOf(err error) string {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return ""
}
