// Package protocol is the language of the orchestrator and the guest's agent: words, and the frames that carry them.
//
// The words are documented for implementers in docs/protocol.md. Durations are relative integers, _us in microseconds
// or _ms in milliseconds, of the sender's monotonic clock; no wall-clock time decides anything.
package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Word is the kind of a message, the field t of every frame.
type Word string

// The words. Hello, Heartbeat, Complete, Abort and Pin travel both ways; which fields they have depends on the direction.
const (
	WordHello     Word = "HELLO"
	WordArm       Word = "ARM"
	WordReady     Word = "READY"
	WordGo        Word = "GO"
	WordFrozen    Word = "FROZEN"
	WordThaw      Word = "THAW"
	WordThawed    Word = "THAWED"
	WordHeartbeat Word = "HEARTBEAT"
	WordComplete  Word = "COMPLETE"
	WordAbort     Word = "ABORT"
	WordPin       Word = "PIN"
	WordError     Word = "ERROR"
)

// Envelope is what every frame carries.
type Envelope struct {
	// V is the protocol version.
	V int `json:"v"`
	// T is the word.
	T Word `json:"t"`
	// S is the session: 128 bits in hex, made by the orchestrator.
	S string `json:"s"`
	// Q is the sender's own sequence: it starts at 1 and strictly rises.
	Q uint64 `json:"q"`
	// Re is the sequence that this answers, 0 for none.
	Re uint64 `json:"re"`
	// AtUS is the sender's monotonic time since its session began; for traces only.
	AtUS int64 `json:"at_us"`
}

// Head gives the envelope of a message, so that a sender can fill it in.
func (e *Envelope) Head() *Envelope { return e }

// Message is any word with its envelope.
type Message interface{ Head() *Envelope }

// ErrUnknownWord is returned for a frame whose word this version does not know; it is answered with ERROR.
var ErrUnknownWord = errors.New("unknown word")

// Hello opens a session (orchestrator to agent).
type Hello struct {
	Envelope
	MinV   int    `json:"min_v"`
	MaxV   int    `json:"max_v"`
	Nonce  string `json:"nonce"`
	VMUUID string `json:"vm_uuid"`
	Run    string `json:"run"`
	// Epoch is the installation's lease epoch; one lower than the highest seen is refused.
	Epoch uint64 `json:"epoch"`
	// Resume asks to go on with the session named in S after a lost link.
	Resume bool `json:"resume,omitempty"`
}

// HelloAnswer introduces the agent and the guest (agent to orchestrator).
type HelloAnswer struct {
	Envelope
	NonceEcho    string   `json:"nonce_echo"`
	Nonce        string   `json:"nonce"`
	AgentVersion string   `json:"agent_version"`
	ExeSHA256    string   `json:"exe_sha256"`
	OS           OS       `json:"os"`
	VMUUID       string   `json:"vm_uuid"`
	UptimeUS     int64    `json:"uptime_us"`
	BootID       string   `json:"boot_id"`
	State        string   `json:"state"`
	StateSession string   `json:"state_session"`
	Limits       Limits   `json:"limits"`
	Volumes      []Volume `json:"volumes"`
	Conflicts    []string `json:"conflicts"`
	// LeakedSessions counts writer sessions of ours that never got their end (Windows), 0 elsewhere.
	LeakedSessions int `json:"leaked_sessions"`
	// Persistent says that the agent stays when the session is over, and knows the word PIN. Agents that have not heard of
	// this field leave it out.
	Persistent bool `json:"persistent"`
}

// OS names the guest's system.
type OS struct {
	Family  string `json:"family"`
	Version string `json:"version"`
	Build   string `json:"build"`
	Edition string `json:"edition"`
	Arch    string `json:"arch"`
}

// Limits are the agent's compiled limits on a hold, in milliseconds; an ARM may ask for less, never for more.
type Limits struct {
	HoldMS      int64 `json:"hold_ms"`
	DeadmanMS   int64 `json:"deadman_ms"`
	IODeadmanMS int64 `json:"io_deadman_ms"`
}

