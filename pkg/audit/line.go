package audit

import "bytes"

// line is one line of the file.
type line struct {
	text  []byte
	ended bool
}

// split cuts a text into lines; only the last can be without end, and an empty one without end is none.
func split(text []byte) []line {
	var lines []line
	for len(text) > 0 {
		one, rest, ended := bytes.Cut(text, []byte("\n"))
		lines, text = append(lines, line{one, ended}), rest
	}
	return lines
}
