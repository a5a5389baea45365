package adminshare

import (
	"encoding/binary"
	"net"
	"sync"
)

// Layout of SMB2 over TCP (MS-SMB2 2.1, 2.2.1.2, 2.2.4, 2.2.6): a length of four bytes, whose first is 0, then a header of
// 64 bytes, then the body.
const (
	lengthBytes = 4
	headerBytes = 64
	// keptBytes is how much of a frame is looked at: the fields wanted lie in the first bytes of the body.
	keptBytes = headerBytes + 8

	commandNegotiate    = 0
	commandSessionSetup = 1
	statusSuccess       = 0

	// securityRequired is SMB2_NEGOTIATE_SIGNING_REQUIRED of a server's reply.
	securityRequired = 0x02
	// flags of the session in the last reply of its setup
	sessionGuest    = 0x0001
	sessionNull     = 0x0002
	sessionEncrypts = 0x0004
)

// terms are what a server agreed to at the beginning of a session.
type terms struct {
	// negotiated is true once the server has answered NEGOTIATE: it speaks SMB2 or newer.
	negotiated bool
	dialect    uint16
	// signingRequired is the server's own demand.
	signingRequired bool
	// set is true once the session was set up; guest and encrypts are about it.
	set, guest, encrypts bool
}

// watched is a connection that looks at the first replies that pass and changes nothing. The libraries do not tell what the
// server agreed to.
type watched struct {
	net.Conn

	mu    sync.Mutex
	terms terms
	head  []byte // of the present frame, at most lengthBytes+keptBytes
	left  int    // what is left of the present frame after head
}

// Read implements net.Conn.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.terms.set {
		w.look(p[:n])
	}
	return n, err
}

// agreed gives what the server has agreed to so far.
func (w *watched) agreed() terms {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.terms
}

// look takes the next bytes of the stream.
func (w *watched) look(p []byte) {
	for len(p) > 0 && !w.terms.set {
		if w.left > 0 {
			n := min(w.left, len(p))
			w.left -= n
			p = p[n:]
			continue
		}
		want := lengthBytes
		if len(w.head) >= lengthBytes {
			want += min(int(binary.BigEndian.Uint32(w.head)&0xffffff), keptBytes)
		}
		n := min(want-len(w.head), len(p))
		w.head = append(w.head, p[:n]...)
		p = p[n:]
		if len(w.head) < want || len(w.head) == lengthBytes && binary.BigEndian.Uint32(w.head)&0xffffff > 0 {
			continue
		}
		size := int(binary.BigEndian.Uint32(w.head) & 0xffffff)
		w.left = size - (len(w.head) - lengthBytes)
		w.frame(w.head[lengthBytes:])
		w.head = w.head[:0]
	}
}

// frame takes the beginning of one frame.
func (w *watched) frame(f []byte) {
	if len(f) < keptBytes || string(f[:4]) != "\xfeSMB" {
		return
	}
	status, command, body := binary.LittleEndian.Uint32(f[8:]), binary.LittleEndian.Uint16(f[12:]), f[headerBytes:]
	switch {
	case command == commandNegotiate && status == statusSuccess:
		w.terms.negotiated = true
		w.terms.signingRequired = binary.LittleEndian.Uint16(body[2:])&securityRequired != 0
		w.terms.dialect = binary.LittleEndian.Uint16(body[4:])
	case command == commandSessionSetup && status == statusSuccess:
		flags := binary.LittleEndian.Uint16(body[2:])
		w.terms.set = true
		w.terms.guest = flags&(sessionGuest|sessionNull) != 0
		w.terms.encrypts = flags&sessionEncrypts != 0
	}
}
