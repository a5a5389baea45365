// Package mailbox carries byte streams through two texts, of which each side writes one and reads the other.
package mailbox

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// MaxData is the most that one segment carries, in bytes: a message between a guest and its hypervisor has at most 64 KiB
// (open-vm-tools, GUESTMSG_MAX_IN_SIZE).
const MaxData = 32 << 10

// maxName bounds the name of a stream, maxText a segment.
const (
	maxName = 96
	maxText = (MaxData+2)/3*4 + maxName + 2*20 + 3
)

// errSegment is what a text that is no segment is.
var errSegment = errors.New("the text is no segment of a mailbox")

// segment is the whole state of one side of a stream, and so is each text: nothing is lost when one of them is not read.
type segment struct {
	stream string
	// seq counts the segments with data that this side has sent, ack those that it has received.
	seq, ack uint64
	// data is that of segment seq; empty when it was received.
	data []byte
}

// text is <stream>.<seq>.<ack>.<base64>.
func (s segment) text() string {
	return s.stream + "." + strconv.FormatUint(s.seq, 10) + "." + strconv.FormatUint(s.ack, 10) + "." + base64.StdEncoding.EncodeToString(s.data)
}

// parse reads a text, strictly: there is one way to write a segment. White space around it is the other side's padding.
func parse(text string) (segment, error) {
	if len(text) > maxText+4 {
		return segment{}, errSegment
	}
	fields := strings.Split(strings.TrimSpace(text), ".")
	if len(fields) != 4 || !isName(fields[0]) {
		return segment{}, errSegment
	}
	seq, seqErr := strconv.ParseUint(fields[1], 10, 64)
	ack, ackErr := strconv.ParseUint(fields[2], 10, 64)
	data, dataErr := base64.StdEncoding.Strict().DecodeString(fields[3])
	s := segment{fields[0], seq, ack, data}
	if err := errors.Join(seqErr, ackErr, dataErr); err != nil || len(data) > MaxData || seq == 0 && len(data) > 0 || s.text() != strings.TrimSpace(text) {
		return segment{}, errSegment
	}
	return s, nil
}

// isName tells whether s may name a stream.
func isName(s string) bool {
	const allowed = "0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(allowed, r) })
}
