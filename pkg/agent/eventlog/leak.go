package eventlog

import (
	"strconv"
	"strings"
)

// Event 12289 of VSS is the general one; with this HRESULT a writer's table of sessions was full, and an older active
// session was overwritten (Microsoft Learn, askcorejp, "VSS 12289"). The backup that saw it is none the worse.
const (
	vssError           = 12289
	writerStatusLost   = 0x80042409 // VSS_E_WRITER_STATUS_NOT_AVAILABLE (vss.h)
	leakCounters       = 5
	leakOldOperationAt = 5
)

// Leak is what a writer said of its table of sessions. The words around the numbers are in the guest's language, so the
// numbers and ids are told apart by their order alone.
type Leak struct {
	// Known says that the counters were found.
	Known bool
	// Limit is how many sessions a writer keeps, 64.
	Limit, Completed, Active, Aborted, Failed int
	// NewSet and OldSet are the shadow copy sets of the session that came and of the one that was overwritten, WriterClass
	// is the writer's id, all in lower case without braces; empty when the event does not have them.
	NewSet, OldSet, WriterClass string
	// OldOperation is the writer's number of what the old session did last.
	OldOperation int
}

// Leaks gives the events that tell of lost sessions: matched by id and HRESULT, never by text.
func Leaks(events []Event) []Leak {
	var leaks []Leak
	for _, e := range events {
		if strings.EqualFold(e.Provider, "VSS") && e.ID == vssError && e.HR == writerStatusLost {
			leaks = append(leaks, leak(e.Data))
		}
	}
	return leaks
}

// leak reads the lines "name: value".
func leak(data []string) Leak {
	var numbers []int
	var ids []string
	for line := range strings.Lines(strings.Join(data, "\n")) {
		at := strings.LastIndexAny(line, ":：")
		if at < 0 {
			continue
		}
		value := strings.Trim(strings.TrimPrefix(line[at:], "："), ": \t\r\n")
		if n, err := strconv.Atoi(value); err == nil && n >= 0 {
			numbers = append(numbers, n)
		} else if id, ok := guid(value); ok {
			ids = append(ids, id)
		}
	}
	var l Leak
	if len(numbers) >= leakCounters {
		l.Known = true
		l.Limit, l.Completed, l.Active, l.Aborted, l.Failed = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
	}
	if len(numbers) > leakOldOperationAt {
		l.OldOperation = numbers[leakOldOperationAt]
	}
	for i, into := range []*string{&l.NewSet, &l.OldSet, &l.WriterClass} {
		if i < len(ids) {
			*into = ids[i]
		}
	}
	return l
}

// guid takes the braces from an id of 36 characters.
func guid(s string) (string, bool) {
	inner, open := strings.CutPrefix(s, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	if !open || !closed || len(inner) != 36 || strings.Count(inner, "-") != 4 {
		return "", false
	}
	digits := strings.ReplaceAll(inner, "-", "")
	for i := range len(digits) {
		if !isHex(digits[i]) {
			return "", false
		}
	}
	return strings.ToLower(inner), true
}
