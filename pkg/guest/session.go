package guest

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/internal/failpoint"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// Limits of one session, no two equal.
const (
	dialLimit  = 5 * time.Second
	helloLimit = 8 * time.Second
	sendLimit  = time.Second
	armLimit   = 10*time.Minute + 5*time.Second
	endLimit   = 20 * time.Second
	// hooksLimit is added where the guest's post-thaw hooks, 30 s of them, come before the answer.
	hooksLimit = 16 * time.Second
	beatEvery  = 5 * time.Second
	// silenceLimit is how long an answer is waited for while the agent does not answer heartbeats either: a little longer
	// than the agent's own 30 s.
	silenceLimit = 32 * time.Second
	// refusals in a row that make sure that nobody listens any more, and not only a restart of something between.
	refusalsGone = 3
	rttProbes    = 5
	rttLimit     = 2 * time.Second
	// standsEvery is the time between two looks at whether a word has come.
	standsEvery = 100 * time.Millisecond
)

// Peer is where the agent is and how both sides know each other.
type Peer struct {
	// Dial opens a plain connection to the agent, which is the server of TLS on it.
	Dial func(ctx context.Context) (net.Conn, error)
	// Await is there in place of Dial when it is the agent that dials: it gives the next connection that the agent made, on
	// which we are the server of TLS and the agent has proved itself (Caller.Await).
	Await func(ctx context.Context) (*tls.Conn, error)
	// Slow says that words take seconds on their way, as through a mailbox: limits are longer then, heartbeats rare and none
	// in the window, THAW is said once on a connection, and no guest is held in the mode io.
	Slow bool
	// Own is our certificate, Fingerprint the agent's, Next the one that a persistent agent has announced; zero for none.
	Own               tls.Certificate
	Fingerprint, Next protocol.Fingerprint
	// Deployment is the TLS server name; VMUUID and SHA256 are what the agent must say of itself.
	Deployment, VMUUID string
	SHA256             [32]byte
	// AnyProgram lets in a persistent agent whose program is not the one of SHA256: it was not pushed by us, so its
	// certificate alone proves it.
	AnyProgram bool
	Run        string
	Epoch      uint64
}

// Session is one session with one agent. It satisfies freezewindow.Guest. One goroutine at a time calls Arm, Complete,
// Abort and Close; Send, Events and Resume belong to the window that runs between Arm and Complete.
type Session struct {
	peer Peer
	pace pace
	id   string
	// Hello is how the agent introduced itself.
	Hello *protocol.HelloAnswer
	// Proved is the certificate that the agent has shown on the last connection: Peer.Fingerprint or Peer.Next.
	Proved protocol.Fingerprint

	// lock guards the connection and the sequences. It is a channel because it is held while a word is written.
	lock     chan struct{}
	conn     net.Conn
	q        uint64
	heard    uint64
	start    time.Time
	inWindow bool
	moving   bool     // of data, after the window
	thawing  net.Conn // on which THAW was said
	dropped  int
	refused  int

	hooked bool // the guest has hooks
	// Ready is the agent's answer to ARM, nil before it.
	Ready *protocol.Ready
	// Closed is true once the agent has said that its session with the guest's applications is over. Read it between calls.
	Closed bool

	answers chan protocol.Message
	events  chan freezewindow.GuestEvent
	down    chan struct{} // closed when the present connection is lost
	closed  chan struct{}
	group   sync.WaitGroup
}

// Connect dials the agent, proves both sides and says HELLO. The caller closes the session.
func Connect(ctx context.Context, peer Peer) (*Session, error) {
	s := &Session{
		peer: peer, pace: quick(), id: newID(), lock: make(chan struct{}, 1), start: time.Now(),
		answers: make(chan protocol.Message, 16), events: make(chan freezewindow.GuestEvent, 256), closed: make(chan struct{}),
	}
	if peer.Slow {
		s.pace = slow()
	}
	if err := s.connect(ctx, false); err != nil {
		return nil, err
	}
	s.group.Go(s.beat)
	return s, nil
}

// connect makes a connection and says HELLO on it.
func (s *Session) connect(ctx context.Context, resume bool) error {
	conn, err := s.open(ctx)
	if err != nil {
		return err
	}
	answer, err := s.hello(ctx, conn, resume)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	if !resume {
		s.Hello = answer
	}
	s.Proved = protocol.ProvedBy(conn.ConnectionState())
	return nil
}

