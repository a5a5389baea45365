package daemon

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Mark begins the description of each snapshot of ours: it says who made it, so that it is known again without a database.
type Mark struct {
	Installation, RunID string
	Epoch               int64
	// Keep is for how long the run was to keep it, to the second; 0 when it was to be removed at once.
	Keep time.Duration
}

func (m Mark) String() string {
	text := fmt.Sprintf("stillframe inst=%s run=%s epoch=%d", m.Installation, m.RunID, m.Epoch)
	if m.Keep >= time.Second {
		text += fmt.Sprintf(" keep=%d", m.Keep/time.Second)
	}
	return text
}

var markForm = regexp.MustCompile(`^stillframe inst=([0-9a-f-]{36}) run=([0-9a-f-]{36}) epoch=([1-9][0-9]{0,18})(?: keep=([1-9][0-9]{0,8}))?(?: |$)`)

// ReadMark reads the mark at the beginning of a description; ok is false when there is none.
func ReadMark(description string) (m Mark, ok bool) {
	parts := markForm.FindStringSubmatch(description)
	if parts == nil {
		return m, false
	}
	m.Installation, m.RunID = parts[1], parts[2]
	var err error
	if m.Epoch, err = strconv.ParseInt(parts[3], 10, 64); err != nil {
		return Mark{}, false
	}
	if keep, err := strconv.Atoi(parts[4]); err == nil { // empty: not kept
		m.Keep = time.Duration(keep) * time.Second
	}
	return m, true
}
