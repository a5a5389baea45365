package vss

import (
	"fmt"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// reply is one line of what the driver under Wine answers (driver_windows_test.go).
type reply struct {
	Do, Err, Code string
	Took          time.Duration
	Prepared      *agent.Prepared
	Held          *agent.Held
	Started       bool
	Release       *agent.Release
	Settled       *agent.Settled
	Completed     *agent.Completed
	Expired       agent.ExpiredBy
	Volumes       []protocol.Volume
	Output        string
	Callbacks     []string
}

// String says what counts of a reply, without times.
func (r reply) String() string {
	text := r.Do + ":"
	if r.Err != "" {
		text += " " + r.Code
	}
	switch {
	case r.Prepared != nil:
		text += fmt.Sprintf(" served %d", len(r.Prepared.Provider.Served)) + unwell(r.Prepared.Writers)
	case r.Held != nil:
		text += fmt.Sprintf(" held started=%t io=%t flush=%s", r.Started, !r.Held.IOSince.IsZero(), r.Held.Flush)
	case r.Release != nil:
		text += fmt.Sprintf(" rows=%d expired=%q io=%t", len(r.Release.Results), r.Release.Expired, r.Release.IO > 0)
	case r.Settled != nil:
		text += fmt.Sprintf(" %s finished=%t", r.Settled.Result, r.Settled.Finished) + unwell(r.Settled.Writers)
	case r.Completed != nil:
		text += fmt.Sprintf(" %s closed=%t", r.Completed.Result, r.Completed.Closed) + unwell(r.Completed.Writers)
	case r.Expired != "":
		text += " " + string(r.Expired)
	case r.Output != "":
		text += " " + strings.TrimSpace(r.Output)
	}
	return text
}

// unwell names the writers that are in a failed state or did not answer.
func unwell(writers []protocol.Writer) string {
	text := ""
	for _, w := range writers {
		if w.FailureHR != "00000000" {
			text += fmt.Sprintf(" [%s %d %s]", w.Name, w.State, w.FailureHR)
		}
	}
	return text
}