// open makes a connection on which both sides are proved, in the role of TLS that the peer leaves to us.
func (s *Session) open(ctx context.Context) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.pace.dial)
	defer cancel()
	if s.peer.Await != nil {
		return s.await(ctx)
	}
	plain, err := s.peer.Dial(ctx)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			s.refused++
		}
		return nil, &Error{SF: "SF3701", Op: "connect to the agent", Err: err, gone: s.refused >= refusalsGone}
	}
	s.refused = 0
	conn := tls.Client(plain, protocol.ClientTLS(s.peer.Own, s.peer.Fingerprint, s.peer.Deployment, s.peer.Next))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, unproved(errors.Join(err, plain.Close()))
	}
	return conn, nil
}

// await waits for a connection that the agent makes.
func (s *Session) await(ctx context.Context) (*tls.Conn, error) {
	conn, err := s.peer.Await(ctx)
	switch {
	case errors.Is(err, protocol.ErrFingerprint):
		return nil, unproved(err)
	case err != nil:
		return nil, &Error{SF: "SF3701", Op: "wait for the agent to dial", Err: err, gone: errors.Is(err, net.ErrClosed)}
	}
	if err := proved(conn, s.peer.Fingerprint); err != nil {
		return nil, unproved(errors.Join(err, conn.NetConn().Close()))
	}
	return conn, nil
}

// unproved is the error of a peer that is not the agent, or that was not heard out.
func unproved(err error) error {
	sf := "SF3701"
	if errors.Is(err, protocol.ErrFingerprint) {
		sf = "SF3702"
	}
	return &Error{SF: sf, Op: "prove the agent's identity", Err: err}
}

// hello exchanges HELLO on a new connection, and makes it the present one.
func (s *Session) hello(ctx context.Context, conn net.Conn, resume bool) (*protocol.HelloAnswer, error) {
	limit, cancel := context.WithTimeout(ctx, s.pace.hello)
	defer cancel()
	stop := context.AfterFunc(limit, func() { closeQuietly(conn) })
	defer stop()
	nonce := newID()
	h := &protocol.Hello{
		MinV: protocol.MinVersion, MaxV: protocol.MaxVersion, Nonce: nonce, VMUUID: s.peer.VMUUID,
		Run: s.peer.Run, Epoch: s.peer.Epoch, Resume: resume,
	}
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	s.seal(h, protocol.WordHello)
	failpoint.Before("agent", protocol.WordHello)
	if err := write(conn, h); err != nil {
		return nil, &Error{SF: "SF3701", Op: "say HELLO", Err: errors.Join(err, context.Cause(limit))}
	}
	body, err := protocol.ReadFrame(conn)
	failpoint.After("agent", protocol.WordHello)
	if err != nil {
		return nil, &Error{SF: "SF3701", Op: "wait for the agent's HELLO", Err: errors.Join(err, context.Cause(limit))}
	}
	m, err := protocol.DecodeForOrchestrator(body)
	if err != nil {
		return nil, &Error{SF: "SF3901", Op: "read the agent's HELLO", Err: err}
	}
	switch m := m.(type) {
	case *protocol.HelloAnswer:
		if err := s.check(m, nonce, resume); err != nil {
			return nil, &Error{SF: "SF3704", Op: "check the agent's HELLO", Err: err}
		}
		if !stop() {
			return nil, &Error{SF: "SF3701", Op: "wait for the agent's HELLO", Err: context.Cause(limit)}
		}
		if !resume {
			s.heard = 0
		}
		s.heard = max(s.heard, m.Q)
		s.conn, s.down = conn, make(chan struct{})
		down := s.down
		s.group.Go(func() { s.read(conn, down) })
		return m, nil
	case *protocol.Error:
		return nil, &Error{SF: AgentCode(m.Code, codeProtocol), Op: "say HELLO", Err: errors.New("the agent answered: " + m.Text), gone: true}
	}
	return nil, &Error{SF: "SF3901", Op: "read the agent's HELLO", Err: fmt.Errorf("the agent answered %s", m.Head().T)}
}

