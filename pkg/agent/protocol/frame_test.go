package protocol_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

func TestFrameRoundTrip(t *testing.T) {
	bodies := map[string][]byte{
		"one byte":    {'x'},
		"zero bytes":  {0, 0, 0, 0},
		"a word":      []byte(`{"t":"GO"}`),
		"the largest": bytes.Repeat([]byte{'a'}, protocol.MaxFrame),
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			frame, err := protocol.AppendFrame([]byte("before"), body)
			if err != nil {
				t.Fatal(err)
			}
			r := bytes.NewReader(append(frame[len("before"):], "after"...))
			got, err := protocol.ReadFrame(r)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, body) {
				t.Errorf("ReadFrame gave %d bytes, want the %d written", len(got), len(body))
			}
			if r.Len() != len("after") {
				t.Errorf("%d bytes are left after the frame, want %d", r.Len(), len("after"))
			}
		})
	}
}

func TestFrameSizeIsBounded(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "one too many": protocol.MaxFrame + 1} {
		t.Run(name, func(t *testing.T) {
			if _, err := protocol.AppendFrame(nil, make([]byte, size)); !errors.Is(err, protocol.ErrFrameSize) {
				t.Errorf("AppendFrame = %v, want ErrFrameSize", err)
			}
			head := binary.BigEndian.AppendUint32(nil, uint32(size))
			if _, err := protocol.ReadFrame(bytes.NewReader(head)); !errors.Is(err, protocol.ErrFrameSize) {
				t.Errorf("ReadFrame = %v, want ErrFrameSize", err)
			}
		})
	}
	head := []byte{0xff, 0xff, 0xff, 0xff} // a length that must be refused before memory is asked for
	if _, err := protocol.ReadFrame(bytes.NewReader(head)); !errors.Is(err, protocol.ErrFrameSize) {
		t.Errorf("ReadFrame of 4 GiB = %v, want ErrFrameSize", err)
	}
}

func TestFrameCutAtEveryByte(t *testing.T) {
	frame, err := protocol.AppendFrame(nil, []byte(`{"t":"THAW","go":7}`))
	if err != nil {
		t.Fatal(err)
	}
	for n := range frame {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if body, err := protocol.ReadFrame(bytes.NewReader(frame[:n])); err != want { //nolint:errorlint // the exact value is promised
			t.Errorf("ReadFrame of the first %d bytes = %q, %v, want %v", n, body, err, want)
		}
	}
}

// words are one message of each kind and direction.
func words() (forAgent, forOrchestrator []protocol.Message) {
	e := func(w protocol.Word) protocol.Envelope {
		return protocol.Envelope{V: 1, T: w, S: "00112233445566778899aabbccddeeff", Q: 3, Re: 2, AtUS: 12345}
	}
	forAgent = []protocol.Message{
		&protocol.Hello{Envelope: e(protocol.WordHello), MinV: 1, MaxV: 1, Nonce: "n", VMUUID: "u", Run: "r", Epoch: 9, Resume: true},
		&protocol.Arm{Envelope: e(protocol.WordArm), Mode: "fs", BackupType: "copy", Volumes: []string{"/"}},
		&protocol.Go{Envelope: e(protocol.WordGo), Go: 1<<64 - 1, HoldMS: 20000},
		&protocol.Thaw{Envelope: e(protocol.WordThaw), Go: 1<<63 + 1, Reason: "deadline"},
		&protocol.Heartbeat{Envelope: e(protocol.WordHeartbeat)},
		&protocol.Complete{Envelope: e(protocol.WordComplete), OK: "all", Components: []string{}},
		&protocol.Abort{Envelope: e(protocol.WordAbort), Reason: "because"},
		&protocol.Pin{Envelope: e(protocol.WordPin), Next: strings.Repeat("ab", 32), Confirmed: strings.Repeat("cd", 32)},
	}
	forOrchestrator = []protocol.Message{
		&protocol.HelloAnswer{Envelope: e(protocol.WordHello), NonceEcho: "n", OS: protocol.OS{Family: "linux"}, Persistent: true, Volumes: []protocol.Volume{{ID: "8:1", Mounts: []string{"/"}}}},
		&protocol.Ready{Envelope: e(protocol.WordReady), Mode: "fs", PhasesUS: map[string]int64{"prepare": 5}, ReadyLeftMS: 60000},
		&protocol.Frozen{Envelope: e(protocol.WordFrozen), Go: 7, Mode: "fs", HoldUS: 1, SinceGoUS: 2, LeftUS: 3, Flush: "full"},
		&protocol.Thawed{Envelope: e(protocol.WordThawed), Go: 7, Final: true, WasHeld: true, ThawResults: []protocol.ThawResult{{Mount: "/", OK: true}}},
		&protocol.Heartbeat{Envelope: e(protocol.WordHeartbeat), State: "FROZEN", HoldUS: 5, LeftUS: 6},
		&protocol.CompleteAnswer{Envelope: e(protocol.WordComplete), Result: "ok", Closed: true},
		&protocol.Abort{Envelope: e(protocol.WordAbort), Was: "READY", Closed: true},
		&protocol.PinAnswer{Envelope: e(protocol.WordPin), Fingerprint: strings.Repeat("ab", 32), Next: strings.Repeat("cd", 32)},
		&protocol.Error{Envelope: e(protocol.WordError), Code: "SF4008", Fatal: true, Text: "busy", Writer: &protocol.Writer{Name: "w"}},
	}
	return forAgent, forOrchestrator
}

