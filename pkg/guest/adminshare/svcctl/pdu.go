package svcctl

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Kinds of PDUs (C706 12.6.4).
const (
	kindRequest  = 0
	kindResponse = 2
	kindFault    = 3
	kindBind     = 11
	kindBindAck  = 12
	kindBindNak  = 13
)

// Flags of a PDU (C706 12.6.3.1).
const (
	flagFirst = 0x01
	flagLast  = 0x02
)

const (
	// headerSize is that of every PDU, stubAt where the stub of a request or a response begins (C706 12.6.3, 12.6.4).
	headerSize, stubAt = 16, 24
	// fragmentSize is the largest PDU that we offer to send and to take: what Windows offers itself over a pipe.
	fragmentSize = 4280
	// leastFragment is what each side has to take (C706 12.6.3.1, MustRecvFragSize).
	leastFragment = 1432
	// replyLimit and fragmentLimit bound one reply: a peer that is confused or hostile must not make us allocate or read on.
	replyLimit, fragmentLimit = 1 << 20, 1024
	// readSize is more than any message of the pipe: SMB loses what a smaller read does not take (STATUS_BUFFER_OVERFLOW).
	readSize = 64 << 10
)

// The interface of the service control manager (MS-SCMR 1.9) and the transfer syntax NDR (C706 appendix N), each with its
// version, as they go over the wire: the first three groups of digits are little-endian.
var (
	interfaceSyntax = [20]byte{
		0x81, 0xbb, 0x7a, 0x36, 0x44, 0x98, 0xf1, 0x35, 0xad, 0x32, 0x98, 0xf0, 0x38, 0x00, 0x10, 0x03, 2, 0, 0, 0,
	}
	transferSyntax = [20]byte{
		0x04, 0x5d, 0x88, 0x8a, 0xeb, 0x1c, 0xc9, 0x11, 0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48, 0x60, 2, 0, 0, 0,
	}
)

// association is a bound pipe. After a reply that did not come whole, or was none, it gives that error for ever: what
// comes next could belong to another call.
type association struct {
	w       io.Writer
	r       *bufio.Reader
	callID  uint32
	largest int // PDU that the peer takes
	broken  error
}

// bind opens an association with the service control manager.
func bind(pipe io.ReadWriter) (*association, error) {
	a := &association{w: pipe, r: bufio.NewReaderSize(pipe, readSize), largest: leastFragment}
	body := binary.LittleEndian.AppendUint16(nil, fragmentSize)
	body = binary.LittleEndian.AppendUint16(body, fragmentSize)
	body = append(body, 0, 0, 0, 0) // no association group
	body = append(body, 1, 0, 0, 0) // one context,
	body = append(body, 0, 0, 1, 0) // number 0, with one transfer syntax
	body = append(body, interfaceSyntax[:]...)
	body = append(body, transferSyntax[:]...)
	if err := a.send("bind", kindBind, body); err != nil {
		return nil, err
	}
	p, err := a.receive("bind")
	if err != nil {
		return nil, err
	}
	if a.largest, err = accepted(p); err != nil {
		return nil, err
	}
	return a, nil
}

// accepted reads the answer to a bind: the largest PDU that the peer takes.
func accepted(p pdu) (largest int, err error) {
	switch p.kind {
	case kindBindAck:
	case kindBindNak: // the reason says why not even the syntax was looked at
		return 0, &Fault{Op: "bind", Status: unknownInterface}
	case kindFault:
		if len(p.body) >= 12 {
			return 0, &Fault{Op: "bind", Status: binary.LittleEndian.Uint32(p.body[8:])}
		}
		fallthrough
	default:
		return 0, violation("bind", "a PDU of kind %d", p.kind)
	}
	if p.flags&(flagFirst|flagLast) != flagFirst|flagLast || len(p.body) < 10 {
		return 0, violation("bind", "an answer of %d bytes with flags %#x", len(p.body), p.flags)
	}
	largest = int(binary.LittleEndian.Uint16(p.body[2:])) // what it takes; what it sends comes first
	// The name of the secondary address follows, and the results begin at a multiple of 4 in the PDU.
	at := 10 + int(binary.LittleEndian.Uint16(p.body[8:]))
	at = (at+headerSize+3)&^3 - headerSize
	if len(p.body) < at+8 || p.body[at] != 1 || largest < leastFragment {
		return 0, violation("bind", "an answer without a result")
	}
	if binary.LittleEndian.Uint16(p.body[at+4:]) != 0 {
		return 0, &Fault{Op: "bind", Status: unknownInterface}
	}
	return min(largest, fragmentSize), nil
}

