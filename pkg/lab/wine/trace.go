package wine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Line is one line of the fakes' trace.
type Line struct {
	// At is the monotonic time that all processes share, since some instant in the past.
	At time.Duration
	// PID and TID are Windows's.
	PID, TID int
	// Kind is begin, end or mark.
	Kind string
	// Who is requestor, async, session, coordinator, provider, writer, volume or admin; What is the call or event.
	Who, What string
	// HR is the answer of an end, and what some marks say; 0 where there is none.
	HR uint32
	// Fields are the rest.
	Fields map[string]string
}

// Trace is what happened in the fakes of one prefix, in the order in which it was written.
type Trace []Line

// Trace reads what was written until now.
func (p *Prefix) Trace() (Trace, error) {
	raw, err := os.ReadFile(p.Path(labFolder + `\vss-trace.jsonl`))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// A killed process may have left half a line; what it had done before is whole.
	end := bytes.LastIndexByte(raw, '\n') + 1
	var t Trace
	for row := range bytes.Lines(raw[:end]) {
		line, err := parseLine(row)
		if err != nil {
			return nil, fmt.Errorf("trace line %d: %w: %s", len(t)+1, err, row)
		}
		t = append(t, line)
	}
	return t, nil
}

// ForgetTrace begins a new trace, in the same file: the fakes keep it open.
func (p *Prefix) ForgetTrace() error {
	err := os.Truncate(p.Path(labFolder+`\vss-trace.jsonl`), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func parseLine(row []byte) (Line, error) {
	var known struct {
		Ms   float64 `json:"ms"`
		PID  int     `json:"pid"`
		TID  int     `json:"tid"`
		At   string  `json:"at"`
		Who  string  `json:"who"`
		What string  `json:"what"`
		HR   string  `json:"hr"`
	}
	var all map[string]any
	if err := errors.Join(json.Unmarshal(row, &known), json.Unmarshal(row, &all)); err != nil {
		return Line{}, err
	}
	line := Line{
		At: time.Duration(known.Ms * float64(time.Millisecond)), PID: known.PID, TID: known.TID,
		Kind: known.At, Who: known.Who, What: known.What, Fields: map[string]string{},
	}
	if known.HR != "" {
		hr, err := strconv.ParseUint(known.HR, 0, 32)
		if err != nil {
			return Line{}, err
		}
		line.HR = uint32(hr)
	}
	for key, value := range all {
		if text, ok := value.(string); ok && !slices.Contains([]string{"at", "who", "what", "hr"}, key) {
			line.Fields[key] = text
		}
	}
	return line, nil
}

// Calls are the calls that whos got, each "who.what", with a writer's name in brackets, in the order in which they began.
func (t Trace) Calls(whos ...string) []string {
	var calls []string
	for _, l := range t {
		if l.Kind != "begin" || !slices.Contains(whos, l.Who) {
			continue
		}
		call := l.Who + "." + l.What
		if w := l.Fields["writer"]; w != "" {
			call += "(" + w + ")"
		}
		calls = append(calls, call)
	}
	return calls
}

// All are the lines of one kind, who and what; an empty word is any.
func (t Trace) All(kind, who, what string) Trace {
	var found Trace
	for _, l := range t {
		if (kind == "" || l.Kind == kind) && (who == "" || l.Who == who) && (what == "" || l.What == what) {
			found = append(found, l)
		}
	}
	return found
}

// Result is what the last piece of work of that method ended with, as the requestor read it; ok is false when it did not.
func (t Trace) Result(method string) (hr uint32, ok bool) {
	found := t.All("mark", "requestor", method+" result")
	if len(found) == 0 {
		return 0, false
	}
	return found[len(found)-1].HR, true
}

// Hold is one time in which somebody stood still.
type Hold struct {
	From, To time.Duration
	// How it ended: thaw, limit, abort or shutdown of a writer, commit or limit of the volumes, exit of the coordinator, with
	// which all goes; empty is not yet, or nobody saw it because the coordinator was killed from outside.
	How string
}

// Length is how long it lasted; 0 while it has no end.
func (h Hold) Length() time.Duration {
	if h.How == "" {
		return 0
	}
	return h.To - h.From
}

// WriterHolds are the times in which a writer was frozen.
func (t Trace) WriterHolds(writer string) []Hold {
	var holds []Hold
	for _, l := range t.All("mark", "", "") {
		switch {
		case l.Who == "coordinator" && l.What == "exit":
			endAll(holds, l.At)
		case l.Who != "writer" || l.Fields["writer"] != writer:
		case l.What == "held":
			holds = append(holds, Hold{From: l.At})
		case l.What == "released":
			holds[len(holds)-1].To, holds[len(holds)-1].How = l.At, l.Fields["how"]
		}
	}
	return holds
}

// WriteHolds are the times in which no write got through to the set's volumes.
func (t Trace) WriteHolds() []Hold {
	var holds []Hold
	for _, l := range t {
		switch {
		case l.Who == "coordinator" && l.What == "exit":
			endAll(holds, l.At)
		case l.Who != "volume" || l.What != "hold":
		case l.Kind == "begin":
			holds = append(holds, Hold{From: l.At})
		default:
			holds[len(holds)-1].To, holds[len(holds)-1].How = l.At, l.Fields["how"]
		}
	}
	return holds
}

// endAll ends the holds that are open when the coordinator goes.
func endAll(holds []Hold, at time.Duration) {
	for i, h := range holds {
		if h.How == "" {
			holds[i].To, holds[i].How = at, "exit"
		}
	}
}

// String is for messages of failed tests.
func (t Trace) String() string {
	var b strings.Builder
	for _, l := range t {
		fmt.Fprintf(&b, "%12.3f %5d %-5s %s.%s", float64(l.At.Microseconds())/1000, l.PID, l.Kind, l.Who, l.What)
		if l.Kind == "end" || l.HR != 0 {
			fmt.Fprintf(&b, " 0x%08x", l.HR)
		}
		fmt.Fprintf(&b, " %v\n", l.Fields)
	}
	return b.String()
}