// check compares what the agent says of itself with what we pushed and where.
func (s *Session) check(m *protocol.HelloAnswer, nonce string, resume bool) error {
	switch {
	case m.V < protocol.MinVersion || m.V > protocol.MaxVersion:
		return fmt.Errorf("it speaks protocol version %d, we %d..%d", m.V, protocol.MinVersion, protocol.MaxVersion)
	case m.NonceEcho != nonce:
		return errors.New("it did not echo our nonce: a replay")
	case m.S != s.id:
		return fmt.Errorf("it answered for session %q", m.S)
	case !protocol.SameUUID(m.VMUUID, s.peer.VMUUID):
		return fmt.Errorf("it runs in a VM with uuid %q, not in %q", m.VMUUID, s.peer.VMUUID)
	case !s.peer.AnyProgram && m.ExeSHA256 != hex.EncodeToString(s.peer.SHA256[:]):
		return fmt.Errorf("its program has the SHA-256 %s, not that of the one we pushed", m.ExeSHA256)
	case resume && s.Hello != nil && m.BootID != s.Hello.BootID:
		return errors.New("the guest was rebooted")
	}
	return nil
}

// seal fills in the envelope; the caller holds the lock.
func (s *Session) seal(m protocol.Message, t protocol.Word) {
	s.q++
	h := m.Head()
	h.V, h.T, h.S, h.Q, h.AtUS = protocol.MaxVersion, t, s.id, s.q, time.Since(s.start).Microseconds()
}

func write(conn net.Conn, m protocol.Message) error {
	body, err := protocol.Encode(m)
	if err != nil {
		return err
	}
	frame, err := protocol.AppendFrame(nil, body)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	_, err = conn.Write(frame)
	return err
}

// say writes one word on the present connection. After an error the connection is closed, which its reader tells.
func (s *Session) say(m protocol.Message, t protocol.Word) error {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	s.seal(m, t)
	if s.conn == nil {
		return net.ErrClosed
	}
	failpoint.Before("agent", t)
	err := write(s.conn, m)
	failpoint.After("agent", t)
	if err != nil {
		conn := s.conn
		s.conn = nil
		return errors.Join(err, conn.Close())
	}
	return nil
}

// Send writes one word of the window; see freezewindow.Guest.
func (s *Session) Send(_ context.Context, w freezewindow.Word) error {
	var err error
	switch {
	case w.Hold > 0:
		s.lock <- struct{}{}
		s.inWindow = true
		lost := s.conn == nil
		<-s.lock
		if lost { // lost before the window: its reader is gone, so nobody else tells
			s.tell(freezewindow.LinkLost{Err: net.ErrClosed})
		}
		err = s.say(&protocol.Go{Go: w.Go, HoldMS: w.Hold.Milliseconds()}, protocol.WordGo)
	case w.Thaw != "":
		if s.said() {
			return nil
		}
		err = s.say(&protocol.Thaw{Go: w.Go, Reason: string(w.Thaw)}, protocol.WordThaw)
	case !s.peer.Slow:
		err = s.say(&protocol.Heartbeat{}, protocol.WordHeartbeat)
	}
	if err != nil {
		return fmt.Errorf("write to the agent: %w", err)
	}
	return nil
}

// said says whether THAW is on its way already, where it is said once only, and that it is from now on.
func (s *Session) said() bool {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	before := s.thawing
	s.thawing = s.conn
	return s.peer.Slow && s.conn != nil && before == s.conn
}

// Events gives what the agent says in the window, and LinkLost.
func (s *Session) Events() <-chan freezewindow.GuestEvent { return s.events }

// Resume makes a new connection and resumes the session, within dialLimit and helloLimit. Where words take seconds, one that
// stands is given time to answer first.
func (s *Session) Resume(ctx context.Context) error {
	if s.pace.answer > 0 {
		if s.stands(ctx) {
			return nil
		}
		if ctx.Err() != nil { // the connection may still be good for who comes next
			return &Error{SF: "SF3701", Op: "wait for the agent", Err: context.Cause(ctx)}
		}
	}
	s.lock <- struct{}{}
	old, down := s.conn, s.down
	s.conn = nil
	<-s.lock
	if old != nil {
		closeQuietly(old)
	}
	<-down // the old reader has told its loss, so that it cannot be taken for one of the new connection
	return s.connect(ctx, true)
}

// stands waits for a word on the present connection, and says whether one came.
func (s *Session) stands(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, s.pace.answer)
	defer cancel()
	s.lock <- struct{}{}
	before, down, lost := s.heard, s.down, s.conn == nil
	<-s.lock
	ticker := time.NewTicker(standsEvery)
	defer ticker.Stop()
	for !lost {
		select {
		case <-down:
			return false
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		s.lock <- struct{}{}
		heard := s.heard > before
		lost = s.conn == nil
		<-s.lock
		if heard && !lost {
			return true
		}
	}
	return false
}

