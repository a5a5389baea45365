// Package eventlog reads what other parts of a Windows guest wrote about a freeze into its event log.
package eventlog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Event is one entry of the log.
type Event struct {
	Channel, Provider string
	// ID is the event's number without its qualifiers.
	ID int
	// Record counts the entries of the channel.
	Record uint64
	// At is the guest's wall clock, which may be wrong and may jump. It is good for differences between events of one
	// log only.
	At time.Time
	// HR is the first HRESULT in the data, 0 for none.
	HR uint32
	// Data are the insertion strings, in the order of the message.
	Data []string
}

// String names the event without its text.
func (e Event) String() string {
	s := fmt.Sprintf("%s/%s/%d", e.Channel, e.Provider, e.ID)
	if e.HR != 0 {
		s += fmt.Sprintf(" hr 0x%08x", e.HR)
	}
	return s
}

// source is a provider whose events belong to a freeze. A name that ends in * is the beginning of names. No ids means all.
type source struct {
	channel, provider string
	ids               []int
}

// sources are the providers that take part in a freeze: VSS and its users, the volume snapshot driver, what lies below.
func sources() []source {
	return []source{
		{"Application", "VSS", []int{8193, 8194, 8229, 12289, 12293, 12298}},
		{"Application", "ESE*", nil},
		{"Application", "MSExchange*", nil},
		{"Application", "SQLWRITER", nil},
		{"Application", "SQLVDI", nil},
		{"Application", "MSSQL*", []int{sqlFrozen, sqlResumed}},
		{"System", "volsnap", []int{4, 5, 6, volsnapHold, volsnapFlush, 15, 21}},
		{"System", "Ntfs", []int{57, 137}},
		{"System", "Microsoft-Windows-Ntfs", []int{57, 137}},
		{"System", "disk", nil},
		{"System", "Service Control Manager", nil},
	}
}

// wanted says whether an event belongs to a freeze.
func wanted(e Event) bool {
	return slices.ContainsFunc(sources(), func(s source) bool {
		return strings.EqualFold(s.channel, e.Channel) && s.names(e.Provider) && (s.ids == nil || slices.Contains(s.ids, e.ID))
	})
}

func (s source) names(provider string) bool {
	if begin, open := strings.CutSuffix(s.provider, "*"); open {
		return len(provider) >= len(begin) && strings.EqualFold(provider[:len(begin)], begin)
	}
	return strings.EqualFold(s.provider, provider)
}

// maxText bounds the text of one event in an answer.
const maxText = 512

// Rows gives the events in the words of the protocol. now is the guest's wall clock at the harvest.
func Rows(events []Event, now time.Time) []protocol.Event {
	rows := make([]protocol.Event, 0, len(events))
	for _, e := range events {
		row := protocol.Event{Provider: e.Provider, ID: e.ID, Channel: e.Channel, AgeUS: now.Sub(e.At).Microseconds()}
		if e.HR != 0 {
			row.HR = fmt.Sprintf("%08x", e.HR)
		}
		text := strings.Join(strings.Fields(strings.Join(e.Data, " ")), " ")
		row.Text = strings.ToValidUTF8(text[:min(len(text), maxText)], "")
		rows = append(rows, row)
	}
	return rows
}