func TestWordsRoundTrip(t *testing.T) {
	toAgent, toOrchestrator := words()
	directions := map[string]struct {
		words  []protocol.Message
		decode func([]byte) (protocol.Message, error)
	}{
		"for the agent":        {toAgent, protocol.DecodeForAgent},
		"for the orchestrator": {toOrchestrator, protocol.DecodeForOrchestrator},
	}
	for name, d := range directions {
		t.Run(name, func(t *testing.T) {
			for _, want := range d.words {
				body, err := protocol.Encode(want)
				if err != nil {
					t.Fatal(err)
				}
				got, err := d.decode(body)
				if err != nil {
					t.Errorf("decode(%s) = %v", body, err)
					continue
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s changed on its way (-sent +read):\n%s", want.Head().T, diff)
				}
			}
		})
	}
}

func TestDecodeBadBodies(t *testing.T) {
	cases := map[string]struct {
		body    string
		unknown bool // an envelope with ErrUnknownWord; otherwise no message at all
	}{
		"no JSON":              {body: "GET / HTTP/1.1"},
		"cut JSON":             {body: `{"t":"GO","go":`},
		"an array":             {body: `[]`},
		"two objects":          {body: `{"t":"GO"}{"t":"GO"}`},
		"null":                 {body: `null`, unknown: true},
		"no word":              {body: `{"v":1}`, unknown: true},
		"a word of the future": {body: `{"t":"SLEEP","q":4}`, unknown: true},
		"the other side's":     {body: `{"t":"FROZEN"}`, unknown: true},
		"negative go":          {body: `{"t":"GO","go":-1}`},
		"fractional go":        {body: `{"t":"GO","go":1.5}`},
		"text for a number":    {body: `{"t":"GO","q":"1"}`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m, err := protocol.DecodeForAgent([]byte(c.body))
			if err == nil {
				t.Fatalf("DecodeForAgent(%s) = %#v, want an error", c.body, m)
			}
			if got := errors.Is(err, protocol.ErrUnknownWord); got != c.unknown || (m != nil) != c.unknown {
				t.Errorf("DecodeForAgent(%s) = %#v, %v, want unknown word: %t", c.body, m, err, c.unknown)
			}
		})
	}
}

func TestDecodeIgnoresUnknownFields(t *testing.T) {
	m, err := protocol.DecodeForAgent([]byte(`{"t":"GO","go":7,"colour":"blue"}`))
	if err != nil {
		t.Fatal(err)
	}
	if g, ok := m.(*protocol.Go); !ok || g.Go != 7 {
		t.Errorf("DecodeForAgent = %#v, want GO 7", m)
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, body := range []string{"x", `{"t":"GO"}`, "\x00"} {
		frame, err := protocol.AppendFrame(nil, []byte(body))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
		f.Add(frame[:len(frame)-1])
		f.Add(append(frame, frame...))
	}
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 16, 0, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		r := bytes.NewReader(input)
		for {
			before := len(input) - r.Len()
			body, err := protocol.ReadFrame(r)
			if err != nil {
				return
			}
			again, err := protocol.AppendFrame(nil, body)
			if err != nil {
				t.Fatalf("AppendFrame of what was read: %v", err)
			}
			if read := input[before : len(input)-r.Len()]; !bytes.Equal(again, read) {
				t.Fatalf("read %x, written again %x", read, again)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	toAgent, toOrchestrator := words()
	for _, m := range append(toAgent, toOrchestrator...) {
		body, err := protocol.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
		f.Add(body[:len(body)/2])
	}
	for _, body := range []string{"", "null", "{}", "[]", `{"t":"SLEEP"}`, `{"t":"GO","go":-1}`, `{"t":"THAWED","trace":[null]}`, `{"t":"ERROR","writer":{}}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, decode := range []func([]byte) (protocol.Message, error){protocol.DecodeForAgent, protocol.DecodeForOrchestrator} {
			m, err := decode(body)
			if err != nil {
				if (m != nil) != errors.Is(err, protocol.ErrUnknownWord) {
					t.Fatalf("decode(%q) = %#v with %v", body, m, err)
				}
				continue
			}
			once, err := protocol.Encode(m)
			if err != nil {
				t.Fatalf("encode what was read of %q: %v", body, err)
			}
			back, err := decode(once)
			if err != nil {
				t.Fatalf("read %q again: %v", once, err)
			}
			if twice, err := protocol.Encode(back); err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%q became %q, %v", once, twice, err)
			}
		}
	})
}
