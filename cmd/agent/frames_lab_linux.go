//go:build lab

package main

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// What an agent of the lab can do to frames of either direction (STILLFRAME_LAB_FRAMES_TO_GUEST and ..._FROM_GUEST). It
// stands behind TLS, where nobody on the network can: what it does is what a peer with a defect, or one that is hostile,
// would. Those with a word, such as oversized:FROZEN, do it to every frame of that word.
const (
	// framesDoubled carries each frame twice.
	framesDoubled = "doubled"
	// framesReplayed carries every earlier frame of the connection, up to mostReplayed, once more after each frame.
	framesReplayed = "replayed"
	// framesSwapped carries a frame only after the one that follows it.
	framesSwapped = "swapped"
	// framesOversized carries a body of one byte more than a frame may have, in place of the frame's own.
	framesOversized = "oversized"
	// framesEndless gives a frame's body the longest length that there is, 4 GiB - 1.
	framesEndless = "endless"
)

// mostReplayed bounds what is carried again after each frame.
const mostReplayed = 16

// mangler makes what is carried in place of each frame of one direction of one connection. The zero mangler carries all
// as it is.
type mangler struct {
	way, word string
	past      []byte
	count     int
	kept      []byte
}

// newMangler reads a way such as doubled, or way and word such as swapped:FROZEN.
func newMangler(option string) mangler {
	way, word, _ := strings.Cut(option, ":")
	return mangler{way: way, word: word}
}

// carry gives the bytes in place of one whole frame; none when it is held back.
func (m *mangler) carry(frame []byte) []byte {
	switch m.way {
	case framesDoubled:
		return append(append([]byte{}, frame...), frame...)
	case framesReplayed:
		out := append(append([]byte{}, frame...), m.past...)
		if m.count++; m.count <= mostReplayed {
			m.past = append(m.past, frame...)
		}
		return out
	case framesSwapped:
		if wordOf(frame) == m.word {
			m.kept = append(m.kept, frame...)
			return nil
		}
		out := append(append([]byte{}, frame...), m.kept...)
		m.kept = nil
		return out
	case framesOversized:
		if wordOf(frame) == m.word {
			return append(binary.BigEndian.AppendUint32(nil, protocol.MaxFrame+1), make([]byte, protocol.MaxFrame+1)...)
		}
	case framesEndless:
		if wordOf(frame) == m.word {
			return append([]byte{0xff, 0xff, 0xff, 0xff}, frame[4:]...)
		}
	}
	return frame
}

// wordOf is the word of a frame, empty when it has none.
func wordOf(frame []byte) string {
	var head struct {
		T string `json:"t"`
	}
	if len(frame) < 4 || json.Unmarshal(frame[4:], &head) != nil {
		return ""
	}
	return head.T
}

// masked puts a mask over each connection of an agent that lies or mangles frames.
func masked(s seams, l net.Listener) net.Listener {
	if (s.lie == "" || s.lie == lieNeverHeld) && s.toGuest == "" && s.fromGuest == "" {
		return l
	}
	return maskedListener{l, s}
}

type maskedListener struct {
	net.Listener
	s seams
}

func (l maskedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &maskedConn{Conn: conn, lie: l.s.lie, in: newMangler(l.s.toGuest), out: newMangler(l.s.fromGuest)}, nil
}

// maskedConn changes words on their way out, and frames on their way in and out. The agent writes each frame at once;
// one goroutine reads.
type maskedConn struct {
	net.Conn
	lie     string
	in, out mangler
	read    []byte // what of in is not taken yet
}

func (c *maskedConn) Read(p []byte) (int, error) {
	for len(c.read) == 0 {
		body, err := protocol.ReadFrame(c.Conn)
		if err != nil {
			return 0, err
		}
		frame, err := protocol.AppendFrame(nil, body)
		if err != nil {
			return 0, err
		}
		c.read = c.in.carry(frame)
	}
	n := copy(p, c.read)
	c.read = c.read[n:]
	return n, nil
}

func (c *maskedConn) Write(frame []byte) (int, error) {
	if len(frame) < 4 || int(binary.BigEndian.Uint32(frame)) != len(frame)-4 {
		return 0, io.ErrShortWrite
	}
	told, err := twist(c.lie, frame)
	if err != nil {
		return 0, err
	}
	if _, err := c.Conn.Write(c.out.carry(told)); err != nil {
		return 0, err
	}
	return len(frame), nil
}