// call sends a request in one PDU and gathers the stub of its response.
func (a *association) call(op string, number uint16, stub []byte) ([]byte, error) {
	if len(stub)+stubAt > a.largest {
		return nil, fmt.Errorf("%s: %w: %d bytes, the peer takes %d in one piece", op, ErrTooLong, len(stub)+stubAt, a.largest)
	}
	body := binary.LittleEndian.AppendUint32(nil, uint32(len(stub)))
	body = binary.LittleEndian.AppendUint16(body, 0) // the context that bind made
	body = binary.LittleEndian.AppendUint16(body, number)
	if err := a.send(op, kindRequest, append(body, stub...)); err != nil {
		return nil, err
	}
	out, err := a.gather(op)
	var fault *Fault
	if err != nil && !errors.As(err, &fault) { // after a fault the association goes on
		a.broken = err
	}
	return out, err
}

// gather puts the fragments of a response together.
func (a *association) gather(op string) (stub []byte, err error) {
	for n := 0; n < fragmentLimit; n++ {
		p, err := a.receive(op)
		if err != nil {
			return nil, err
		}
		switch {
		case p.kind == kindFault && len(p.body) >= 12:
			return nil, &Fault{Op: op, Status: binary.LittleEndian.Uint32(p.body[8:])}
		case p.kind != kindResponse || len(p.body) < stubAt-headerSize:
			return nil, violation(op, "a PDU of kind %d with %d bytes", p.kind, len(p.body))
		case (p.flags&flagFirst != 0) != (n == 0):
			return nil, violation(op, "fragment %d with flags %#x", n, p.flags)
		case binary.LittleEndian.Uint16(p.body[4:]) != 0:
			return nil, violation(op, "a reply of another context")
		case len(stub)+len(p.body) > replyLimit:
			return nil, violation(op, "a reply of more than %d bytes", replyLimit)
		}
		stub = append(stub, p.body[stubAt-headerSize:]...)
		if p.flags&flagLast != 0 {
			return stub, nil
		}
	}
	return nil, violation(op, "a reply of more than %d fragments", fragmentLimit)
}

// send writes one PDU, whole, with the next call's number.
func (a *association) send(op string, kind byte, body []byte) error {
	if a.broken != nil {
		return fmt.Errorf("%s: the pipe is not used after an earlier error: %w", op, a.broken)
	}
	a.callID++
	out := []byte{5, 0, kind, flagFirst | flagLast, 0x10, 0, 0, 0}
	out = binary.LittleEndian.AppendUint16(out, uint16(headerSize+len(body)))
	out = binary.LittleEndian.AppendUint16(out, 0) // no authentication: SMB has done it
	out = binary.LittleEndian.AppendUint32(out, a.callID)
	if _, err := a.w.Write(append(out, body...)); err != nil {
		a.broken = fmt.Errorf("%s: write to the service control manager's pipe: %w", op, err)
		return a.broken
	}
	return nil
}

// pdu is what one PDU brought, behind its header.
type pdu struct {
	kind, flags byte
	body        []byte
}

// receive reads one PDU of the call that was sent last.
func (a *association) receive(op string) (pdu, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(a.r, head[:]); err != nil {
		return pdu{}, fmt.Errorf("%s: read from the service control manager's pipe: %w", op, err)
	}
	size := int(binary.LittleEndian.Uint16(head[8:]))
	switch {
	case head[0] != 5 || head[1] > 1 || head[4] != 0x10:
		return pdu{}, violation(op, "a PDU that begins with % x", head[:8])
	case binary.LittleEndian.Uint16(head[10:]) != 0:
		return pdu{}, violation(op, "an authenticated PDU, which nobody asked for")
	case binary.LittleEndian.Uint32(head[12:]) != a.callID:
		return pdu{}, violation(op, "the answer to call %d instead of %d", binary.LittleEndian.Uint32(head[12:]), a.callID)
	case size < headerSize:
		return pdu{}, violation(op, "a PDU of %d bytes", size)
	}
	p := pdu{kind: head[2], flags: head[3], body: make([]byte, size-headerSize)}
	if _, err := io.ReadFull(a.r, p.body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return pdu{}, fmt.Errorf("%s: read from the service control manager's pipe: %w", op, err)
	}
	return p, nil
}

// violation notes that the peer broke the protocol, after which nothing of it is believed.
func (a *association) violation(op, format string, args ...any) error {
	a.broken = violation(op, format, args...)
	return a.broken
}

func violation(op, format string, args ...any) error {
	return &Violation{Op: op, What: fmt.Sprintf(format, args...)}
}

// nul finds what is refused in names and paths: Windows would see another one than we do.
func nul(s string) bool { return strings.ContainsRune(s, 0) }
