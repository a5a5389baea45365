package svcctl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// handoverSize is more than smbd sends of a session: 700 bytes and the SIDs of its groups.
	handoverSize = 1 << 20
	// messageSize is the largest message that smbd takes from us.
	messageSize = 4280
)

// pipe is one open svcctl pipe, as smbd hands it over: messages with a length of 2 bytes before them (Samba,
// libcli/named_pipe_auth/npa_tstream.c, of which these are the facts).
type pipe struct {
	conn    net.Conn
	account string
	pending []byte // what of a message was not read yet
}

// handover reads what smbd says of the session, and takes the pipe.
func handover(conn net.Conn) (*pipe, error) {
	if err := conn.SetDeadline(time.Now().Add(handoverLimit)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 8 || n > handoverSize {
		return nil, fmt.Errorf("smbd hands over a pipe with %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	if string(body[:4]) != "NPAM" {
		return nil, fmt.Errorf("smbd hands over a pipe with % x", body[:8])
	}
	level := body[4:8]
	out := append([]byte{0, 0, 0, 32}, "NPAM"...)
	out = append(append(out, level...), level...)
	out = binary.LittleEndian.AppendUint16(out, 2)      // a pipe of messages
	out = binary.LittleEndian.AppendUint16(out, 0x05ff) // its state
	out = append(out, 0, 0, 0, 0)
	out = binary.LittleEndian.AppendUint64(out, 4096) // its size
	out = append(out, 0, 0, 0, 0)                     // success
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	return &pipe{conn: conn, account: lastText(body)}, conn.SetDeadline(time.Time{})
}

// lastText is the string that a session's description ends with: the name by which the client has logged on. It is empty
// when there is none.
func lastText(body []byte) string {
	for at := len(body) - 13; at >= 0; at-- {
		most, offset, count := binary.LittleEndian.Uint32(body[at:]), binary.LittleEndian.Uint32(body[at+4:]), binary.LittleEndian.Uint32(body[at+8:])
		if offset == 0 && most == count && int64(count) == int64(len(body)-at-12) {
			text, _, ended := bytes.Cut(body[at+12:], []byte{0})
			if !ended {
				return ""
			}
			return string(text)
		}
	}
	return ""
}

// Read gives what messages bring, without regard to where they end.
func (p *pipe) Read(b []byte) (int, error) {
	for len(p.pending) == 0 {
		var size [2]byte
		if _, err := io.ReadFull(p.conn, size[:]); err != nil {
			return 0, err
		}
		p.pending = make([]byte, binary.LittleEndian.Uint16(size[:]))
		if _, err := io.ReadFull(p.conn, p.pending); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.pending)
	p.pending = p.pending[n:]
	return n, nil
}

// send writes one message.
func (p *pipe) send(message []byte) error {
	if len(message) > messageSize {
		return errors.New("a message that smbd does not take")
	}
	if err := p.conn.SetWriteDeadline(time.Now().Add(handoverLimit)); err != nil {
		return err
	}
	_, err := p.conn.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}
