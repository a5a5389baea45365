package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// Limits of one connection.
const (
	handshakeLimit = 5 * time.Second
	firstWordLimit = 8 * time.Second
	writeLimit     = 4 * time.Second
	// slowness is by how much the first two are longer on a slow way: a text of the mailbox takes 0.3 to 1 s (unverified).
	slowness     = 4
	maxStrangers = 8
)

// link is one authenticated connection. The loop owns out; the connection is closed by write when out is.
type link struct {
	id      int
	conn    net.Conn
	out     chan []byte
	adopted chan bool
	by      protocol.Fingerprint // the certificate that the peer has shown, zero without TLS
}

// accept lets at most maxStrangers connections prove themselves at a time.
func (a *Agent) accept(ctx context.Context, l net.Listener) {
	room := make(chan struct{}, maxStrangers)
	for id := 1; ; id++ {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		select {
		case room <- struct{}{}:
			a.group.Go(func() { a.meet(ctx, id, conn, func() { <-room }) })
		default:
			a.drop(conn)
		}
	}
}

func (a *Agent) drop(conn net.Conn) {
	if err := conn.Close(); err != nil {
		a.ring.note(time.Since(a.start), err)
	}
}

// meet proves a new connection, reads its HELLO, and when it is adopted its further words.
func (a *Agent) meet(ctx context.Context, id int, conn net.Conn, known func()) {
	hello, err := a.greet(ctx, conn)
	known()
	if err != nil {
		a.drop(conn)
		return
	}
	hello.Link = id
	k := &link{id: id, conn: conn, out: make(chan []byte, 64), adopted: make(chan bool, 1)}
	if t, ok := conn.(*tls.Conn); ok {
		k.by = protocol.ProvedBy(t.ConnectionState())
	}
	a.post(0, linkMet{k, hello})
	select {
	case ok := <-k.adopted:
		if !ok {
			return
		}
	case <-a.gone:
		a.drop(conn)
		return
	}
	for {
		body, err := protocol.ReadFrame(conn)
		if err != nil {
			a.post(id, LinkLost{})
			return
		}
		m, err := protocol.DecodeForAgent(body)
		if err != nil && !errors.Is(err, protocol.ErrUnknownWord) {
			a.post(id, LinkLost{}) // not our language: nothing that follows can be trusted either
			return
		}
		a.post(id, Msg{m})
	}
}

// linkMet brings a new connection together with its HELLO.
type linkMet struct {
	link  *link
	hello Hello
}

func (linkMet) event() {}

func (a *Agent) greet(ctx context.Context, conn net.Conn) (Hello, error) {
	handshake, firstWord := handshakeLimit, firstWordLimit
	if a.o.Slow {
		handshake, firstWord = slowness*handshake, slowness*firstWord
	}
	if err := conn.SetDeadline(time.Now().Add(firstWord)); err != nil {
		return Hello{}, err
	}
	if t, ok := conn.(*tls.Conn); ok {
		ctx, cancel := context.WithTimeout(ctx, handshake)
		defer cancel()
		if err := t.HandshakeContext(ctx); err != nil {
			return Hello{}, err
		}
	}
	body, err := protocol.ReadFrame(conn)
	if err != nil {
		return Hello{}, err
	}
	m, err := protocol.DecodeForAgent(body)
	if err != nil {
		return Hello{}, err
	}
	h, ok := m.(*protocol.Hello)
	if !ok {
		return Hello{}, fmt.Errorf("the first word is %s, not HELLO", m.Head().T)
	}
	hello := Hello{M: h}
	if !h.Resume { // a resumed session may be frozen: no look at the file systems
		if hello.Volumes, err = a.o.Freezer.Volumes(ctx); err != nil {
			a.ring.note(time.Since(a.start), err) // ARM meets the same error and says it
		}
		if a.o.Uptime != nil {
			hello.Uptime = a.o.Uptime()
		}
		if a.o.Leaked != nil {
			hello.Leaked = a.o.Leaked()
		}
	}
	return hello, conn.SetDeadline(time.Time{})
}

// adopt makes a connection the present one and ends the former.
func (a *Agent) adopt(id int) {
	a.hangUp()
	k := a.met[id]
	delete(a.met, id)
	if a.session != a.state.Session {
		a.session, a.q = a.state.Session, 0
	}
	a.present = k
	a.group.Go(func() { a.write(k) })
	k.adopted <- true
	if a.o.Keeper != nil && a.state.Name == Idle { // a resumed session may be frozen
		proved := func() {
			if err := a.o.Keeper.Proved(k.by); err != nil {
				a.ring.note(time.Since(a.start), err)
			}
		}
		select {
		case a.calls <- proved:
		default: // one who comes again and again; the next session says it too
		}
	}
}

// refuse ends a new connection with a last word.
func (a *Agent) refuse(c Refuse) {
	k := a.met[c.Link]
	delete(a.met, c.Link)
	a.group.Go(func() { a.write(k) })
	k.adopted <- false
	if frame, err := frameOf(c.M); err == nil {
		k.out <- frame
	}
	close(k.out)
}

// send writes a word on the present connection. One that finds no connection is lost, as it would be on a lost one: what
// matters is stored and sent again when asked.
func (a *Agent) send(m protocol.Message) {
	h := m.Head()
	a.q++
	h.V, h.S, h.Q, h.AtUS = protocol.MaxVersion, a.session, a.q, time.Since(a.start).Microseconds()
	if a.present == nil {
		return
	}
	frame, err := frameOf(m)
	if err != nil {
		a.ring.note(time.Since(a.start), err)
		return
	}
	select {
	case a.present.out <- frame:
	default: // a peer that lets 64 words pile up does not read any more
		k := a.present
		a.group.Go(func() { a.post(k.id, LinkLost{}) })
	}
}

func frameOf(m protocol.Message) ([]byte, error) {
	body, err := protocol.Encode(m)
	if err != nil {
		return nil, err
	}
	return protocol.AppendFrame(nil, body)
}

// hangUp ends the present connection after its last words.
func (a *Agent) hangUp() {
	if a.present != nil {
		close(a.present.out)
		a.present = nil
	}
}

// write is the only writer of a connection; it closes it in the end, which also ends its reader.
func (a *Agent) write(k *link) {
	broken := false
	for frame := range k.out {
		if broken {
			continue
		}
		if err := k.conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
			broken = true
		} else if _, err := k.conn.Write(frame); err != nil {
			broken = true
		}
		if broken {
			a.post(k.id, LinkLost{})
		}
	}
	a.drop(k.conn)
}
