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

// Kinds and flags of PDUs, and statuses of faults (C706 12.6, MS-RPCE 2.2.2.11).
const (
	pduRequest, pduResponse, pduFault      = 0, 2, 3
	pduBind, pduBindAck                    = 11, 12
	pduAlterContext, pduAlterContextAnswer = 14, 15

	first, last = 0x01, 0x02

	headerSize = 16
	// requestSize bounds a request in fragments: the longest command line has 32 Ki characters (MS-SCMR 3.1.4.12).
	requestSize = 1 << 18

	faultNoSuchCall  = 0x1c010002 // nca_s_op_rng_error
	faultNoInterface = 0x1c010003 // nca_s_unk_if
	faultBadStub     = 0x000006f7 // RPC_X_BAD_STUB_DATA
)

// The interface of MS-SCMR with its version, and the transfer syntax NDR with its own, as bytes of the wire.
var (
	scmr = []byte("\x81\xbb\x7a\x36\x44\x98\xf1\x35\xad\x32\x98\xf0\x38\x00\x10\x03\x02\x00\x00\x00")
	ndr  = []byte("\x04\x5d\x88\x8a\xeb\x1c\xc9\x11\x9f\xe8\x08\x00\x2b\x10\x48\x60\x02\x00\x00\x00")
)

// conversation is what one pipe has come to.
type conversation struct {
	server   *Server
	pipe     *pipe
	contexts map[uint16]bool // those that the client may use
	fragment int             // the largest PDU that the client takes
	handles  map[handle]object
}

// serve answers on one pipe until its client goes, or breaks the protocol.
func serve(s *Server, conn net.Conn) {
	p, err := handover(conn)
	if err != nil {
		return
	}
	c := &conversation{server: s, pipe: p, contexts: map[uint16]bool{}, fragment: messageSize, handles: map[handle]object{}}
	for err == nil {
		err = c.turn()
	}
}

// pdu is one of a client's.
type pdu struct {
	kind, flags byte
	call        uint32
	body        []byte
}

func (c *conversation) receive() (pdu, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(c.pipe, head[:]); err != nil {
		return pdu{}, err
	}
	size := int(binary.LittleEndian.Uint16(head[8:]))
	if head[0] != 5 || head[4] != 0x10 || size < headerSize || binary.LittleEndian.Uint16(head[10:]) != 0 {
		return pdu{}, fmt.Errorf("a PDU that begins with % x", head)
	}
	p := pdu{kind: head[2], flags: head[3], call: binary.LittleEndian.Uint32(head[12:]), body: make([]byte, size-headerSize)}
	_, err := io.ReadFull(c.pipe, p.body)
	return p, err
}

// turn takes one request and answers it.
func (c *conversation) turn() error {
	p, err := c.receive()
	if err != nil {
		return err
	}
	switch p.kind {
	case pduBind, pduAlterContext:
		return c.bind(p)
	case pduRequest:
		return c.request(p)
	default:
		return fmt.Errorf("a PDU of kind %d", p.kind)
	}
}

// bind accepts the contexts of our interface in NDR and refuses the others.
func (c *conversation) bind(p pdu) error {
	if len(p.body) < 12 {
		return errors.New("a short bind")
	}
	f := c.server.fault(Bind)
	if f != nil && f.Effect == RPCFault {
		return c.answer(fault(p.call, 0, faultNoInterface), nil)
	}
	if offered := int(binary.LittleEndian.Uint16(p.body[2:])); offered >= 1432 && offered < c.fragment {
		c.fragment = offered
	}
	results := []byte{p.body[8], 0, 0, 0}
	at := 12
	for range p.body[8] {
		if len(p.body) < at+24 {
			return errors.New("a short bind")
		}
		id, syntaxes, abstract := binary.LittleEndian.Uint16(p.body[at:]), int(p.body[at+2]), p.body[at+4:at+24]
		at += 24
		if len(p.body) < at+20*syntaxes {
			return errors.New("a short bind")
		}
		good := false
		for i := range syntaxes {
			good = good || bytes.Equal(abstract, scmr) && bytes.Equal(p.body[at+20*i:at+20*i+20], ndr)
		}
		at += 20 * syntaxes
		switch {
		case good:
			c.contexts[id] = true
			results = append(append(results, 0, 0, 0, 0), ndr...)
		case bytes.Equal(abstract, scmr): // provider rejection: the transfer syntaxes are not supported
			results = append(results, append([]byte{2, 0, 2, 0}, make([]byte, 20)...)...)
		default: // ... the abstract syntax is not
			results = append(results, append([]byte{2, 0, 1, 0}, make([]byte, 20)...)...)
		}
	}
	body := binary.LittleEndian.AppendUint16(nil, messageSize)
	body = binary.LittleEndian.AppendUint16(body, messageSize)
	body = binary.LittleEndian.AppendUint32(body, 0x53cb)
	name := "\\PIPE\\ntsvcs\x00"
	body = append(binary.LittleEndian.AppendUint16(body, uint16(len(name))), name...)
	for (headerSize+len(body))%4 != 0 {
		body = append(body, 0)
	}
	kind := map[byte]byte{pduBind: pduBindAck, pduAlterContext: pduAlterContextAnswer}[p.kind]
	return c.answer(encode(kind, first|last, p.call, append(body, results...)), f)
}