// Volume is one file system of the guest.
type Volume struct {
	ID     string   `json:"id"`
	Mounts []string `json:"mounts"`
	FS     string   `json:"fs"`
	Disks  []Disk   `json:"disks"`
	Size   int64    `json:"size"`
	Free   int64    `json:"free"`
	// Supported says whether the agent would freeze it; Why says why not.
	Supported bool   `json:"supported"`
	Why       string `json:"why"`
}

// Disk is where a volume lies.
type Disk struct {
	Serial string `json:"serial"`
	Number int    `json:"number"`
	Offset int64  `json:"offset"`
}

// Arm prepares a freeze; nothing is held yet.
type Arm struct {
	Envelope
	Mode       string       `json:"mode"`
	BackupType string       `json:"backup_type"`
	Volumes    []string     `json:"volumes"`
	Writers    WriterPolicy `json:"writers"`
	Hooks      []string     `json:"hooks"`
	Budget     Limits       `json:"budget"`
	Limits     WaitLimits   `json:"limits"`
}

// WriterPolicy says which VSS writers must be well, may fail, or stay out (Windows).
type WriterPolicy struct {
	Required  []string `json:"required"`
	Tolerated []string `json:"tolerated"`
	Excluded  []string `json:"excluded"`
}

// WaitLimits are the agent's limits outside the hold, in milliseconds; 0 means its own.
type WaitLimits struct {
	ArmMS     int64 `json:"arm_ms"`
	ReadyMS   int64 `json:"ready_ms"`
	PreholdMS int64 `json:"prehold_ms"`
	OpenMS    int64 `json:"open_ms"`
	SilenceMS int64 `json:"silence_ms"`
}

// Ready answers ARM: all is prepared, GO may come.
type Ready struct {
	Envelope
	Mode     string           `json:"mode"`
	SetID    string           `json:"set_id"`
	Provider Provider         `json:"provider"`
	Writers  []Writer         `json:"writers"`
	Volumes  []Volume         `json:"volumes"`
	PhasesUS map[string]int64 `json:"phases_us"`
	// Hooks names the hooks that are installed in the guest.
	Hooks []string `json:"hooks,omitempty"`
	// ReadyLeftMS is how long the agent stays ready.
	ReadyLeftMS int64 `json:"ready_left_ms"`
}

// Provider is what holds the volumes.
type Provider struct {
	ID      string   `json:"id"`
	Version string   `json:"version"`
	Served  []string `json:"served"`
}

// Writer is one application's part in a freeze.
type Writer struct {
	Name       string      `json:"name"`
	ClassID    string      `json:"class_id"`
	InstanceID string      `json:"instance_id"`
	State      int         `json:"state"`
	FailureHR  string      `json:"failure_hr"`
	AppHR      string      `json:"app_hr"`
	AppMsg     string      `json:"app_msg"`
	Required   bool        `json:"required"`
	Components []Component `json:"components"`
}

// Component is what a writer says can be backed up.
type Component struct {
	Type       int      `json:"type"`
	Path       string   `json:"path"`
	Name       string   `json:"name"`
	Selectable bool     `json:"selectable"`
	OK         bool     `json:"ok"`
	Volumes    []string `json:"volumes"`
}

// Go starts the freeze. A Go id freezes at most once in the life of the agent.
type Go struct {
	Envelope
	Go     uint64 `json:"go"`
	HoldMS int64  `json:"hold_ms"`
}

// Frozen says that everything is held.
type Frozen struct {
	Envelope
	Go   uint64 `json:"go"`
	Mode string `json:"mode"`
	// HoldUS is the age of the hold when this was written.
	HoldUS int64 `json:"hold_us"`
	// SinceGoUS is the time since GO was read when this was written.
	SinceGoUS int64 `json:"since_go_us"`
	// IOUS is the age of the volume hold in io mode, else 0.
	IOUS int64 `json:"io_us"`
	// LeftUS is the time until the dead-man.
	LeftUS int64 `json:"left_us"`
	// Flush is full, partial or none.
	Flush    string           `json:"flush"`
	PhasesUS map[string]int64 `json:"phases_us"`
}

// Thaw ends the hold; it is idempotent and accepted in every state.
type Thaw struct {
	Envelope
	Go     uint64 `json:"go"`
	Reason string `json:"reason"`
}