// read is the only reader of a connection.
func (s *Session) read(conn net.Conn, down chan struct{}) {
	err := s.readAll(conn)
	closeQuietly(conn)
	s.lock <- struct{}{}
	present := s.conn == conn || s.down == down
	if s.conn == conn {
		s.conn = nil
	}
	<-s.lock
	if present {
		s.tell(freezewindow.LinkLost{Err: err})
	}
	close(down)
}

func (s *Session) readAll(conn net.Conn) error {
	for {
		body, err := protocol.ReadFrame(conn)
		if err != nil {
			return err
		}
		received := time.Now()
		m, err := protocol.DecodeForOrchestrator(body)
		if errors.Is(err, protocol.ErrUnknownWord) {
			continue
		}
		if err != nil {
			return err
		}
		if s.stale(m.Head()) {
			continue
		}
		s.route(m, received)
	}
}

// stale drops and counts what is replayed or of another session.
func (s *Session) stale(h *protocol.Envelope) bool {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	if h.S != s.id || h.Q <= s.heard {
		s.dropped++
		return true
	}
	s.heard = h.Q
	return false
}

// route brings a word to who waits for it.
func (s *Session) route(m protocol.Message, received time.Time) {
	s.lock <- struct{}{}
	inWindow := s.inWindow
	<-s.lock
	var e freezewindow.Event
	switch m := m.(type) {
	case *protocol.Frozen:
		e = frozenEvent(m)
	case *protocol.Thawed:
		e = thawedEvent(m)
	case *protocol.Error:
		e = freezewindow.GuestError{Code: AgentCode(m.Code, codeProtocol), Text: m.Text, Fatal: m.Fatal}
	case *protocol.Heartbeat:
		e = freezewindow.GuestBeat{State: m.State, Hold: us(m.HoldUS), Left: us(m.LeftUS)}
	}
	if inWindow && e != nil {
		s.tellAt(e, received)
		return
	}
	select {
	case s.answers <- m:
	default: // nobody asked for so many words
	}
}

func us(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

func frozenEvent(m *protocol.Frozen) freezewindow.Event {
	return freezewindow.GuestFrozen{
		Go: m.Go, Mode: freezewindow.Mode(m.Mode), Hold: us(m.HoldUS), SinceGo: us(m.SinceGoUS), IO: us(m.IOUS), Left: us(m.LeftUS),
	}
}

func thawedEvent(m *protocol.Thawed) freezewindow.Event {
	r := freezewindow.Release{
		WasHeld: m.WasHeld, ThawArrived: us(m.ThawArrivedUS), Held: us(m.HeldUS), IO: us(m.IOUS), Expired: m.Expired, ExpiredBy: m.ExpiredBy,
		Finished: m.Finished, MaxGap: us(m.MaxGapUS), SetResult: m.SetResult, Witness: witness(m.Witness),
	}
	for _, t := range m.ThawResults {
		if t.OK {
			r.Thawed = append(r.Thawed, t.Mount)
			continue
		}
		if r.Failed == nil {
			r.Failed = map[string]string{}
		}
		r.Failed[t.Mount] = t.Error
	}
	for _, h := range m.Hooks {
		r.Hooks = append(r.Hooks, freezewindow.Hook{
			Name: h.Name, Point: h.Point, OK: h.OK, Held: us(h.HeldUS), Required: h.Required, Holds: h.Holds, Error: h.Error,
		})
	}
	r.Writers = writers(m.Writers)
	for _, e := range m.Events {
		r.Events = append(r.Events, freezewindow.LogEvent{Provider: e.Provider, ID: e.ID, Channel: e.Channel, HR: e.HR, Age: us(e.AgeUS), Text: e.Text})
	}
	return freezewindow.GuestThawed{Go: m.Go, Final: m.Final, Release: r}
}

func writers(list []protocol.Writer) []freezewindow.Writer {
	var out []freezewindow.Writer
	for _, w := range list[:min(len(list), maxWriters)] {
		out = append(out, freezewindow.Writer{
			Name: w.Name, ClassID: w.ClassID, InstanceID: w.InstanceID, State: w.State, Failure: w.FailureHR,
			AppFailure: w.AppHR, AppMessage: w.AppMsg, Required: w.Required,
		})
	}
	return out
}

// maxWriters bounds what a guest can have us print; VSS itself has at most 64 sessions a writer, and servers a few dozen
// writers.
const maxWriters = 256

// witness reads what independent parts of the guest said; what cannot be read was not said.
func witness(said map[string]string) freezewindow.Witness {
	w := freezewindow.Witness{HoldRanOut: said[protocol.WitnessHoldRanOut] != "", FlushRanOut: said[protocol.WitnessFlushRanOut] != ""}
	for key, text := range said {
		held, err := strconv.ParseInt(text, 10, 64)
		if !strings.HasPrefix(key, protocol.WitnessSQLHeld) || err != nil || held <= 0 {
			continue
		}
		if w.SQLHeld == 0 || us(held) < w.SQLHeld {
			w.SQLHeld = us(held)
		}
	}
	return w
}

func (s *Session) tell(e freezewindow.Event) { s.tellAt(e, time.Now()) }

func (s *Session) tellAt(e freezewindow.Event, received time.Time) {
	select {
	case s.events <- freezewindow.GuestEvent{Received: received, Event: e}:
	case <-s.closed:
	}
}

// beat keeps the agent's limit on silence away outside the window.
func (s *Session) beat() {
	ticker := time.NewTicker(s.pace.beat)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-s.closed:
			return
		case <-ticker.C:
			s.lock <- struct{}{}
			due := !s.moving || s.pace.openBeat == s.pace.beat || time.Since(last) >= s.pace.openBeat
			quiet := !s.inWindow && s.conn != nil && due
			<-s.lock
			if !quiet {
				continue
			}
			last = time.Now()
			if s.say(&protocol.Heartbeat{}, protocol.WordHeartbeat) != nil {
				continue // the reader tells
			}
		}
	}
}

