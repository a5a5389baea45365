package eventlog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of one event.
const (
	maxXML  = 64 << 10 // bytes of its XML
	maxData = 32       // insertion strings
)

// errNotEvent says that a text is not the XML of an event.
var errNotEvent = errors.New("not the XML of an event")

// Parse reads the XML that EvtRender makes of one event. It takes only what it needs, so that the agent does without
// encoding/xml: elements, their attributes, and the five entities besides numbers. Unknown elements are skipped.
func Parse(text string) (Event, error) {
	var e Event
	if len(text) > maxXML {
		return e, fmt.Errorf("%w: it has %d bytes, at most %d are read", errNotEvent, len(text), maxXML)
	}
	s := scanner{rest: text}
	found := false
	for {
		t, ok := s.next()
		if !ok {
			break
		}
		switch t.name {
		case "Provider":
			e.Provider, found = t.attribute("Name"), true
		case "EventID":
			id, err := strconv.Atoi(strings.TrimSpace(s.text()))
			if err != nil || id < 0 {
				return Event{}, fmt.Errorf("%w: its id is no number", errNotEvent)
			}
			e.ID = id
		case "TimeCreated":
			at, err := time.Parse(time.RFC3339Nano, t.attribute("SystemTime"))
			if err != nil {
				return Event{}, fmt.Errorf("%w: %w", errNotEvent, err)
			}
			e.At = at
		case "EventRecordID":
			record, err := strconv.ParseUint(strings.TrimSpace(s.text()), 10, 64)
			if err != nil {
				return Event{}, fmt.Errorf("%w: its record is no number", errNotEvent)
			}
			e.Record = record
		case "Channel":
			e.Channel = strings.TrimSpace(s.text())
		case "Data":
			if len(e.Data) < maxData {
				e.Data = append(e.Data, s.text())
			}
		}
	}
	if !found || e.ID == 0 || e.Channel == "" {
		return Event{}, fmt.Errorf("%w: provider, id or channel is missing", errNotEvent)
	}
	e.HR = firstResult(e.Data)
	return e, nil
}

// scanner walks through the tags of a text.
type scanner struct {
	rest string
	// open is true right after a start tag that has content.
	open bool
}

// tag is one start tag.
type tag struct{ name, attributes string }

// next gives the next start tag; end tags, comments and declarations are skipped.
func (s *scanner) next() (tag, bool) {
	for {
		_, after, ok := strings.Cut(s.rest, "<")
		if !ok {
			return tag{}, false
		}
		inside, rest, ok := cutTag(after)
		if !ok {
			return tag{}, false
		}
		s.rest = rest
		if inside == "" || strings.ContainsRune("/?!", rune(inside[0])) {
			continue
		}
		inside, empty := strings.CutSuffix(inside, "/")
		s.open = !empty
		attributes := strings.TrimLeft(inside, nameBytes)
		return tag{inside[:len(inside)-len(attributes)], attributes}, true
	}
}

// nameBytes are those of the names that events have.
const nameBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:"

// cutTag cuts at the > that ends a tag; one in a quoted value does not.
func cutTag(s string) (inside, rest string, ok bool) {
	quote := byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			return s[:i], s[i+1:], true
		}
	}
	return "", "", false
}

// text gives the characters up to the next tag.
func (s *scanner) text() string {
	if !s.open {
		return ""
	}
	end := strings.IndexByte(s.rest, '<')
	if end < 0 {
		end = len(s.rest)
	}
	text := s.rest[:end]
	s.rest = s.rest[end:]
	return unescape(text)
}

// attribute gives a value, empty when there is none.
func (t tag) attribute(name string) string {
	rest := t.attributes
	for {
		key, after, ok := strings.Cut(rest, "=")
		after = strings.TrimLeft(after, " \t\r\n")
		if !ok || after == "" || (after[0] != '"' && after[0] != '\'') {
			return ""
		}
		value, next, ok := strings.Cut(after[1:], after[:1])
		if !ok {
			return ""
		}
		if strings.TrimSpace(key) == name {
			return unescape(value)
		}
		rest = next
	}
}

// unescape replaces the entities of XML; what it does not know it leaves alone.
func unescape(s string) string {
	if !strings.Contains(s, "&") {
		return s
	}
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "&")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, rest, ok := strings.Cut(after, ";")
		if r, known := entity(name); ok && known {
			out.WriteRune(r)
			s = rest
			continue
		}
		out.WriteByte('&')
		s = after
	}
}

func entity(name string) (rune, bool) {
	if number, ok := strings.CutPrefix(name, "#"); ok {
		base := 10
		if hex, ok := strings.CutPrefix(number, "x"); ok {
			number, base = hex, 16
		}
		n, err := strconv.ParseUint(number, base, 21)
		return rune(n), err == nil
	}
	switch name {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	return 0, false
}

// firstResult gives the first 0x with eight hexadecimal digits in the strings, 0 for none.
func firstResult(data []string) uint32 {
	for _, rest := range data {
		for {
			_, after, ok := strings.Cut(rest, "0x")
			if !ok {
				break
			}
			if len(after) >= 8 && (len(after) == 8 || !isHex(after[8])) {
				if n, err := strconv.ParseUint(after[:8], 16, 32); err == nil {
					return uint32(n)
				}
			}
			rest = after
		}
	}
	return 0
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