// Thawed says that everything is released. It is sent at once with Final false, and again with Final true when status
// and clean-up are known.
type Thawed struct {
	Envelope
	Go    uint64 `json:"go"`
	Final bool   `json:"final"`
	// WasHeld is true when everything was still held as THAW arrived.
	WasHeld bool `json:"was_held"`
	// HeldUS is from the first hold to the last release.
	HeldUS int64 `json:"held_us"`
	IOUS   int64 `json:"io_us"`
	// ThawArrivedUS and ReleasedUS count from the start of the hold; ThawArrivedUS is 0 when no THAW came.
	ThawArrivedUS int64 `json:"thaw_arrived_us"`
	ReleasedUS    int64 `json:"released_us"`
	// Expired is true when the guest released itself, ExpiredBy says why.
	Expired   bool   `json:"expired"`
	ExpiredBy string `json:"expired_by"`
	// SetResult is the result of the shadow copy set (Windows) as 8 hex digits.
	SetResult string `json:"set_result"`
	// Finished is true when the freeze was reached and everything was released without error.
	Finished    bool         `json:"finished"`
	Writers     []Writer     `json:"writers"`
	ThawResults []ThawResult `json:"thaw_results"`
	// Hooks are the guest's hooks that were run, point by point; those of post-thaw come with Final.
	Hooks []Hook `json:"hooks,omitempty"`
	// Witness holds what independent parts of the guest said of the hold.
	Witness map[string]string `json:"witness"`
	// MaxGapUS is the longest time that the agent itself did not run.
	MaxGapUS int64        `json:"max_gap_us"`
	Trace    []TraceEntry `json:"trace"`
	// Events are what the guest's own logs have from around the hold; they come with Final (Windows).
	Events []Event `json:"events,omitempty"`
}

// Event is one entry of a log of the guest.
type Event struct {
	// Provider and ID name the kind of the event, Channel the log.
	Provider string `json:"provider"`
	ID       int    `json:"id"`
	Channel  string `json:"channel"`
	// HR is the result code that the event tells, in 8 hexadecimal digits, or empty.
	HR string `json:"hr"`
	// AgeUS is how long before the harvest it was written, by the guest's clock.
	AgeUS int64 `json:"age_us"`
	// Text is at most 512 bytes of the event's data.
	Text string `json:"text"`
}

// The keys of Thawed's witness. The first two count Windows' own events that the hold of writes, or the flush before it,
// ran out (volsnap 8 and 9). The third is followed by an instance and a database of SQL Server, as in
// sql_held_us/MSSQLSERVER/orders, and tells for how many microseconds its I/O was frozen (events 3197 and 3198), or
// WitnessFrozen when it was not resumed.
const (
	WitnessHoldRanOut  = "volsnap_8"
	WitnessFlushRanOut = "volsnap_9"
	WitnessSQLHeld     = "sql_held_us/"
	WitnessFrozen      = "frozen"
)

// ThawResult is how one file system was released.
type ThawResult struct {
	Mount string `json:"mount"`
	// OK is true when our own FITHAW released it.
	OK bool `json:"ok"`
	// Error is empty, or the system's error name and text; EINVAL means that somebody else had thawed it.
	Error string `json:"error"`
}

// Hook is how one hook of the guest's owner went at one point.
type Hook struct {
	Name string `json:"name"`
	// Point is prepare, pre-freeze or post-thaw.
	Point string `json:"point"`
	// OK is true when it did all that was asked of it; a holding hook has then held until it was let go, and ended well.
	OK bool `json:"ok"`
	// HeldUS is how long a holding hook lived after it was started, 0 for others.
	HeldUS int64 `json:"held_us"`
	// Error is empty or says what went wrong, with the end of the hook's error output.
	Error string `json:"error"`
	// Required and Holds are of the hook's description.
	Required bool `json:"required"`
	Holds    bool `json:"holds"`
	// SHA256 of the program, in hex.
	SHA256 string `json:"sha256"`
}

// TraceEntry is one line of the agent's ring.
type TraceEntry struct {
	AtUS   int64  `json:"at_us"`
	What   string `json:"what"`
	Thread int    `json:"thread"`
}

// Heartbeat asks for a sign of life, and answers it.
type Heartbeat struct {
	Envelope
	State  string `json:"state,omitempty"`
	Phase  string `json:"phase,omitempty"`
	HoldUS int64  `json:"hold_us,omitempty"`
	LeftUS int64  `json:"left_us,omitempty"`
}