// ask says m and waits for the answer with the word want.
func (s *Session) ask(ctx context.Context, m protocol.Message, t, want protocol.Word, limit time.Duration) (protocol.Message, error) {
	op := fmt.Sprintf("wait for the agent's answer to %s", t)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	s.lock <- struct{}{}
	down := s.down
	<-s.lock
	for len(s.answers) > 0 { // to heartbeats that nobody waited for; they would leave no room for the answer
		<-s.answers
	}
	if err := s.say(m, t); err != nil {
		return nil, &Error{SF: "SF3701", Op: fmt.Sprintf("send %s to the agent", t), Err: err}
	}
	silence := time.NewTimer(s.pace.silence)
	defer silence.Stop()
	for {
		select {
		case a := <-s.answers:
			silence.Reset(s.pace.silence)
			if no, ok := a.(*protocol.Error); ok {
				return nil, &Error{SF: AgentCode(no.Code, codeProtocol), Op: op, Err: errors.New("the agent answered: " + no.Text)}
			}
			if a.Head().T == want && (a.Head().Re == 0 || a.Head().Re == m.Head().Q) {
				failpoint.After("agent.answer", t)
				return a, nil
			}
		case <-silence.C:
			return nil, &Error{SF: "SF3701", Op: op, Err: fmt.Errorf("the agent was silent for %v", s.pace.silence)}
		case <-down:
			if len(s.answers) > 0 { // an agent that was asked to end says so last
				continue
			}
			return nil, &Error{SF: "SF3701", Op: op, Err: errors.New("the connection to the agent was lost")}
		case <-ctx.Done():
			return nil, &Error{SF: "SF3701", Op: op, Err: context.Cause(ctx)}
		}
	}
}

// RTT measures the longest of a few round trips to the agent.
func (s *Session) RTT(ctx context.Context) (time.Duration, error) {
	var longest time.Duration
	for range s.pace.probes {
		sent := time.Now()
		if _, err := s.ask(ctx, &protocol.Heartbeat{}, protocol.WordHeartbeat, protocol.WordHeartbeat, s.pace.rtt); err != nil {
			return 0, &Error{SF: "SF4011", Op: "measure the round trip to the agent", Err: err}
		}
		longest = max(longest, time.Since(sent))
	}
	return longest, nil
}

// Order is what a run wants to be held.
type Order struct {
	Mode   freezewindow.Mode
	Budget freezewindow.Budget
	// Volumes are mount points or volume ids; empty means all that are supported.
	Volumes []string
	// BackupType is copy or full; empty is copy, which touches no application's log or differential chain (Windows).
	BackupType string
	// Required writers must be well for a consistent level, Tolerated ones need not, Excluded ones are not asked at all;
	// each is a class id. The agent requires Exchange, SQL Server and NTDS by itself where they are (Windows).
	Required, Tolerated, Excluded []string
}

