package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"
)

// Report is what Verify found.
type Report struct {
	// Entries counts the whole entries up to the end or the first broken one.
	Entries uint64    `json:"entries"`
	Head    Head      `json:"head"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	// Torn are the places where a crash cut off what was being written, which the record itself tells.
	Torn []string `json:"torn"`
	// Unfinished is the number of bytes behind the last entry, without line end: the daemon died while it wrote them, or is
	// writing them now. What they were about was not begun.
	Unfinished int `json:"unfinished_bytes"`
}

// ErrBroken says that the chain does not hold; the error names the first broken entry.
var ErrBroken = errors.New("the chain is broken")

// Verify walks the record from its beginning. If head is not empty, it is the hash of an entry that must be in it: without
// such an anchor nobody can tell that the last entries were taken away. An error is ErrBroken, or one of reading.
func Verify(r io.Reader, head string) (Report, error) {
	w := walk{report: Report{Torn: []string{}, Head: Head{SHA256: origin}}, anchor: head, anchored: head == "" || head == origin}
	in := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return w.report, w.broken(w.line+1, fmt.Errorf("it is longer than %d bytes", maxLine))
		case errors.Is(err, io.EOF):
			return w.end(len(text))
		case err != nil:
			return w.report, fmt.Errorf("read the audit log: %w", err)
		}
		if err := w.step(text[:len(text)-1]); err != nil {
			return w.report, err
		}
	}
}

// walk is where Verify is.
type walk struct {
	report Report
	// line is the number of the last line, former its hash.
	line   uint64
	former string
	// odd is the first of the lines just before that are no entries, 0 when there are none: only a torn mark excuses them.
	odd      uint64
	anchor   string
	anchored bool
}

func (w *walk) step(text []byte) error {
	w.line++
	former := w.former
	if w.line == 1 {
		former = origin
	}
	w.former = hash(text)
	e, ok := parse(text)
	if !ok {
		if w.odd == 0 {
			w.odd = w.line
		}
		return nil
	}
	switch {
	case w.odd > 0 && (e.What != torn || e.Object != span(w.odd, w.line-1)):
		return w.broken(w.odd, errors.New("it is not an entry, and no entry after it says that a crash cut it off"))
	case e.Number != w.line:
		return w.broken(w.line, fmt.Errorf("it says that it is entry %d: entries were taken out or put in before it", e.Number))
	case e.Former != former && w.line == 1:
		return w.broken(1, errors.New("it does not begin the chain: entries before it were taken away"))
	case e.Former != former:
		return w.broken(w.line-1, fmt.Errorf("its hash is not the one that entry %d was chained to: it was changed", w.line))
	}
	if e.What == torn {
		w.report.Torn = append(w.report.Torn, e.Object)
	}
	w.odd = 0
	if w.report.Entries++; w.report.Entries == 1 {
		w.report.From = e.At
	}
	w.report.To, w.report.Head = e.At, Head{w.line, w.former}
	w.anchored = w.anchored || w.former == w.anchor
	return nil
}

// end judges what is left when the file ends.
func (w *walk) end(unfinished int) (Report, error) {
	w.report.Unfinished = unfinished
	switch {
	case w.odd > 0:
		return w.report, w.broken(w.odd, errors.New("it is not an entry, and no entry after it says that a crash cut it off"))
	case !w.anchored:
		return w.report, w.broken(w.line+1, errors.New("no entry has the hash that was asked for: entries were taken away from the end, or the record was written anew"))
	}
	return w.report, nil
}

func (w *walk) broken(line uint64, why error) error {
	return &Error{SF: "SF1702", Op: fmt.Sprintf("verify entry %d", line), Err: errors.Join(ErrBroken, why)}
}