// request gathers a request, makes its call and answers it.
func (c *conversation) request(p pdu) error {
	if len(p.body) < 8 || p.flags&first == 0 {
		return errors.New("a request without a beginning")
	}
	context, number := binary.LittleEndian.Uint16(p.body[4:]), binary.LittleEndian.Uint16(p.body[6:])
	in := p.body[8:]
	for flags := p.flags; flags&last == 0; {
		next, err := c.receive()
		if err != nil {
			return err
		}
		if next.kind != pduRequest || next.call != p.call || len(next.body) < 8 || len(in)+len(next.body) > requestSize {
			return errors.New("a request that does not go on")
		}
		in, flags = append(in, next.body[8:]...), next.flags
	}
	call, known := calls[number]
	if !c.contexts[context] || !known {
		status := uint32(faultNoInterface)
		if c.contexts[context] {
			status = faultNoSuchCall
		}
		c.server.note(Record{Call: unknownNumberOfCall, Account: c.pipe.account})
		return c.answer(fault(p.call, context, status), nil)
	}
	f := c.server.fault(call.name)
	if f != nil && f.Effect == RPCFault {
		c.server.note(Record{Call: call.name, Account: c.pipe.account})
		return c.answer(fault(p.call, context, faultNoSuchCall), nil)
	}
	r := &request{rest: in}
	out, record := c.make(call, r, f)
	if r.bad {
		return c.answer(fault(p.call, context, faultBadStub), nil)
	}
	c.server.note(record)
	return c.answer(respond(p.call, context, out, c.fragment), f)
}

// answer sends PDUs, each as a message, or what a fault makes of them.
func (c *conversation) answer(pdus []byte, f *Fault) error {
	effect := Refuse
	if f != nil {
		effect = f.Effect
	}
	switch effect {
	case Hang:
		_, err := io.Copy(io.Discard, c.pipe)
		return errors.Join(errors.New("nothing is answered any more"), err)
	case Cut:
		return errors.Join(errors.New("closed within an answer"), c.pipe.send(pdus[:headerSize+1]))
	case Split:
		for i := range pdus {
			if err := c.pipe.send(pdus[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	case Late:
		select {
		case <-c.server.gone:
			return net.ErrClosed
		case <-time.After(f.Delay):
		}
		fallthrough
	default:
		for len(pdus) > 0 {
			size := binary.LittleEndian.Uint16(pdus[8:])
			if err := c.pipe.send(pdus[:size]); err != nil {
				return err
			}
			pdus = pdus[size:]
		}
		return nil
	}
}

func encode(kind, flags byte, call uint32, body []byte) []byte {
	out := []byte{5, 0, kind, flags, 0x10, 0, 0, 0}
	out = binary.LittleEndian.AppendUint16(out, uint16(headerSize+len(body)))
	out = binary.LittleEndian.AppendUint16(out, 0)
	return append(binary.LittleEndian.AppendUint32(out, call), body...)
}

func fault(call uint32, context uint16, status uint32) []byte {
	body := binary.LittleEndian.AppendUint32(nil, 32)
	body = binary.LittleEndian.AppendUint16(body, context)
	body = binary.LittleEndian.AppendUint16(body, 0)
	body = binary.LittleEndian.AppendUint32(body, status)
	return encode(pduFault, first|last, call, append(body, 0, 0, 0, 0))
}

// respond is a response in PDUs of at most size bytes.
func respond(call uint32, context uint16, stub []byte, size int) []byte {
	var out []byte
	for flags := byte(first); ; flags = 0 {
		body := binary.LittleEndian.AppendUint32(nil, uint32(len(stub)))
		body = binary.LittleEndian.AppendUint16(body, context)
		body = append(body, 0, 0)
		part := stub[:min(len(stub), size-headerSize-len(body))]
		stub = stub[len(part):]
		if len(stub) == 0 {
			flags |= last
		}
		out = append(out, encode(pduResponse, flags, call, append(body, part...))...)
		if len(stub) == 0 {
			return out
		}
	}
}