// Arm has the agent do everything slow; nothing is held yet. The Ready says what will be held and for how long the agent
// stays ready; the caller adds what it knows itself.
func (s *Session) Arm(ctx context.Context, o Order) (freezewindow.Ready, error) {
	b := o.Budget
	if s.peer.Slow {
		var err error
		if o.Mode, err = mailboxMode(o.Mode, s.Hello.OS.Family); err != nil {
			return freezewindow.Ready{}, err
		}
	}
	m := &protocol.Arm{
		Mode: string(o.Mode), BackupType: cmp.Or(o.BackupType, "copy"), Volumes: o.Volumes, Hooks: []string{},
		Writers: protocol.WriterPolicy{Required: some(o.Required), Tolerated: some(o.Tolerated), Excluded: some(o.Excluded)},
		Budget:  protocol.Limits{HoldMS: b.Hold.Milliseconds(), DeadmanMS: b.Deadman.Milliseconds(), IODeadmanMS: b.IODeadman.Milliseconds()},
	}
	answer, err := s.ask(ctx, m, protocol.WordArm, protocol.WordReady, armLimit)
	s.hooked = CodeOf(err) == "SF4019"
	if err != nil {
		return freezewindow.Ready{}, err
	}
	r, ok := answer.(*protocol.Ready)
	if !ok {
		return freezewindow.Ready{}, &Error{SF: "SF3901", Op: "arm the agent", Err: fmt.Errorf("the agent answered %s", answer.Head().T)}
	}
	s.hooked, s.Ready = len(r.Hooks) > 0, r
	ready := freezewindow.Ready{Mode: freezewindow.Mode(r.Mode), Left: time.Duration(r.ReadyLeftMS) * time.Millisecond}
	for _, w := range r.Writers {
		if w.Required {
			ready.Writers = append(ready.Writers, w.ClassID)
		}
	}
	for _, v := range r.Volumes {
		if len(v.Mounts) > 0 {
			ready.Volumes = append(ready.Volumes, v.Mounts[0])
		} else {
			ready.Volumes = append(ready.Volumes, v.ID)
		}
	}
	return ready, nil
}

// some is never null on the wire.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// Volume is a file system of the guest for the report.
type Volume struct{ Mount, FS, Why string }

// NotHeld lists the guest's local file systems that are writable and not among held. Those without a device of their own
// (major number 0) hold no data of the VM's disks, but for btrfs.
func (s *Session) NotHeld(held []string) []Volume {
	var out []Volume
	for _, v := range s.Hello.Volumes {
		if len(v.Mounts) == 0 || slices.Contains(held, v.Mounts[0]) || v.Why == "read-only" ||
			strings.HasPrefix(v.ID, "0:") && v.FS != "btrfs" {
			continue
		}
		why := v.Why
		if v.Supported {
			why = "not asked for"
		}
		out = append(out, Volume{v.Mounts[0], v.FS, why})
	}
	return out
}

// End closes the agent's session without a backup. An agent that has nothing open is told to stop. The agent leaves
// afterwards by itself.
func (s *Session) End(ctx context.Context) error {
	s.lock <- struct{}{}
	s.inWindow = false
	<-s.lock
	limit := endLimit
	if s.hooked {
		limit += hooksLimit
	}
	answer, err := s.ask(ctx, &protocol.Abort{Reason: "the run ends without a restore point"}, protocol.WordAbort, protocol.WordAbort, limit)
	if a, ok := answer.(*protocol.Abort); ok && err == nil {
		s.Closed = s.Closed || a.Closed
	}
	return err
}

// ID names the session, as the agent knows it.
func (s *Session) ID() string { return s.id }

// Dropped counts words that were replayed or of another session.
func (s *Session) Dropped() int {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	return s.dropped
}

// Close ends the connection and waits for the session's goroutines. It is idempotent.
func (s *Session) Close() {
	s.lock <- struct{}{}
	conn := s.conn
	s.conn = nil
	if !isClosed(s.closed) {
		close(s.closed)
	}
	<-s.lock
	if conn != nil {
		closeQuietly(conn)
	}
	s.group.Wait()
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// closeQuietly closes a connection that is of no use any more: what Close says of it helps nobody.
func closeQuietly(conn net.Conn) {
	if conn.Close() != nil {
		return
	}
}

// newID makes 128 random bits in hex.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