// Complete ends the session after the data is stored (orchestrator to agent).
type Complete struct {
	Envelope
	// OK is all, none or list.
	OK         string   `json:"ok"`
	Components []string `json:"components"`
	Truncate   bool     `json:"truncate"`
}

// CompleteAnswer says how the session ended (agent to orchestrator).
type CompleteAnswer struct {
	Envelope
	Result  string   `json:"result"`
	Writers []Writer `json:"writers"`
	Events  []string `json:"events"`
	Closed  bool     `json:"closed"`
}

// Abort ends the session without success.
type Abort struct {
	Envelope
	Reason string `json:"reason"`
	// Was and Closed are in the answer: the state it met, and that the session is over.
	Was    string `json:"was,omitempty"`
	Closed bool   `json:"closed,omitempty"`
}

// Pin renews what both sides of a persistent agent know each other by (orchestrator to agent). Fingerprints are 64
// hexadecimal digits; either may be left out.
type Pin struct {
	Envelope
	// Next is the orchestrator's next certificate, which the agent lets in beside the present one from its answer on.
	Next string `json:"next,omitempty"`
	// Confirmed is the agent's own next certificate, which it serves from its answer on.
	Confirmed string `json:"confirmed,omitempty"`
}

// PinAnswer says what is kept now, durably (agent to orchestrator).
type PinAnswer struct {
	Envelope
	// Fingerprint is of the certificate that the agent serves.
	Fingerprint string `json:"fingerprint"`
	// Next is of the one that it will serve once it is confirmed; empty for none.
	Next string `json:"next"`
}

// Error is the agent's no.
type Error struct {
	Envelope
	// Code is the stable code of the error catalogue (SF4nnn, SF3nnn).
	Code   string  `json:"code"`
	HR     string  `json:"hr"`
	Op     string  `json:"op"`
	Phase  string  `json:"phase"`
	Writer *Writer `json:"writer,omitempty"`
	// Fatal says that the session is over.
	Fatal bool   `json:"fatal"`
	Text  string `json:"text"`
}

// Encode marshals m as the body of a frame.
func Encode(m Message) ([]byte, error) { return json.Marshal(m) }

// DecodeForAgent reads a body sent by the orchestrator. Unknown fields are ignored; an unknown word gives its Envelope
// with ErrUnknownWord.
func DecodeForAgent(body []byte) (Message, error) {
	return decode(body, map[Word]func() Message{
		WordHello:     func() Message { return new(Hello) },
		WordArm:       func() Message { return new(Arm) },
		WordGo:        func() Message { return new(Go) },
		WordThaw:      func() Message { return new(Thaw) },
		WordHeartbeat: func() Message { return new(Heartbeat) },
		WordComplete:  func() Message { return new(Complete) },
		WordAbort:     func() Message { return new(Abort) },
		WordPin:       func() Message { return new(Pin) },
	})
}

// DecodeForOrchestrator reads a body sent by the agent, with the rules of DecodeForAgent.
func DecodeForOrchestrator(body []byte) (Message, error) {
	return decode(body, map[Word]func() Message{
		WordHello:     func() Message { return new(HelloAnswer) },
		WordReady:     func() Message { return new(Ready) },
		WordFrozen:    func() Message { return new(Frozen) },
		WordThawed:    func() Message { return new(Thawed) },
		WordHeartbeat: func() Message { return new(Heartbeat) },
		WordComplete:  func() Message { return new(CompleteAnswer) },
		WordAbort:     func() Message { return new(Abort) },
		WordPin:       func() Message { return new(PinAnswer) },
		WordError:     func() Message { return new(Error) },
	})
}

func decode(body []byte, words map[Word]func() Message) (Message, error) {
	var head Envelope
	if err := json.Unmarshal(body, &head); err != nil {
		return nil, fmt.Errorf("read the envelope of a frame: %w", err)
	}
	make, ok := words[head.T]
	if !ok {
		return &head, fmt.Errorf("%w %q", ErrUnknownWord, head.T)
	}
	m := make()
	if err := json.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("read a %s frame: %w", head.T, err)
	}
	return m, nil
}
